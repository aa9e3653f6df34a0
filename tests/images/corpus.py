"""Hostile and awkward input files, made from nothing, with what must become of each: `hostile(folder)` writes them,
`expected(path)` judges.
"""

from __future__ import annotations

import os
import struct
import zlib
from collections.abc import Callable
from functools import cache
from io import BytesIO
from pathlib import Path
from typing import Literal

import numpy as np
from PIL import Image

Verdict = Literal["pass", "refuse"]

PNG = b"\x89PNG\r\n\x1a\n"
SURROGATE = os.fsdecode(b"pass_surrogate_\xff\xfe.png")


def expected(path: Path) -> Verdict:
    """What must become of a file of the corpus: its name says it ("pass_..." or "refuse_...", after leading dashes)."""
    word = path.name.lstrip("-").partition("_")[0]
    assert word in ("pass", "refuse"), path
    return "pass" if word == "pass" else "refuse"


def photo(height: int = 24, width: int = 32, channels: int = 3) -> np.ndarray[tuple[int, ...], np.dtype[np.uint8]]:
    """Smooth waves with a little grain."""
    y, x = np.mgrid[:height, :width]
    waves = [128 + 90 * np.sin(x / (4 + c) + c) * np.cos(y / (5 + c)) for c in range(channels)]
    grain = np.random.default_rng(7).integers(-9, 10, (height, width, channels))
    return np.clip(np.stack(waves, 2) + grain, 0, 255).astype(np.uint8)


def saved(image: Image.Image, kind: str, **options: object) -> bytes:
    """The bytes that Pillow writes for `image`."""
    out = BytesIO()
    image.save(out, kind, **options)
    return out.getvalue()


@cache
def sound(kind: str) -> bytes:
    """A small sound RGB file of the format `kind`."""
    return saved(Image.fromarray(photo()), kind, **({"quality": 80} if kind == "JPEG" else {}))


def chunk(name: bytes, body: bytes) -> bytes:
    """A PNG chunk with its checksum."""
    return len(body).to_bytes(4, "big") + name + body + zlib.crc32(name + body).to_bytes(4, "big")


def png(width: int, height: int, rows: bytes, *extra: bytes, bits: int = 8, colour: int = 2) -> bytes:
    """A PNG of these filtered rows, with further chunks before the pixels."""
    header = struct.pack(">IIBBBBB", width, height, bits, colour, 0, 0, 0)
    return PNG + chunk(b"IHDR", header) + b"".join(extra) + chunk(b"IDAT", zlib.compress(rows, 9)) + chunk(b"IEND", b"")


@cache
def bomb(size: int) -> bytes:
    """`size` zeros, deflated about 1000 to 1."""
    packer = zlib.compressobj(9)
    return b"".join(packer.compress(bytes(2**20)) for _ in range(size >> 20)) + packer.flush()


def with_segment(data: bytes, marker: int, body: bytes) -> bytes:
    """A JPEG with one more segment after SOI."""
    return data[:2] + bytes((0xFF, marker)) + struct.pack(">H", len(body) + 2) + body + data[2:]


def tiff(tags: list[tuple[int, int, int, int]], body: bytes = b"", following: int = 0) -> bytes:
    """A little-endian TIFF of one directory at byte 8 (tag, kind, count, value), then `body`."""
    rows = b"".join(struct.pack("<HHII", *tag) for tag in tags)
    return b"II*\0" + struct.pack("<IH", 8, len(tags)) + rows + struct.pack("<I", following) + body


def grey_tiff(**changes: int) -> bytes:
    """A 4 x 4 greyscale TIFF; a keyword changes the value of one tag."""
    values = {
        "width": 4,
        "height": 4,
        "bits": 8,
        "compression": 1,
        "photometric": 1,
        "strip": 8 + 2 + 9 * 12 + 4,
        "channels": 1,
        "rows": 4,
        "size": 16,
    }
    numbers = {
        "width": 256,
        "height": 257,
        "bits": 258,
        "compression": 259,
        "photometric": 262,
        "strip": 273,
        "channels": 277,
        "rows": 278,
        "size": 279,
    }
    tags = [(numbers[name], 4, 1, changes.get(name, value)) for name, value in values.items()]
    return tiff(tags, bytes(range(16)), changes.get("following", 0))


