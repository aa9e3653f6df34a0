"""TIFF files of one picture: tags read here, strips decoded from a file rebuilt without the metadata, the other tags
written back byte for byte.
"""

from __future__ import annotations

from io import BytesIO

import numpy as np
from PIL import Image

from forearm.errors import InputError
from forearm.images import ifd
from forearm.images.limits import Limits, check_parts, check_size
from forearm.images.picture import Coding, Part, Picture, Pixels, Plane, join, mode_of, split, upright
from forearm.images.pillow import samples

WIDTH, HEIGHT, BITS, COMPRESSION, PHOTOMETRIC, FILL_ORDER, STRIPS, CHANNELS = 256, 257, 258, 259, 262, 266, 273, 277
ROWS, STRIP_SIZES, PLANAR, PREDICTOR, TILE_WIDTH, TILE_HEIGHT, TILES, TILE_SIZES = (
    278,
    279,
    284,
    317,
    322,
    323,
    324,
    325,
)
SUBFILES, EXTRA, SAMPLE_FORMAT = 330, 338, 339
STRUCTURE = {
    WIDTH, HEIGHT, BITS, COMPRESSION, PHOTOMETRIC, FILL_ORDER, STRIPS, CHANNELS, ROWS, STRIP_SIZES, PLANAR, PREDICTOR,
    TILE_WIDTH, TILE_HEIGHT, TILES, TILE_SIZES, SUBFILES, EXTRA, SAMPLE_FORMAT,
}  # fmt: skip
PILLOW_NAMES = {1: "raw", 5: "tiff_lzw", 8: "tiff_adobe_deflate", 32946: "tiff_deflate", 32773: "packbits"}
KINDS = {
    3: "a palette",
    4: "a transparency mask",
    5: "CMYK",
    6: "YCbCr",
    8: "CIE Lab",
    9: "ICC Lab",
    10: "ITU Lab",
    32803: "raw sensor data",
}
SIGNATURE = 52545  # C2PA
NOTE_TAG = 65042  # of the range that the format leaves to private use
NOTE = b"forearm "
ICC = 34675


def read(data: bytes, limits: Limits) -> Picture:
    """Decode a TIFF of one 8-bit picture, greyscale or RGB, with or without plain alpha, uncompressed or coded by LZW,
    deflate or PackBits.

    Refused: other depths, floats, palettes, CMYK, Lab, several pages, lossy or rare compressions, premultiplied alpha,
    further channels, BigTIFF.
    """
    order = ifd.byte_order(data)
    entries, following = ifd.read(data)
    width, height = ifd.number(entries, WIDTH, order, 0), ifd.number(entries, HEIGHT, order, 0)
    check_size(width, height, limits)
    if following:
        raise InputError("a TIFF of several pages; a single picture, for example its first page saved as TIFF")
    mode = _mode(entries, order)
    bare = _bare(data, entries, order, limits, (width, height, len(mode)))
    planes = samples(bare, "TIFF", (width, height), (mode,))
    if ifd.number(entries, PHOTOMETRIC, order, 1) == 0 and mode == "LA":
        planes = np.concatenate((255 - planes[..., :1], planes[..., 1:]), axis=2)
    pixels, alpha = split(planes)
    metadata = {tag: entry for tag, entry in entries.items() if tag not in STRUCTURE and tag not in (NOTE_TAG, SIGNATURE)}
    block = ifd.write(order, metadata)
    turn, dpi, complaint = ifd.glance(block)
    said = ["smaller versions of the picture in the file (SubIFDs) are dropped"] if SUBFILES in entries else []
    if SIGNATURE in entries:
        said.append("a C2PA tag, which the change makes untrue, is dropped")
    return Picture(
        pixels=upright(pixels, turn),
        alpha=None if alpha is None else upright(alpha, turn),
        format="TIFF",
        mode=mode_of(pixels, alpha),
        width=width,
        height=height,
        lossless=True,
        orientation=turn,
        dpi=dpi,
        icc=entries[ICC].raw if ICC in entries else None,
        exif=block,
        coding=Coding(
            compression=ifd.number(entries, COMPRESSION, order, 1),
            predictor=ifd.number(entries, PREDICTOR, order, 1),
        ),
        kept=(Part("tags", block),),
        warnings=(*said, *([complaint] if complaint else [])),
    )


