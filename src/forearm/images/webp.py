"""WebP files: checked chunk by chunk, pixels decoded without the metadata, the other chunks written back byte for byte.

A lossless source is written without loss. A lossy one is written at the first quality of `QUALITIES` whose quantisers
are as fine as the source's or finer. The lossy format itself halves the colour resolution, so part of a change in
colour is lost whatever the quality.
"""

from __future__ import annotations

from dataclasses import dataclass
from io import BytesIO
from struct import unpack_from

from PIL import Image

from forearm.errors import InputError
from forearm.images import ifd
from forearm.images.limits import Limits, check_parts, check_size
from forearm.images.picture import Coding, Part, Picture, Pixels, Plane, join, mode_of, split, upright
from forearm.images.pillow import samples

NOTE = b"4ARM"  # a chunk of its own: the format lets readers skip chunks that they do not know, and XMP or EXIF stay untouched
QUALITIES = (90, 95, 98, 100)
SIGNATURE = b"C2PA"
CODED = (b"VP8 ", b"VP8L", b"ALPH")
FLAG_ANIMATION, FLAG_XMP, FLAG_EXIF, FLAG_ALPHA, FLAG_ICC = 0x02, 0x04, 0x08, 0x10, 0x20


@dataclass(frozen=True, slots=True)
class Chunk:
    """One RIFF chunk."""

    name: bytes
    body: bytes


def chunks(data: bytes, limits: Limits) -> tuple[list[Chunk], int]:
    """All chunks and the length of the file as its header gives it."""
    end = 8 + unpack_from("<I", data, 4)[0] if len(data) >= 12 else 12
    if end > len(data) or end < 12:
        raise InputError(f"a truncated WebP ({len(data)} bytes where {end} are announced); a whole file, for example copied again")
    found: list[Chunk] = []
    at = 12
    while at + 8 <= end:
        length = unpack_from("<I", data, at + 4)[0]
        if at + 8 + length > end:
            raise InputError(f"a damaged WebP (chunk at byte {at} of {end}); a whole file, for example copied again")
        found.append(Chunk(data[at : at + 4], data[at + 8 : at + 8 + length]))
        check_parts(len(found), limits)
        at += 8 + length + length % 2
    return found, end


def read(data: bytes, limits: Limits) -> Picture:
    """Decode a single WebP picture, RGB or RGBA; animations are refused."""
    found, end = chunks(data, limits)
    first = {c.name: c.body for c in reversed(found)}
    if b"ANIM" in first or b"ANMF" in first or (first.get(b"VP8X", b"\0")[:1] or b"\0")[0] & FLAG_ANIMATION:
        raise InputError("an animated WebP; a single picture, for example its first frame saved as WebP")
    if (b"VP8 " in first) == (b"VP8L" in first):
        raise InputError("a WebP without exactly one picture; one, for example saved anew")
    width, height = _size(first)
    check_size(width, height, limits)
    flags = first[b"VP8X"][0] & FLAG_ALPHA if b"VP8X" in first else None
    bare = _riff([Chunk(c.name, c.body) for c in found if c.name in CODED], flags, width, height)
    pixels, alpha = split(samples(bare, "WEBP", (width, height), ("RGB", "RGBA")))
    kept = tuple(Part(ascii(c.name.decode("latin-1"))[1:-1], _chunk(c)) for c in found if c.name not in (*CODED, b"VP8X", NOTE, SIGNATURE))
    exif = first.get(b"EXIF")
    block = exif.removeprefix(b"Exif\0\0") if exif is not None else None
    turn, dpi, complaint = ifd.glance(block)
    said = [f"{len(data) - end} bytes after the end of the WebP are dropped"] if len(data) > end else []
    if SIGNATURE in first:
        said.append("a C2PA chunk, which the change makes untrue, is dropped")
    return Picture(
        pixels=upright(pixels, turn),
        alpha=None if alpha is None else upright(alpha, turn),
        format="WEBP",
        mode=mode_of(pixels, alpha),
        width=width,
        height=height,
        lossless=b"VP8L" in first,
        orientation=turn,
        dpi=dpi,
        icc=first.get(b"ICCP"),
        exif=block,
        coding=Coding(quantisers=(0, 0) if b"VP8L" in first else quantisers(first[b"VP8 "])),
        kept=kept,
        warnings=(*said, *([complaint] if complaint else [])),
    )


def _size(first: dict[bytes, bytes]) -> tuple[int, int]:
    """Width and height of the coded picture; the canvas, where there is one, must be as large."""
    lossy, exact = first.get(b"VP8 ", b""), first.get(b"VP8L", b"")
    if len(lossy) >= 10 and lossy[3:6] == b"\x9d\x01\x2a":
        across, down = unpack_from("<HH", lossy, 6)
        size = across & 0x3FFF, down & 0x3FFF
    elif len(exact) >= 5 and exact[0] == 0x2F:
        bits = unpack_from("<I", exact, 1)[0]
        size = (bits & 0x3FFF) + 1, (bits >> 14 & 0x3FFF) + 1
    else:
        raise InputError("a WebP without a sound picture header; a whole file, for example copied again")
    canvas = first.get(b"VP8X")
    if canvas is not None:
        if len(canvas) < 10:
            raise InputError("a WebP whose VP8X chunk is cut short; a whole file, for example copied again")
        if size != (int.from_bytes(canvas[4:7], "little") + 1, int.from_bytes(canvas[7:10], "little") + 1):
            raise InputError("a WebP whose picture does not fill its canvas; one of the canvas's size, for example saved anew")
    return size


