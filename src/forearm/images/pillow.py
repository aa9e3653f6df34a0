"""The one place where Pillow decodes.

It is handed a file rebuilt from checked pieces: no metadata, one frame, known size and mode.
"""

from __future__ import annotations

import warnings
from io import BytesIO

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageFile

from forearm.errors import InputError


def samples(data: bytes, kind: str, size: tuple[int, int], modes: tuple[str, ...]) -> NDArray[np.uint8]:
    """Decoded samples, h w or h w c, of a file of the format `kind` that must be of this `size` (w, h) and one of these
    `modes`.

    Whatever the decoder raises on damaged data becomes an InputError with the cause.
    `PIL.ImageFile.LOAD_TRUNCATED_IMAGES` must be off: it turns missing pixels grey without a word.
    """
    if ImageFile.LOAD_TRUNCATED_IMAGES:
        raise InputError("PIL.ImageFile.LOAD_TRUNCATED_IMAGES is on; off, for example by not setting it in this process")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            with Image.open(BytesIO(data), formats=(kind,)) as image:
                if image.size != size or image.mode not in modes:
                    raise InputError(
                        f"{image.mode} of {image.size} where the header says {size}; {' or '.join(modes)}, for example saved anew"
                    )
                image.load()
                return np.array(image, dtype=np.uint8)
    except InputError:
        raise
    except (
        Exception
    ) as error:  # hostile bytes: OSError, SyntaxError, struct.error, zlib.error, MemoryError, DecompressionBombError and others
        cause = " ".join(str(error).split()) or type(error).__name__
        raise InputError(f"a damaged {kind} ({cause[:200]}); a whole file, for example one that a viewer shows to its last row") from None