def _mode(entries: dict[int, ifd.Entry], order: str) -> str:
    """L, LA, RGB or RGBA; anything else is refused."""
    kind = ifd.number(entries, PHOTOMETRIC, order, 1)
    if kind not in (0, 1, 2):
        raise InputError(f"a TIFF of {KINDS.get(kind, f'the colour kind {kind}')}; greyscale or RGB, for example converted to RGB first")
    bits = ifd.numbers(entries.get(BITS), order) or (1,)
    if set(bits) != {8}:
        raise InputError(
            f"a TIFF of {'/'.join(map(str, sorted(set(bits))))} bits a channel; 8 bits, for example saved anew as an 8-bit TIFF"
        )
    if set(ifd.numbers(entries.get(SAMPLE_FORMAT), order)) - {1}:
        raise InputError("a TIFF of signed or floating-point numbers; 8-bit unsigned, for example saved anew as an 8-bit TIFF")
    if ifd.number(entries, FILL_ORDER, order, 1) != 1:
        raise InputError("a TIFF with reversed bits; FillOrder 1, for example saved anew")
    compression = ifd.number(entries, COMPRESSION, order, 1)
    if compression not in PILLOW_NAMES:
        raise InputError(f"a TIFF of compression {compression}; none, LZW, deflate or PackBits, for example saved anew with LZW")
    if ifd.number(entries, PLANAR, order, 1) not in (1, 2):
        raise InputError("a TIFF of an unknown planar configuration; 1 or 2, for example saved anew")
    if ifd.number(entries, PREDICTOR, order, 1) not in (1, 2):
        raise InputError("a TIFF with a floating-point predictor; 1 or 2, for example saved anew with LZW")
    channels, extra = ifd.number(entries, CHANNELS, order, 1), ifd.numbers(entries.get(EXTRA), order)
    mode = {(1, 0): "L", (2, 1): "LA", (3, 0): "RGB", (4, 1): "RGBA"}.get((channels, len(extra)))
    if mode is None or (mode[0] == "L") != (kind < 2) or (extra and extra != (2,)):
        what = "premultiplied alpha" if extra[:1] == (1,) else f"{channels} channels, {len(extra)} of them extra"
        raise InputError(f"a TIFF of {what}; greyscale or RGB, plain alpha at most, for example saved anew as RGBA")
    return mode


def _bare(data: bytes, entries: dict[int, ifd.Entry], order: str, limits: Limits, shape: tuple[int, int, int]) -> bytes:
    """The same strips or tiles in a file without any other tag; their places and number are checked."""
    width, height, channels = shape
    tiled, across = TILES in entries, width
    planar, compression = ifd.number(entries, PLANAR, order, 1), ifd.number(entries, COMPRESSION, order, 1)
    offsets = ifd.numbers(entries.get(TILES if tiled else STRIPS), order)
    sizes = ifd.numbers(entries.get(TILE_SIZES if tiled else STRIP_SIZES), order)
    check_parts(len(offsets), limits)
    if tiled:
        across, down = ifd.number(entries, TILE_WIDTH, order, 0), ifd.number(entries, TILE_HEIGHT, order, 0)
        if not (0 < across <= limits.max_side and 0 < down <= limits.max_side) or across % 16 or down % 16:
            raise InputError(f"a TIFF of {across} x {down} tiles; sides in steps of 16, for example 256 x 256")
        count = -(-width // across) * -(-height // down)
    else:
        down = min(ifd.number(entries, ROWS, order, height), height)
        count = -(-height // down) if down else 0
    count *= channels if planar == 2 else 1
    inside = all(size > 0 and at + size <= len(data) for at, size in zip(offsets, sizes, strict=False))
    if not count or not len(offsets) == len(sizes) == count or not inside or sum(sizes) > len(data):
        raise InputError(
            f"a TIFF whose {count} strips or tiles do not lie inside its {len(data)} bytes; a whole file, for example copied again"
        )
    planes = channels if planar == 1 else 1
    if compression == 1:
        per_plane = count if planar == 1 else count // channels
        for i, size in enumerate(sizes):
            rows = down if tiled else min(down, height - (i % per_plane) * down)
            if size < rows * across * planes:
                raise InputError(f"a TIFF whose strip or tile {i} has {size} bytes only; a whole file, for example copied again")
    blobs = tuple(data[at : at + size] for at, size in zip(offsets, sizes, strict=True))
    structure = {tag: entry for tag, entry in entries.items() if tag in STRUCTURE and tag != SUBFILES}
    return ifd.write(order, structure, blobs, TILES if tiled else STRIPS, TILE_SIZES if tiled else STRIP_SIZES)


def write(picture: Picture, pixels: Pixels, alpha: Plane | None, note: str | None) -> bytes:
    """Code stored-layout pixels with the source's compression, in its byte order, and put its tags back.

    `note` is the private tag 65042.
    """
    image = Image.fromarray(join(pixels, alpha))
    coding = picture.coding
    predicted = coding.predictor == 2 and coding.compression in (5, 8, 32946)
    out = BytesIO()
    image.save(out, "TIFF", compression=PILLOW_NAMES[coding.compression], tiffinfo={PREDICTOR: 2} if predicted else {})
    coded = out.getvalue()
    written, _ = ifd.read(coded)
    its = ifd.byte_order(coded)
    order = ifd.byte_order(picture.kept[0].data)
    entries = dict(ifd.read(picture.kept[0].data)[0])
    for tag in STRUCTURE - {STRIPS, STRIP_SIZES}:
        values = ifd.numbers(written.get(tag), its)
        if values:
            entries[tag] = ifd.long(order, *values) if tag in (WIDTH, HEIGHT, ROWS) else ifd.short(order, *values)
    if note is not None:
        text = NOTE + note.encode("ascii") + b"\0"
        entries[NOTE_TAG] = ifd.Entry(ifd.ASCII, len(text), text)
    places, sizes = ifd.numbers(written[STRIPS], its), ifd.numbers(written[STRIP_SIZES], its)
    blobs = tuple(coded[at : at + size] for at, size in zip(places, sizes, strict=True))
    return ifd.write(order, entries, blobs, STRIPS, STRIP_SIZES)


def notes(data: bytes, limits: Limits) -> list[str]:
    """The text that `write` may have left."""
    entry = ifd.read(data)[0].get(NOTE_TAG)
    if entry is None or not entry.raw.startswith(NOTE):
        return []
    return [entry.raw[len(NOTE) :].rstrip(b"\0").decode("ascii", "replace")]
