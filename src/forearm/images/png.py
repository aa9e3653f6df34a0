"""PNG files: checked chunk by chunk, pixels decoded from the critical chunks alone, the other chunks written back byte
for byte.
"""

from __future__ import annotations

import zlib
from dataclasses import dataclass
from io import BytesIO
from struct import unpack, unpack_from

from PIL import Image

from forearm.errors import InputError
from forearm.images import ifd
from forearm.images.limits import Limits, check_parts, check_size
from forearm.images.picture import Part, Picture, Pixels, Plane, join, mode_of, split, upright
from forearm.images.pillow import samples

MAGIC = b"\x89PNG\r\n\x1a\n"
NOTE = b"forearm"
MODES = {0: "L", 2: "RGB", 4: "LA", 6: "RGBA"}
KEPT = {
    b"iCCP",
    b"sRGB",
    b"gAMA",
    b"cHRM",
    b"sBIT",
    b"cICP",
    b"bKGD",
    b"pHYs",
    b"eXIf",
    b"tIME",
    b"tEXt",
    b"zTXt",
    b"iTXt",
}
ANIMATED = {b"acTL", b"fcTL", b"fdAT"}
PASSES = (
    (0, 0, 8, 8),
    (4, 0, 8, 8),
    (0, 4, 4, 8),
    (2, 0, 4, 4),
    (0, 2, 2, 4),
    (1, 0, 2, 2),
    (0, 1, 1, 2),
)  # x, y, steps
HDR_TRANSFERS = {16: "PQ", 18: "HLG"}  # ITU-T H.273


@dataclass(frozen=True, slots=True)
class Chunk:
    """One chunk. `whole` is with its length and checksum; `sound` says whether the checksum holds."""

    name: bytes
    body: bytes
    whole: bytes
    sound: bool


def chunks(data: bytes, limits: Limits) -> tuple[list[Chunk], int]:
    """All chunks up to IEND and the length of the file up to there; a file without IEND is refused as truncated."""
    found: list[Chunk] = []
    at = len(MAGIC)
    while at + 12 <= len(data):
        length = unpack_from(">I", data, at)[0]
        end = at + 12 + length
        if end > len(data):
            break
        body = data[at + 8 : end - 4]
        sound = zlib.crc32(data[at + 4 : end - 4]) == unpack_from(">I", data, end - 4)[0]
        found.append(Chunk(data[at + 4 : at + 8], body, data[at:end], sound))
        check_parts(len(found), limits)
        if found[-1].name == b"IEND":
            return found, end
        at = end
    raise InputError(f"a truncated PNG (cut in the chunk at byte {at} of {len(data)}); a whole file, for example copied again")


def read(data: bytes, limits: Limits) -> Picture:
    """Decode a PNG of 8 bits a channel: greyscale or RGB, with or without an alpha channel.

    Refused: 16-bit and 1-, 2- and 4-bit pictures, palettes, transparency by a key colour (the change would break the
    key), animations, PQ and HLG.
    """
    found, end = chunks(data, limits)
    header = found[0]
    if header.name != b"IHDR" or len(header.body) != 13 or not header.sound or found[-1].body:
        raise InputError("a PNG without a sound header; a whole file, for example copied again")
    width, height, bits, colour, _, _, interlaced = unpack(">IIBBBBB", header.body)
    check_size(width, height, limits)
    _refuse(found, bits, colour, limits)
    _check_rows(found, width, height, len(MODES[colour]), interlaced)
    bare = MAGIC + b"".join(c.whole for c in found if c.name in (b"IHDR", b"IDAT", b"IEND"))
    pixels, alpha = split(samples(bare, "PNG", (width, height), (MODES[colour],)))
    kept, warnings = _kept(found, len(data) - end)
    exif = next((p.data[8:-4] for p in kept if p.name == "eXIf"), None)
    turn, dpi, complaint = ifd.glance(exif)
    return Picture(
        pixels=upright(pixels, turn),
        alpha=None if alpha is None else upright(alpha, turn),
        format="PNG",
        mode=mode_of(pixels, alpha),
        width=width,
        height=height,
        lossless=True,
        orientation=turn,
        dpi=_density(found) or dpi,
        icc=_profile(found, limits),
        exif=exif,
        kept=kept,
        warnings=(*warnings, *([complaint] if complaint else [])),
    )


def _refuse(found: list[Chunk], bits: int, colour: int, limits: Limits) -> None:
    names, left = {c.name for c in found}, limits.max_inflated  # the limit holds for all chunks together
    if colour == 3:
        raise InputError("a PNG with a palette; greyscale or RGB, for example saved anew as RGB")
    if bits != 8:
        raise InputError(f"a PNG of {bits} bits a channel; 8 bits, for example saved anew as an 8-bit PNG")
    if colour not in MODES:
        raise InputError(f"a PNG of the unknown colour type {colour}; greyscale or RGB, for example type 2")
    if names & ANIMATED:
        raise InputError("an animated PNG; a single picture, for example its first frame saved as PNG")
    if b"tRNS" in names:
        raise InputError("a PNG whose transparency is a key colour (tRNS); an alpha channel, for example saved anew as RGBA")
    for c in found:
        if c.name[:1].isupper() and c.name not in (b"IHDR", b"PLTE", b"IDAT", b"IEND"):
            raise InputError(f"a PNG with the unknown critical chunk {_shown(c.name)}; IHDR, PLTE, IDAT and IEND, for example saved anew")
        if c.name == b"cICP" and len(c.body) == 4 and c.body[1] in HDR_TRANSFERS:
            raise InputError(f"an HDR PNG ({HDR_TRANSFERS[c.body[1]]}); standard range, for example tone-mapped to sRGB first")
        packed = _packed(c)
        out = b"" if packed is None else _inflated(packed, left)
        if out is None:
            raise InputError(
                f"a PNG whose {_shown(c.name)} chunk inflates beyond {limits.max_inflated} bytes; less, for example without that chunk"
            )
        left -= len(out)


