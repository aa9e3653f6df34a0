"""Draw `docs/pictures/corruptions.png`: each of the 32 operations at severities 1, 3 and 5, on a photo (CC0) that ships inside scikit-image.

python docs/make_corruptions.py
"""

from __future__ import annotations

import sys
from pathlib import Path

import skimage
import torch
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from forearm.core.noise import Noise
from forearm.core.quantize import levels
from forearm.data.corruptions.table import CORRUPTIONS
from forearm.data.photos import decode
from forearm.registry import resolve

PHOTO = Path(str(skimage.__file__)).parent / "data" / "chelsea.png"
TILE, GAP, LABEL, ACROSS = 72, 2, 16, 4  # pixels; operations beside each other
SHOWN = (1, 3, 5)
SEED = 5


def row(x: Tensor, name: str) -> Image.Image:
    """One operation: its name above the photo at the severities that are shown."""
    made = Image.new("RGB", (len(SHOWN) * (TILE + GAP) - GAP, LABEL + TILE), "white")
    ImageDraw.Draw(made).text((0, 1), name, fill="black", font=ImageFont.load_default(size=12))
    for i, severity in enumerate(SHOWN):
        tile = resolve(CORRUPTIONS, name)(x, noise=Noise.of(1, seed=SEED).stream(name), severity=severity)
        made.paste(Image.fromarray(levels(tile)[0].permute(1, 2, 0).numpy()), (i * (TILE + GAP), LABEL))
    return made


def sheet() -> Image.Image:
    """All operations in the order of the challenge, row by row, in 256 dithered colours."""
    x = decode([PHOTO], TILE).float() / 255.0
    rows = [row(x, name) for name in CORRUPTIONS]
    width, height = rows[0].width + 10, rows[0].height + 6
    made = Image.new("RGB", (ACROSS * width - 10, -(-len(rows) // ACROSS) * height), "white")
    for i, one in enumerate(rows):
        made.paste(one, (i % ACROSS * width, i // ACROSS * height))
    palette = made.quantize(256, kmeans=4)
    return made.quantize(palette=palette, dither=Image.Dither.FLOYDSTEINBERG)


if __name__ == "__main__":
    torch.set_num_threads(1)
    sheet().save(Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).parent / "pictures" / "corruptions.png", optimize=True)