def dht_broken(data: bytes) -> bytes:
    """A JPEG whose first Huffman table counts more codes than there are."""
    at = data.index(b"\xff\xc4") + 5
    return data[:at] + b"\xff" * 16 + data[at + 16 :]


def scan_broken(data: bytes) -> bytes:
    """A JPEG whose coded pixels are noise in the middle; its headers and its end are sound."""
    start = data.index(b"\xff\xda") + 14
    noise = np.random.default_rng(3).integers(0, 255, 40, np.uint8).tobytes()
    return data[: start + 20] + noise + data[start + 60 :]


def frame_size(data: bytes, width: int, height: int) -> bytes:
    """A JPEG with another size in its SOF header."""
    at = data.index(b"\xff\xc0") + 5
    return data[:at] + struct.pack(">HH", height, width) + data[at + 4 :]


def exif(order: int, *, loop: bool = False) -> bytes:
    """An EXIF block with one orientation; with `loop` its EXIF directory is the block's own."""
    tags = [(274, 3, 1, order)] + ([(0x8769, 4, 1, 8)] if loop else [])
    return tiff(tags)


def scans(count: int) -> bytes:
    """A progressive JPEG that repeats its last scan."""
    data = saved(Image.fromarray(photo()), "JPEG", progressive=True)
    last = data.rindex(b"\xff\xda")
    return data[:-2] + data[last:-2] * count + b"\xff\xd9"


def frames(kind: str) -> bytes:
    """An animation of two pictures."""
    pair = [Image.fromarray(photo()), Image.fromarray(255 - photo())]
    return saved(pair[0], kind, save_all=True, append_images=pair[1:])


def deep_xmp() -> bytes:
    """XMP nested a hundred thousand elements deep."""
    return (b"http://ns.adobe.com/xap/1.0/\0" + b"<x>" * 15_000)[:65_000]


def ifd_fan() -> bytes:
    """A TIFF directory of four thousand tags that all claim the same large value."""
    body = bytes(200_000)
    tags = [(20_000 + i, 7, 190_000, 100) for i in range(4000)]
    return tiff(tags, body)


def one_row_png(length: int) -> bytes:
    """A PNG one pixel high."""
    return saved(Image.fromarray(photo(1, length)), "PNG")


