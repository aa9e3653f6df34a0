"""The tag directories of TIFF files and EXIF blocks: a bounded reader that copies values byte for byte, and a writer."""

from __future__ import annotations

import struct
from dataclasses import dataclass

from forearm.errors import InputError

# bytes of one value, by kind
SIZES = {1: 1, 2: 1, 3: 2, 4: 4, 5: 8, 6: 1, 7: 1, 8: 2, 9: 4, 10: 8, 11: 4, 12: 8, 13: 4}
LETTERS = {1: "B", 3: "H", 4: "I", 6: "b", 8: "h", 9: "i", 13: "I"}
SHORT, LONG, ASCII = 3, 4, 2
SUBDIRECTORIES = {0x8769: "EXIF", 0x8825: "GPS", 0xA005: "interoperability"}
ORIENTATION, X_RESOLUTION, Y_RESOLUTION, RESOLUTION_UNIT = 274, 282, 283, 296
MAX_TAGS = 4096


@dataclass(frozen=True, slots=True)
class Entry:
    """One tag: its kind, how many values, and their bytes in the file's order; or the directory that it points at."""

    kind: int
    count: int
    raw: bytes
    directory: dict[int, Entry] | None = None


def byte_order(data: bytes) -> str:
    """The byte order of a TIFF header, "<" or ">"; InputError without one."""
    order = {b"II*\0": "<", b"MM\0*": ">"}.get(data[:4])
    if order is None or len(data) < 8:
        raise InputError("no TIFF header; II or MM and 42, for example 49 49 2A 00")
    return order


def read(data: bytes) -> tuple[dict[int, Entry], int]:
    """The tags of the first directory of a TIFF-structured block, and the offset of the next directory (0: none).

    The EXIF, GPS and interoperability directories come with the tags that point at them.

    Offsets outside the block, more than 4096 tags and directories inside their own descendants are refused
    (InputError).
    """
    return _read(data, byte_order(data))


def _read(data: bytes, order: str) -> tuple[dict[int, Entry], int]:
    return _directory(data, struct.unpack_from(order + "I", data, 4)[0], order, (), [len(data)])


def _directory(data: bytes, at: int, order: str, above: tuple[int, ...], left: list[int]) -> tuple[dict[int, Entry], int]:
    """`left`: how many bytes of values may still be copied, in all.

    Overlapping values could otherwise ask for any amount.
    """
    if at in above or len(above) > 3:
        raise InputError("tag directories that point at themselves; a tree, for example as any camera writes it")
    if not 8 <= at <= len(data) - 2:
        raise InputError(f"a tag directory at byte {at} of {len(data)}; an offset inside the file, for example 8")
    count = struct.unpack_from(order + "H", data, at)[0]
    end = at + 2 + 12 * count
    if count > MAX_TAGS or end > len(data):
        raise InputError(f"a tag directory of {count} tags that does not fit; up to {MAX_TAGS} inside the file, for example 20")
    entries: dict[int, Entry] = {}
    for place in range(at + 2, end, 12):
        tag, kind, values = struct.unpack_from(order + "HHI", data, place)
        size = SIZES.get(kind, 0) * values
        if size == 0 or tag in entries:
            continue  # an unknown kind, no value or a repeated tag: nothing to keep
        start = place + 8 if size <= 4 else struct.unpack_from(order + "I", data, place + 8)[0]
        if start + size > len(data):
            raise InputError(f"tag {tag} with {size} bytes at byte {start} of {len(data)}; values inside the file, for example at byte 8")
        left[0] -= size
        if left[0] < 0:
            raise InputError("tags whose values overlap; each byte used once, for example as any camera writes it")
        entry = Entry(kind, values, data[start : start + size])
        if tag in SUBDIRECTORIES and kind in (LONG, 13) and values == 1:
            below = _directory(data, struct.unpack(order + "I", entry.raw)[0], order, (*above, at), left)[0]
            entry = Entry(LONG, 1, b"", below)
        entries[tag] = entry
    following = struct.unpack_from(order + "I", data, end)[0] if end + 4 <= len(data) else 0
    return entries, following


def numbers(entry: Entry | None, order: str) -> tuple[int, ...]:
    """The values of a tag of whole numbers; () where it is absent or of another kind."""
    if entry is None or entry.kind not in LETTERS:
        return ()
    return struct.unpack(f"{order}{entry.count}{LETTERS[entry.kind]}", entry.raw)


