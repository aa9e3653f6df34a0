"""JPEG files: checked segment by segment, pixels decoded without the metadata, metadata written back byte for byte.

Written 4:4:4. Each number of a quantisation table is the smaller of the source's and of the standard table at `FLOOR`,
so that no frequency is stored more coarsely than in the source, and none more coarsely than at quality 90, where the
change that arms the picture begins to be lost.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import lru_cache
from io import BytesIO
from struct import unpack_from

from PIL import Image

from forearm.errors import InputError
from forearm.images import ifd
from forearm.images.limits import Limits, check_parts, check_size
from forearm.images.picture import Coding, Part, Picture, Pixels, Plane, join, mode_of, split, upright
from forearm.images.pillow import samples

FLOOR = 90
NOTE = b"forearm "
SOI, EOI, SOS, DQT, DHT, DRI, COM = 0xD8, 0xD9, 0xDA, 0xDB, 0xC4, 0xDD, 0xFE
APP0, APP1, APP2, APP11, APP14 = 0xE0, 0xE1, 0xE2, 0xEB, 0xEE
FRAMES = {0xC0: "baseline", 0xC1: "extended", 0xC2: "progressive"}
OTHER_FRAMES = {0xC3, 0xC5, 0xC6, 0xC7, 0xC9, 0xCA, 0xCB, 0xCD, 0xCE, 0xCF}
AFTER_SCAN = re.compile(rb"\xff[^\x00\xd0-\xd7\xff]")
STANDARD = (
    (
        16, 11, 10, 16, 24, 40, 51, 61, 12, 12, 14, 19, 26, 58, 60, 55, 14, 13, 16, 24, 40, 57, 69, 56, 14, 17, 22, 29, 51, 87, 80, 62,
        18, 22, 37, 56, 68, 109, 103, 77, 24, 35, 55, 64, 81, 104, 113, 92,
        49, 64, 78, 87, 103, 121, 120, 101, 72, 92, 95, 98, 112, 100, 103, 99,
    ),
    (
        17, 18, 24, 47, 99, 99, 99, 99, 18, 21, 26, 66, 99, 99, 99, 99, 24, 26, 56, 99, 99, 99, 99, 99, 47, 66, 99, 99, 99, 99, 99, 99,
        99, 99, 99, 99, 99, 99, 99, 99, 99, 99, 99, 99, 99, 99, 99, 99, 99, 99, 99, 99, 99, 99, 99, 99, 99, 99, 99, 99, 99, 99, 99, 99,
    ),
)  # fmt: skip  # ISO/IEC 10918-1, tables K.1 (brightness) and K.2 (colour), row by row
ZIGZAG = (
    0, 1, 8, 16, 9, 2, 3, 10, 17, 24, 32, 25, 18, 11, 4, 5, 12, 19, 26, 33, 40, 48, 41, 34, 27, 20, 13, 6, 7, 14, 21, 28,
    35, 42, 49, 56, 57, 50, 43, 36, 29, 22, 15, 23, 30, 37, 44, 51, 58, 59, 52, 45, 38, 31, 39, 46, 53, 60, 61, 54, 47, 55, 62, 63,
)  # fmt: skip  # the place, row by row, of each number in the order of the file


@dataclass(frozen=True, slots=True)
class Segment:
    """One marker and what follows it, as bytes of the file; `body` is without the marker and the length."""

    marker: int
    whole: bytes
    body: bytes


@dataclass(frozen=True, slots=True)
class Frame:
    """The SOF header: components as (id, sampling, table)."""

    kind: str
    width: int
    height: int
    components: tuple[tuple[int, int, int], ...]


def segments(data: bytes, limits: Limits) -> tuple[list[Segment], int]:
    """All segments from SOI to EOI (a scan's data belongs to its SOS) and the length of the file up to there.

    A file without EOI is refused as truncated.
    """
    found: list[Segment] = []
    at, size = 2, len(data)
    while True:
        start = at
        while data[at : at + 1] == b"\xff":
            at += 1
        if at == start or at >= size:
            raise InputError(f"a truncated or damaged JPEG (no marker at byte {start} of {size}); a whole file, for example copied again")
        marker = data[at]
        at += 1
        if marker == EOI:
            return found, at
        if marker == 0x01 or 0xD0 <= marker <= SOI:
            continue
        length = unpack_from(">H", data, at)[0] if at + 2 <= size else 0
        if length < 2 or at + length > size:
            raise InputError(
                f"a truncated or damaged JPEG (segment {marker:02X} at byte {start} of {size}); a whole file, for example copied again"
            )
        end = at + length
        body = data[at + 2 : end]
        if marker == SOS:
            following = AFTER_SCAN.search(data, end)
            if following is None:
                raise InputError(f"a truncated JPEG ({size} bytes without an end marker); a whole file, for example copied again")
            end = following.start()
        found.append(Segment(marker, b"\xff" + data[at - 1 : end], body))
        check_parts(len(found), limits)
        at = end


def frame_of(found: list[Segment]) -> Frame:
    """The one frame header; arithmetic, lossless, hierarchical and 12-bit coding are refused."""
    frames = [s for s in found if s.marker in FRAMES or s.marker in OTHER_FRAMES]
    if len(frames) != 1 or len(frames[0].body) < 6:
        raise InputError(f"a JPEG with {len(frames)} readable frame headers; one, for example baseline")
    marker, body = frames[0].marker, frames[0].body
    bits, height, width, count = unpack_from(">BHHB", body)
    if marker in OTHER_FRAMES:
        raise InputError(
            f"JPEG coding process SOF{marker - 0xC0}; baseline, extended or progressive Huffman coding, for example saved anew as baseline"
        )
    if bits != 8:
        raise InputError(f"a JPEG of {bits} bits a channel; 8 bits, for example saved anew as an 8-bit JPEG")
    if len(body) < 6 + 3 * count:
        raise InputError("a JPEG whose frame header is cut short; a whole file, for example copied again")
    return Frame(FRAMES[marker], width, height, tuple((body[i], body[i + 1], body[i + 2]) for i in range(6, 6 + 3 * count, 3)))


def tables_of(found: list[Segment], frame: Frame) -> tuple[tuple[int, ...], ...]:
    """Per component its quantisation table, row by row."""
    tables: dict[int, tuple[int, ...]] = {}
    for body in (s.body for s in found if s.marker == DQT):
        at = 0
        while at < len(body):
            wide, name = body[at] >> 4, body[at] & 15
            width = 128 if wide else 64
            if at + 1 + width > len(body):
                raise InputError("a JPEG whose quantisation table is cut short; a whole file, for example copied again")
            values = unpack_from(">64H" if wide else ">64B", body, at + 1)
            by_row = dict(zip(ZIGZAG, values, strict=True))
            tables[name] = tuple(by_row[i] for i in range(64))
            at += 1 + width
    try:
        return tuple(tables[table] for _, _, table in frame.components)
    except KeyError:
        raise InputError("a JPEG without its quantisation tables; a whole file, for example copied again") from None


@lru_cache(200)
def scaled(table: tuple[int, ...], quality: int) -> tuple[int, ...]:
    """A standard table at a quality of 1 to 100, by the rule of the Independent JPEG Group."""
    percent = 5000 // quality if quality < 50 else 200 - 2 * quality
    return tuple(min(max((value * percent + 50) // 100, 1), 255) for value in table)


@lru_cache(256)
def quality_of(brightness: tuple[int, ...]) -> int:
    """The quality, 1 to 100, whose standard brightness table lies nearest (sum of absolute differences.

    The better of equals).
    """
    return min(
        range(100, 0, -1),
        key=lambda q: sum(abs(a - b) for a, b in zip(scaled(STANDARD[0], q), brightness, strict=True)),
    )


def finer(first: tuple[int, ...], second: tuple[int, ...]) -> tuple[int, ...]:
    """The smaller number at each frequency."""
    return tuple(min(max(a, 1), max(b, 1)) for a, b in zip(first, second, strict=True))


def read(data: bytes, limits: Limits) -> Picture:
    """Decode a JPEG of one (greyscale) or three components; CMYK and YCCK are refused."""
    found, end = segments(data, limits)
    frame = frame_of(found)
    check_size(frame.width, frame.height, limits)
    if len(frame.components) not in (1, 3):
        kind = "CMYK or YCCK" if len(frame.components) == 4 else f"{len(frame.components)}-channel"
        raise InputError(f"a {kind} JPEG; greyscale or RGB, for example converted with its colour profile first")
    if sum(s.marker == SOS for s in found) > limits.max_scans:
        raise InputError(f"a JPEG of more than {limits.max_scans} scans; fewer, for example saved anew")
    coding = [s for s in found if s.marker in (DQT, DHT, DRI, SOS) or s.marker in FRAMES or _jfif(s) or _adobe(s)]
    bare = b"\xff\xd8" + b"".join(s.whole for s in coding) + b"\xff\xd9"
    size, modes = (frame.width, frame.height), ("L",) if len(frame.components) == 1 else ("RGB",)
    pixels, _ = split(samples(bare, "JPEG", size, modes))
    kept, warnings = _kept(found, len(data) - end)
    exif = next((p.data[10:] for p in kept if p.data[1] == APP1 and p.data[4:10] == b"Exif\0\0"), None)
    turn, dpi, complaint = ifd.glance(exif)
    tables = tables_of(found, frame)
    merged = (tables[0],) if len(tables) == 1 else (tables[0], finer(tables[1], tables[2]))
    return Picture(
        pixels=upright(pixels, turn),
        alpha=None,
        format="JPEG",
        mode=mode_of(pixels, None),
        width=frame.width,
        height=frame.height,
        lossless=False,
        orientation=turn,
        dpi=_density(found) or dpi,
        icc=b"".join(
            p.data[18:] for p in sorted(kept, key=lambda p: p.data[16:17]) if p.data[1] == APP2 and p.data[4:16] == b"ICC_PROFILE\0"
        )
        or None,
        exif=exif,
        coding=Coding(quality_of(tables[0]), merged, frame.kind == "progressive", _is_rgb(found, frame)),
        kept=kept,
        warnings=(*warnings, *([complaint] if complaint else [])),
    )


def _jfif(segment: Segment) -> bool:
    return segment.marker == APP0 and segment.body[:5] == b"JFIF\0"


def _adobe(segment: Segment) -> bool:
    return segment.marker == APP14 and segment.body[:5] == b"Adobe"


def _is_rgb(found: list[Segment], frame: Frame) -> bool:
    """libjpeg's rule: JFIF means YCbCr, else Adobe's marker decides, else the component ids."""
    if len(frame.components) != 3 or any(_jfif(s) for s in found):
        return False
    adobe = [s.body[11] for s in found if _adobe(s) and len(s.body) >= 12]
    return adobe[-1] == 0 if adobe else tuple(c[0] for c in frame.components) == tuple(b"RGB")


def _density(found: list[Segment]) -> tuple[float, float] | None:
    for body in (s.body for s in found if _jfif(s) and len(s.body) >= 12):
        unit, across, down = unpack_from(">BHH", body, 7)
        per_inch = {1: 1.0, 2: 2.54}.get(unit)
        if per_inch is not None and across and down:
            return across * per_inch, down * per_inch
    return None


def _kept(found: list[Segment], beyond: int) -> tuple[tuple[Part, ...], tuple[str, ...]]:
    """The segments that are written back, and what is said about those that are not."""
    kept: list[Part] = []
    warnings = [f"{beyond} bytes after the end of the JPEG are dropped"] if beyond else []
    for s in found:
        if s.marker == APP2 and s.body[:4] == b"MPF\0":
            warnings.append("further pictures in the file (MPF: a preview or a gain map) are dropped")
        elif s.marker == APP11:
            warnings.append("an APP11 segment (JUMBF: a signature or HDR data that the change makes untrue) is dropped")
        elif s.marker == COM and s.body.startswith(NOTE):
            continue
        elif (APP0 <= s.marker <= 0xEF and not _adobe(s)) or s.marker == COM:
            kept.append(Part(f"{s.marker:02X}", s.whole))
    return tuple(kept), tuple(dict.fromkeys(warnings))


def write(picture: Picture, pixels: Pixels, alpha: Plane | None, note: str | None) -> bytes:
    """Code stored-layout pixels 4:4:4 with tables as fine as the source's or finer, and put the source's segments back;
    `note` is a comment of its own.

    A progressive source stays progressive, unless the result takes more than 1.75 bytes a pixel: then it is baseline.
    """
    coding = picture.coding
    tables = [list(finer(table, scaled(STANDARD[i], FLOOR))) for i, table in enumerate(coding.tables)]
    if coding.rgb:
        tables = [[min(pair) for pair in zip(*tables, strict=True)]]
    image = Image.fromarray(join(pixels, alpha))
    data = _coded(image, tables, coding.rgb, progressive=False)
    if coding.progressive and len(data) <= max(32_768, 1.75 * image.width * image.height):
        data = _coded(image, tables, coding.rgb, progressive=True)
    coded = [s for s in segments(data, Limits(max_parts=2**31))[0] if not _jfif(s)]
    comment = b"" if note is None else _segment(COM, NOTE + note.encode("ascii"))
    return b"".join((b"\xff\xd8", *(p.data for p in picture.kept), comment, *(s.whole for s in coded), b"\xff\xd9"))


def _coded(image: Image.Image, tables: list[list[int]], rgb: bool, progressive: bool) -> bytes:
    """A bare JPEG file. Pillow codes a progressive one in a buffer of 2 bytes a pixel or 64 KiB and fails beyond, hence
    the trial in `write`.
    """
    out = BytesIO()
    image.save(out, "JPEG", qtables=tables, subsampling=0, keep_rgb=rgb, progressive=progressive)
    return out.getvalue()


def _segment(marker: int, body: bytes) -> bytes:
    return bytes((0xFF, marker)) + (len(body) + 2).to_bytes(2, "big") + body


def notes(data: bytes, limits: Limits) -> list[str]:
    """The texts that `write` may have left, newest last."""
    found, _ = segments(data, limits)
    return [s.body[len(NOTE) :].decode("ascii", "replace") for s in found if s.marker == COM and s.body.startswith(NOTE)]