def _check_rows(found: list[Chunk], width: int, height: int, channels: int, interlaced: int) -> None:
    """Refuse pixel data that ends early: the decoder would fill up with black without a word.

    Inflates once, 16 MiB at a time.
    """
    passes = PASSES if interlaced else ((0, 0, 1, 1),)
    sizes = [(-((x - width) // across), -((y - height) // down)) for x, y, across, down in passes]
    missing = sum(rows * (1 + columns * channels) for columns, rows in sizes if columns > 0)
    inflate = zlib.decompressobj()
    try:
        for body in (c.body for c in found if c.name == b"IDAT"):
            missing -= len(inflate.decompress(body, 2**24))
            while missing > 0 and inflate.unconsumed_tail:
                missing -= len(inflate.decompress(inflate.unconsumed_tail, 2**24))
            if missing <= 0:
                return
    except zlib.error:
        raise InputError("a PNG whose pixel data are damaged; a whole file, for example copied again") from None
    raise InputError(f"a PNG whose pixel data end {missing} bytes early; a whole file, for example copied again")


def _shown(name: bytes) -> str:
    return ascii(name.decode("latin-1"))[1:-1]


def _packed(chunk: Chunk) -> bytes | None:
    """The deflated part of a chunk that has one."""
    _, nul, rest = chunk.body.partition(b"\0")
    if not nul:
        return None
    if chunk.name in (b"zTXt", b"iCCP"):
        return rest[1:]
    if chunk.name == b"iTXt" and rest[:1] == b"\x01":
        return rest[2:].split(b"\0", 2)[-1]
    return None


def _inflated(packed: bytes, most: int) -> bytes | None:
    """`packed` inflated; None where that is longer than `most`; empty where it is no deflated data."""
    try:
        out = zlib.decompressobj().decompress(packed, most + 1)
    except zlib.error:
        return b""
    return out if len(out) <= most else None


def _profile(found: list[Chunk], limits: Limits) -> bytes | None:
    for c in found:
        packed = _packed(c) if c.name == b"iCCP" else None
        if packed is not None:
            return _inflated(packed, limits.max_inflated) or None
    return None


def _density(found: list[Chunk]) -> tuple[float, float] | None:
    for c in found:
        if c.name == b"pHYs" and len(c.body) == 9:
            across, down, unit = unpack(">IIB", c.body)
            return (across * 0.0254, down * 0.0254) if unit == 1 and across and down else None
    return None


def _kept(found: list[Chunk], beyond: int) -> tuple[tuple[Part, ...], tuple[str, ...]]:
    """What is written back: the chunks known to stay true, and unknown ones that call themselves safe to copy (fourth
    letter in lower case).
    """
    kept: list[Part] = []
    warnings = [f"{beyond} bytes after the end of the PNG are dropped"] if beyond else []
    late = False
    for c in found:
        late |= c.name == b"IDAT"
        if c.name in (b"IHDR", b"PLTE", b"IDAT", b"IEND") or _note(c) is not None:
            continue
        if not c.sound:
            warnings.append(f"a {_shown(c.name)} chunk with a wrong checksum is dropped")
        elif c.name in KEPT or c.name[3:].islower():
            kept.append(Part(_shown(c.name), c.whole, late))
        else:
            warnings.append(f"a {_shown(c.name)} chunk, which the change makes untrue, is dropped")
    return tuple(kept), tuple(dict.fromkeys(warnings))


def write(picture: Picture, pixels: Pixels, alpha: Plane | None, note: str | None) -> bytes:
    """Code stored-layout pixels without loss and put the source's chunks back.

    `note` is an iTXt chunk with the keyword forearm.
    """
    out = BytesIO()
    Image.fromarray(join(pixels, alpha)).save(out, "PNG")
    coded, _ = chunks(out.getvalue(), Limits(max_parts=2**31))
    text = b"" if note is None else _chunk(b"iTXt", NOTE + b"\0\0\0\0\0" + note.encode("ascii"))
    return b"".join((
        MAGIC,
        coded[0].whole,
        *(p.data for p in picture.kept if not p.late),
        text,
        *(c.whole for c in coded if c.name == b"IDAT"),
        *(p.data for p in picture.kept if p.late),
        coded[-1].whole,
    ))  # fmt: skip


def _chunk(name: bytes, body: bytes) -> bytes:
    return len(body).to_bytes(4, "big") + name + body + zlib.crc32(name + body).to_bytes(4, "big")


def _note(chunk: Chunk) -> str | None:
    head = NOTE + b"\0\0\0\0\0"
    return chunk.body[len(head) :].decode("ascii", "replace") if chunk.name == b"iTXt" and chunk.body.startswith(head) else None


def notes(data: bytes, limits: Limits) -> list[str]:
    """The texts that `write` may have left, newest last."""
    return [note for note in map(_note, chunks(data, limits)[0]) if note is not None]