FILES: dict[str, Callable[[], bytes]] = {
    # damaged
    "refuse_empty.jpg": lambda: b"",
    "refuse_one_byte.png": lambda: b"\x89",
    "refuse_jpeg_cut_in_magic.jpg": lambda: sound("JPEG")[:3],
    "refuse_jpeg_cut_in_header.jpg": lambda: sound("JPEG")[:150],
    "refuse_jpeg_cut_in_scan.jpg": lambda: sound("JPEG")[:-200],
    "refuse_jpeg_cut_at_end.jpg": lambda: sound("JPEG")[:-2],
    "refuse_jpeg_early_end.jpg": lambda: sound("JPEG")[: sound("JPEG").index(b"\xff\xda")] + b"\xff\xd9",
    "refuse_png_cut_in_header.png": lambda: sound("PNG")[:20],
    "refuse_png_cut_in_pixels.png": lambda: sound("PNG")[:-300],
    "refuse_png_cut_at_end.png": lambda: sound("PNG")[:-12],
    "refuse_png_checksum.png": lambda: sound("PNG")[:60] + bytes((sound("PNG")[60] ^ 255,)) + sound("PNG")[61:],
    "refuse_png_few_rows.png": lambda: png(64, 64, bytes(10 * (1 + 3 * 64))),
    "refuse_webp_cut_in_header.webp": lambda: sound("WEBP")[:16],
    "refuse_webp_cut_in_pixels.webp": lambda: sound("WEBP")[:-50],
    "refuse_webp_cut_but_consistent.webp": lambda: (
        b"RIFF" + struct.pack("<I", 4 + 8 + 40) + b"WEBP" + sound("WEBP")[12:16] + struct.pack("<I", 40) + sound("WEBP")[20:60]
    ),
    "refuse_bmp_cut.bmp": lambda: sound("BMP")[:-10],
    "refuse_bmp_header_only.bmp": lambda: sound("BMP")[:30],
    "refuse_tiff_cut.tif": lambda: sound("TIFF")[:200],
    "refuse_jpeg_huffman.jpg": lambda: dht_broken(sound("JPEG")),
    "refuse_jpeg_noise.jpg": lambda: b"\xff\xd8\xff\xe0" + np.random.default_rng(0).bytes(4000),
    "refuse_png_noise.png": lambda: PNG + np.random.default_rng(0).bytes(4000),
    "refuse_webp_noise.webp": lambda: b"RIFF" + struct.pack("<I", 4004) + b"WEBP" + np.random.default_rng(0).bytes(4000),
    "refuse_webp_noise_in_frame.webp": lambda: sound("WEBP")[:30] + np.random.default_rng(0).bytes(8) + b"",
    "refuse_bmp_noise.bmp": lambda: b"BM" + np.random.default_rng(0).bytes(4000),
    "refuse_tiff_noise.tif": lambda: b"II*\0" + np.random.default_rng(0).bytes(4000),
    # too much
    "refuse_png_60_megapixels.png": lambda: png(10_000, 6_000, bytes(100)),
    "refuse_png_idat_bomb_large.png": lambda: (
        PNG + chunk(b"IHDR", struct.pack(">IIBBBBB", 20_000, 20_000, 8, 6, 0, 0, 0)) + chunk(b"IDAT", bomb(2**26)) + chunk(b"IEND", b"")
    ),
    "refuse_png_text_bomb.png": lambda: png(2, 1, b"\0" + bytes(6), chunk(b"zTXt", b"Comment\0\0" + bomb(2**26))),
    "refuse_png_many_text_bombs.png": lambda: png(2, 1, b"\0" + bytes(6), *[chunk(b"zTXt", b"Comment\0\0" + bomb(2**23))] * 200),
    "refuse_png_international_text_bomb.png": lambda: png(2, 1, b"\0" + bytes(6), chunk(b"iTXt", b"Comment\0\1\0\0\0" + bomb(2**26))),
    "refuse_png_profile_bomb.png": lambda: png(2, 1, b"\0" + bytes(6), chunk(b"iCCP", b"icc\0\0" + bomb(2**26))),
    "refuse_png_huge_chunk_length.png": lambda: sound("PNG")[:33] + b"\x7f\xff\xff\xffIDAT" + bytes(100),
    "refuse_png_many_chunks.png": lambda: png(2, 1, b"\0" + bytes(6), chunk(b"tEXt", b"a\0b") * 70_000),
    "refuse_png_zero_width.png": lambda: png(0, 4, bytes(4)),
    "refuse_png_zero_height.png": lambda: png(4, 0, b""),
    "refuse_png_side_of_2_31.png": lambda: png(2**31 - 1, 1, bytes(100)),
    "refuse_png_long_side.png": lambda: one_row_png(30_001),
    "refuse_jpeg_65535.jpg": lambda: frame_size(sound("JPEG"), 65_535, 65_535),
    "refuse_jpeg_zero_height.jpg": lambda: frame_size(sound("JPEG"), 32, 0),
    "refuse_jpeg_taller_than_its_scan.jpg": lambda: frame_size(sound("JPEG"), 7_000, 7_000)[:-2],
    "refuse_jpeg_many_scans.jpg": lambda: scans(500),
    "refuse_jpeg_many_segments.jpg": lambda: sound("JPEG")[:2] + b"\xff\xfe\x00\x02" * 70_000 + sound("JPEG")[2:],
    "refuse_webp_large_canvas.webp": lambda: (
        b"RIFF" + struct.pack("<I", 22) + b"WEBPVP8X" + struct.pack("<I", 10) + b"\0\0\0\0" + b"\xff\xff\xff" * 2
    ),
    "refuse_bmp_huge.bmp": lambda: sound("BMP")[:18] + struct.pack("<ii", 20_000, 20_000) + sound("BMP")[26:],
    "refuse_bmp_least_height.bmp": lambda: sound("BMP")[:18] + struct.pack("<ii", 32, -(2**31)) + sound("BMP")[26:],
    "refuse_tiff_huge.tif": lambda: grey_tiff(width=2**31, height=2**31),
    "refuse_tiff_strip_outside.tif": lambda: grey_tiff(strip=2**32 - 16),
    "refuse_tiff_short_strip.tif": lambda: grey_tiff(size=3),
    "refuse_tiff_directory_outside.tif": lambda: b"II*\0\xf0\xff\xff\xff" + bytes(100),
    "refuse_tiff_directory_loop.tif": lambda: grey_tiff(following=8),
    "refuse_tiff_own_descendant.tif": lambda: tiff([(0x8769, 4, 1, 8), (256, 4, 1, 4), (257, 4, 1, 4)], bytes(64)),
    "refuse_tiff_overlapping_values.tif": ifd_fan,
    "refuse_tiff_no_tags.tif": lambda: tiff([], bytes(64)),
    # of a kind that is never armed
    "refuse_jpeg_cmyk.jpg": lambda: saved(Image.fromarray(photo()).convert("CMYK"), "JPEG"),
    "refuse_png_16_bit_grey.png": lambda: saved(Image.fromarray(photo()[..., 0].astype(np.uint16) * 257), "PNG"),
    "refuse_png_16_bit_rgb.png": lambda: png(2, 2, (b"\0" + bytes(12)) * 2, bits=16),
    "refuse_png_1_bit.png": lambda: saved(Image.fromarray(photo()).convert("1"), "PNG"),
    "refuse_png_palette.png": lambda: saved(Image.fromarray(photo()).convert("P"), "PNG"),
    "refuse_png_key_colour.png": lambda: png(2, 1, b"\0" + bytes(6), chunk(b"tRNS", bytes(6))),
    "refuse_png_hdr.png": lambda: png(2, 1, b"\0" + bytes(6), chunk(b"cICP", bytes((9, 16, 0, 1)))),
    "refuse_png_animated.png": lambda: frames("PNG"),
    "refuse_webp_animated.webp": lambda: frames("WEBP"),
    "refuse_gif_animated.gif": lambda: frames("GIF"),
    "refuse_tiff_pages.tif": lambda: frames("TIFF"),
    "refuse_tiff_16_bit.tif": lambda: saved(Image.fromarray(photo()[..., 0].astype(np.uint16) * 257), "TIFF"),
    "refuse_tiff_float.tif": lambda: saved(Image.fromarray(photo()[..., 0].astype(np.float32)), "TIFF"),
    "refuse_tiff_lab.tif": lambda: saved(Image.new("LAB", (8, 8)), "TIFF"),
    "refuse_tiff_cmyk.tif": lambda: saved(Image.fromarray(photo()).convert("CMYK"), "TIFF"),
    "refuse_tiff_palette.tif": lambda: saved(Image.fromarray(photo()).convert("P"), "TIFF"),
    "refuse_tiff_1_bit.tif": lambda: saved(Image.fromarray(photo()).convert("1"), "TIFF"),
    "refuse_tiff_jpeg.tif": lambda: saved(Image.fromarray(photo()), "TIFF", compression="jpeg"),
    "refuse_bigtiff.tif": lambda: b"II+\0\x08\0\0\0" + struct.pack("<Q", 16) + bytes(64),
    "refuse_bmp_palette.bmp": lambda: saved(Image.fromarray(photo()).convert("P"), "BMP"),
    "refuse_gif.gif": lambda: saved(Image.fromarray(photo()), "GIF"),
    "refuse_icon.ico": lambda: saved(Image.fromarray(photo(32, 32)), "ICO"),
    "refuse_avif.avif": lambda: b"\0\0\0\x1cftypavif" + bytes(60),
    "refuse_heic.jpg": lambda: b"\0\0\0\x18ftypheic" + bytes(60),
    "refuse_photoshop.psd": lambda: b"8BPS\0\1" + bytes(60),
    "refuse_svg.svg": lambda: b"<svg xmlns='http://www.w3.org/2000/svg'/>",
    "refuse_svg_named.png": lambda: b"<?xml version='1.0'?><svg xmlns='http://www.w3.org/2000/svg'/>",
    "refuse_html.jpg": lambda: b"<!DOCTYPE html><title>404</title>",
    "refuse_pdf.jpg": lambda: b"%PDF-1.7\n",
    "refuse_zip.png": lambda: b"PK\3\4" + bytes(60),
    "refuse_text.jpg": lambda: b"this is no picture\n",
    "refuse_postscript.jpg": lambda: b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 10 10\n",
    "refuse_sound.webp": lambda: b"RIFF" + struct.pack("<I", 36) + b"WAVEfmt " + bytes(28),
    # odd, and to be armed all the same
    "pass_png_named.jpg": lambda: sound("PNG"),
    "pass_jpeg_named.png": lambda: sound("JPEG"),
    "pass_no_extension": lambda: sound("WEBP"),
    "pass_png_idat_bomb_small.png": lambda: png(2, 2, (b"\0" + bytes(6)) * 2 + bytes(2**25)),
    "pass_png_garbage_profile.png": lambda: png(2, 1, b"\0" + bytes(6), chunk(b"iCCP", b"icc\0\0not deflated")),
    "pass_png_bad_text_checksum.png": lambda: png(2, 1, b"\0" + bytes(6), chunk(b"tEXt", b"a\0b")[:-1] + b"\0"),
    "pass_png_trailing_bytes.png": lambda: sound("PNG") + b"PK\3\4 and more",
    "pass_jpeg_garbage_exif.jpg": lambda: with_segment(sound("JPEG"), 0xE1, b"Exif\0\0" + np.random.default_rng(1).bytes(500)),
    "pass_jpeg_cut_exif.jpg": lambda: with_segment(sound("JPEG"), 0xE1, b"Exif\0\0" + exif(6)[:15]),
    "pass_jpeg_recursive_exif.jpg": lambda: with_segment(sound("JPEG"), 0xE1, b"Exif\0\0" + exif(6, loop=True)),
    "pass_jpeg_orientation_77.jpg": lambda: with_segment(sound("JPEG"), 0xE1, b"Exif\0\0" + exif(77)),
    "pass_jpeg_garbage_profile.jpg": lambda: with_segment(sound("JPEG"), 0xE2, b"ICC_PROFILE\0\7\2garbage"),
    "pass_jpeg_deep_xmp.jpg": lambda: with_segment(sound("JPEG"), 0xE1, deep_xmp()),
    "pass_jpeg_false_tag.jpg": lambda: with_segment(sound("JPEG"), 0xFE, b"forearm {" + b"[" * 60_000),
    "pass_jpeg_noise_in_scan.jpg": lambda: scan_broken(sound("JPEG")),
    "pass_1x1.png": lambda: saved(Image.fromarray(photo(1, 1)), "PNG"),
    "pass_1x1.jpg": lambda: saved(Image.fromarray(photo(1, 1)), "JPEG"),
    "pass_1x1.webp": lambda: saved(Image.fromarray(photo(1, 1)), "WEBP"),
    "pass_1x1.bmp": lambda: saved(Image.fromarray(photo(1, 1)), "BMP"),
    "pass_1x1.tif": lambda: saved(Image.fromarray(photo(1, 1)), "TIFF"),
    "pass_1_row.png": lambda: one_row_png(3000),
    "pass_1_column.jpg": lambda: saved(Image.fromarray(photo(2000, 1)), "JPEG"),
    "pass_grey.jpg": lambda: saved(Image.fromarray(photo()[..., 0]), "JPEG"),
    "pass_new\nline.png": lambda: sound("PNG"),
    "pass_\u5199\u771f_\u00e9\u0301\U0001f4f7.png": lambda: sound("PNG"),
    "pass_right_\u202egnp.png": lambda: sound("PNG"),
    "--pass_leading_dashes.png": lambda: sound("PNG"),
    "pass_ 'quotes\" $(and) spaces .png": lambda: sound("PNG"),
    "pass_unreadable_unless_root.png": lambda: sound("PNG"),
    SURROGATE: lambda: sound("PNG"),
}  # fmt: skip
"""Name -> content of each regular file."""


def hostile(folder: Path) -> list[Path]:
    """Write the corpus into `folder`: the regular files, a folder, links that loop or lead nowhere, a pipe and a link
    to a sound picture.

    One file has no permissions at all, which stops only those who are not root; whoever relies on it removes it first.
    A file system that cannot hold a name leaves that one out. About 5 MB.
    """
    folder.mkdir(parents=True, exist_ok=True)
    written = []
    for name, make in FILES.items():
        path = folder / name
        try:
            path.write_bytes(make())
        except (OSError, UnicodeEncodeError):
            continue
        written.append(path)
    (folder / "pass_unreadable_unless_root.png").chmod(0)
    loop, other, dangling = folder / "refuse_loop_1.png", folder / "refuse_loop_2.png", folder / "refuse_dangling.jpg"
    loop.symlink_to(other.name)
    other.symlink_to(loop.name)
    dangling.symlink_to("no such file.jpg")
    link = folder / "pass_link.png"
    link.symlink_to("pass_1x1.png")
    directory, pipe = folder / "refuse_directory.jpg", folder / "refuse_pipe.jpg"
    directory.mkdir()
    os.mkfifo(pipe)
    return [*written, loop, other, dangling, link, directory, pipe]