class _Bits:
    """The boolean entropy decoder of RFC 6386, section 7, for the bits of probability one half that a frame header
    starts with.
    """

    def __init__(self, data: bytes) -> None:
        self.data, self.at, self.value, self.range, self.count = (
            data,
            2,
            int.from_bytes(data[:2].ljust(2, b"\0"), "big"),
            255,
            0,
        )

    def bit(self) -> int:
        split_ = 1 + (((self.range - 1) * 128) >> 8)
        found = int(self.value >= split_ << 8)
        self.value, self.range = (self.value - (split_ << 8), self.range - split_) if found else (self.value, split_)
        while self.range < 128:
            self.value, self.range, self.count = self.value << 1, self.range << 1, self.count + 1
            if self.count == 8:
                self.count = 0
                self.value |= self.data[self.at] if self.at < len(self.data) else 0
                self.at += 1
        return found

    def number(self, bits: int) -> int:
        value = 0
        for _ in range(bits):
            value = value << 1 | self.bit()
        return value

    def signed(self, bits: int) -> int:
        value = self.number(bits)
        return -value if self.bit() else value


def quantisers(frame: bytes) -> tuple[int, int]:
    """The finest and the coarsest quantiser index of a lossy frame, 0 (fine) to 127 (RFC 6386, sections 9.2 to 9.6)."""
    bits = _Bits(frame[10:])
    bits.number(2)  # colour space, clamping
    segments: list[int] = []
    absolute = 0
    if bits.bit():
        new_map, new_data = bits.bit(), bits.bit()
        if new_data:
            absolute = bits.bit()
            segments = [bits.signed(7) if bits.bit() else 0 for _ in range(4)]
            for _ in range(4):
                _ = bits.signed(6) if bits.bit() else 0  # loop filter strengths
        if new_map:
            for _ in range(3):
                _ = bits.number(8) if bits.bit() else 255
    bits.number(1 + 6 + 3)  # filter type, level, sharpness
    if bits.bit() and bits.bit():
        for _ in range(8):
            _ = bits.signed(6) if bits.bit() else 0  # loop filter changes
    bits.number(2)  # how many token partitions
    base = bits.number(7)
    used = [value if absolute else base + value for value in segments] or [base]
    return min(max(min(used), 0), 127), min(max(max(used), 0), 127)


def write(picture: Picture, pixels: Pixels, alpha: Plane | None, note: str | None) -> bytes:
    """Code stored-layout pixels as the source was coded and put the source's chunks back.

    `note` is a chunk 4ARM at the end.
    """
    image = Image.fromarray(join(pixels, alpha))
    limits = Limits(max_parts=2**31)
    coded: list[Chunk] = []
    for quality in (100,) if picture.lossless else QUALITIES:
        out = BytesIO()
        image.save(out, "WEBP", lossless=picture.lossless, exact=True, quality=75 if picture.lossless else quality)
        coded = [c for c in chunks(out.getvalue(), limits)[0] if c.name in CODED]
        if picture.lossless or all(a <= b for a, b in zip(quantisers(coded[-1].body), picture.coding.quantisers, strict=True)):
            break
    kept, _ = chunks(
        b"RIFF" + (4 + sum(len(p.data) for p in picture.kept)).to_bytes(4, "little") + b"WEBP" + b"".join(p.data for p in picture.kept),
        limits,
    )
    profile = [c for c in kept if c.name == b"ICCP"]
    rest = [c for c in kept if c.name != b"ICCP"]
    last = [] if note is None else [Chunk(NOTE, note.encode("ascii"))]
    names = {c.name for c in kept}
    flags = (
        (b"ICCP" in names) * FLAG_ICC | (alpha is not None) * FLAG_ALPHA | (b"EXIF" in names) * FLAG_EXIF | (b"XMP " in names) * FLAG_XMP
    )
    simple = not kept and not last and len(coded) == 1
    return _riff([*profile, *coded, *rest, *last], None if simple else flags, picture.width, picture.height)


def _riff(found: list[Chunk], flags: int | None, width: int, height: int) -> bytes:
    """A WebP file of these chunks, with a VP8X header unless `flags` is None."""
    extended = (
        []
        if flags is None
        else [
            Chunk(
                b"VP8X",
                bytes((flags, 0, 0, 0)) + (width - 1).to_bytes(3, "little") + (height - 1).to_bytes(3, "little"),
            )
        ]
    )
    body = b"WEBP" + b"".join(map(_chunk, [*extended, *found]))
    return b"RIFF" + len(body).to_bytes(4, "little") + body


def _chunk(chunk: Chunk) -> bytes:
    return chunk.name + len(chunk.body).to_bytes(4, "little") + chunk.body + b"\0" * (len(chunk.body) % 2)


def notes(data: bytes, limits: Limits) -> list[str]:
    """The texts that `write` may have left, newest last."""
    return [c.body.decode("ascii", "replace") for c in chunks(data, limits)[0] if c.name == NOTE]
