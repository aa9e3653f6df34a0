"""The tag of armed files: written beside what was there, found again, replaced, and never believed when it is garbage."""

from __future__ import annotations

from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from forearm.errors import SpecError
from forearm.images import ifd, jpeg
from forearm.images.codec import decode, encode
from forearm.images.limits import Limits
from forearm.images.provenance import armed_tag, parse, render, tag_of
from tests.images.corpus import chunk, hostile, photo, saved, sound, with_segment

TAG = armed_tag("mspd(copies=20)", "linf:8/255", "cifar10_backbone")
SOURCES = {
    "PNG": sound("PNG"),
    "JPEG": sound("JPEG"),
    "JPEG with EXIF": with_segment(sound("JPEG"), 0xE1, b"Exif\0\0II*\0\x08\0\0\0\0\0\0\0\0\0"),
    "WEBP": sound("WEBP"),
    "WEBP lossless": saved(Image.fromarray(photo()), "WEBP", lossless=True),
    "WEBP with alpha and XMP": saved(Image.fromarray(photo(channels=4)), "WEBP", xmp=b"<x/>"),
    "TIFF": sound("TIFF"),
    "TIFF LZW": saved(Image.fromarray(photo()), "TIFF", compression="tiff_lzw"),
}


def test_the_tag_names_the_defence_and_no_seed() -> None:
    assert {"forearm": TAG["forearm"], "defense": "mspd(copies=20)", "threat": "linf:8/255", "backbone": "cifar10_backbone"} == TAG
    with pytest.raises(SpecError, match="tag: got the seed"):
        render({**TAG, "seed": 0})


@pytest.mark.parametrize("name", SOURCES)
def test_the_tag_is_found_again_and_replaced(name: str, tmp_path: Path) -> None:
    assert tag_of(SOURCES[name]) is None
    picture = decode(SOURCES[name])
    armed = encode(picture, picture.pixels, TAG)
    path = tmp_path / "armed"
    path.write_bytes(armed)
    assert tag_of(armed) == tag_of(path) == TAG
    assert Image.open(BytesIO(armed)).size == (32, 24)
    twice = decode(armed)
    other = armed_tag("single_step", "l2:1", "another")
    again = encode(twice, twice.pixels, other)
    assert tag_of(again) == other
    assert b"mspd(copies=20)" not in again
    assert tag_of(encode(twice, twice.pixels, None)) is None
    if picture.lossless:
        assert np.array_equal(twice.pixels, picture.pixels)


def test_comments_and_descriptions_stay_beside_the_tag() -> None:
    picture = decode(with_segment(sound("JPEG"), 0xFE, b"a comment"))
    armed = encode(picture, picture.pixels, TAG)
    comments = [s.body for s in jpeg.segments(armed, Limits())[0] if s.marker == 0xFE]
    assert comments == [b"a comment", b"forearm " + render(TAG).encode()]
    scan = decode(saved(Image.fromarray(photo()), "TIFF", description="a scan"))
    tags, _ = ifd.read(encode(scan, scan.pixels, TAG))
    assert tags[270].raw == b"a scan\0"
    web = decode(SOURCES["WEBP with alpha and XMP"])
    assert Image.open(BytesIO(encode(web, web.pixels, TAG))).info["xmp"] == b"<x/>"


def test_bmp_has_no_place_for_a_tag() -> None:
    picture = decode(sound("BMP"))
    armed = encode(picture, picture.pixels, TAG)
    assert armed == sound("BMP")
    assert tag_of(armed) is None


@pytest.mark.parametrize(
    "text",
    [
        "",
        "{",
        "[]",
        "7",
        '"forearm"',
        "{}",
        '{"other": 1}',
        '{"forearm": {}}',
        '{"forearm": null}',
        '{"forearm": NaN}',
        '{"forearm": 1e999}',
        "[" * 3000,
        '{"forearm": "' + "x" * 5000 + '"}',
    ],
)
def test_garbage_is_no_tag(text: str) -> None:
    assert parse(text) is None
    data = text.encode()
    assert tag_of(with_segment(sound("JPEG"), 0xFE, b"forearm " + data)) is None
    assert tag_of(sound("PNG")[:33] + chunk(b"iTXt", b"forearm\0\0\0\0\0" + data) + sound("PNG")[33:]) is None


def test_a_sound_tag_among_garbage_is_found() -> None:
    picture = decode(sound("JPEG"))
    armed = with_segment(encode(picture, picture.pixels, TAG), 0xFE, b"forearm {")
    assert tag_of(armed) == TAG


@pytest.mark.parametrize("value", [float("nan"), "x" * 5000, None, ["list"]])
def test_values_that_cannot_be_written_are_refused(value: object) -> None:
    with pytest.raises(SpecError, match="tag: got"):
        render({"forearm": "1", "value": value})  # type: ignore[dict-item]


def test_hostile_files_have_no_tag_and_raise_nothing(tmp_path: Path) -> None:
    for path in hostile(tmp_path / "corpus"):
        assert tag_of(path) is None
    assert tag_of(tmp_path / "missing.png") is None
    assert tag_of(Path("nul\0byte.png")) is None