def number(entries: dict[int, Entry], tag: int, order: str, default: int) -> int:
    """The first value of a tag of whole numbers, or `default`."""
    return next(iter(numbers(entries.get(tag), order)), default)


def short(order: str, *values: int) -> Entry:
    """A tag of 16-bit numbers."""
    return Entry(SHORT, len(values), struct.pack(f"{order}{len(values)}H", *values))


def long(order: str, *values: int) -> Entry:
    """A tag of 32-bit numbers."""
    return Entry(LONG, len(values), struct.pack(f"{order}{len(values)}I", *values))


def write(order: str, entries: dict[int, Entry], blobs: tuple[bytes, ...] = (), offsets: int = 0, sizes: int = 0) -> bytes:
    """A TIFF of one directory.

    With `blobs` (strips or tiles) their places are written under the tags `offsets` and `sizes`.
    """
    out = bytearray(struct.pack(order + "2sHI", b"II" if order == "<" else b"MM", 42, 0))
    places = []
    for blob in blobs:
        places.append(len(out))
        out += blob + b"\0" * (len(blob) % 2)
    if blobs:
        entries = entries | {offsets: long(order, *places), sizes: long(order, *(len(blob) for blob in blobs))}
    at = _write_directory(out, order, entries)
    struct.pack_into(order + "I", out, 4, at)
    return bytes(out)


def _write_directory(out: bytearray, order: str, entries: dict[int, Entry]) -> int:
    rows = []
    for tag, entry in sorted(entries.items()):
        if entry.directory is not None:
            rows.append(struct.pack(order + "HHII", tag, LONG, 1, _write_directory(out, order, entry.directory)))
            continue
        value = entry.raw
        if len(value) > 4:
            place = len(out)
            out += value + b"\0" * (len(value) % 2)
            value = struct.pack(order + "I", place)
        rows.append(struct.pack(order + "HHI", tag, entry.kind, entry.count) + value.ljust(4, b"\0"))
    at = len(out)
    out += struct.pack(order + "H", len(rows)) + b"".join(rows) + b"\0\0\0\0"
    return at


def resolution(entries: dict[int, Entry], order: str) -> tuple[float, float] | None:
    """Dots an inch, from the resolution tags; None where they are absent or have no unit."""
    per_inch = {2: 1.0, 3: 2.54}.get(number(entries, RESOLUTION_UNIT, order, 2))
    pair = []
    for tag in (X_RESOLUTION, Y_RESOLUTION):
        entry = entries.get(tag)
        if entry is None or entry.kind != 5 or per_inch is None:
            return None
        above, below = struct.unpack_from(order + "II", entry.raw)
        if below == 0:
            return None
        pair.append(above / below * per_inch)
    return pair[0], pair[1]


def glance(block: bytes | None) -> tuple[int, tuple[float, float] | None, str | None]:
    """Orientation (1 to 8), dots an inch and a complaint of an EXIF block.

    A broken one is kept as it is: orientation 1, and said so.
    """
    if block is None:
        return 1, None, None
    try:
        order = byte_order(block)
        entries, _ = _read(block, order)
    except InputError as error:
        return (
            _orientation_at_any_cost(block),
            None,
            f"EXIF is broken ({str(error).partition(';')[0]}) and kept as it is",
        )
    turn = number(entries, ORIENTATION, order, 1)
    if turn not in range(1, 9):
        return 1, resolution(entries, order), f"EXIF orientation {turn} is none of 1 to 8 and taken as 1"
    return turn, resolution(entries, order), None


def _orientation_at_any_cost(block: bytes) -> int:
    """The orientation of an EXIF block with a fault elsewhere: viewers turn the picture all the same."""
    order = {b"II*\0": "<", b"MM\0*": ">"}.get(block[:4])
    if order is None or len(block) < 8:
        return 1
    at = struct.unpack_from(order + "I", block, 4)[0]
    if not 8 <= at <= len(block) - 2:
        return 1
    count = struct.unpack_from(order + "H", block, at)[0]
    for place in range(at + 2, min(at + 2 + 12 * count, len(block) - 11), 12):
        tag, kind, values, value = struct.unpack_from(order + "HHIH", block, place)
        if (tag, kind, values) == (ORIENTATION, SHORT, 1) and 1 <= value <= 8:
            return int(value)
    return 1
