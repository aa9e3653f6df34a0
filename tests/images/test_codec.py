"""Every format and mode out and in again: pixels, size, mode, orientation, alpha, profile, EXIF, resolution, texts; and
what must be refused.
"""

from __future__ import annotations

import pickle
import struct
from collections.abc import Callable
from dataclasses import replace
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageCms, ImageFile, ImageOps, PngImagePlugin

from forearm.errors import InputError
from forearm.images import jpeg, webp
from forearm.images.codec import decode, encode, readback
from forearm.images.limits import Limits
from forearm.images.picture import Picture, Pixels, stored, upright
from tests.images.corpus import chunk, frame_size, photo, png, saved, scans, sound, tiff, with_segment

Options = dict[str, object]
Write = Callable[[Picture, Pixels], bytes]
LOSSLESS: list[tuple[str, str, Options]] = [
    *[("PNG", mode, {}) for mode in ("L", "LA", "RGB", "RGBA")],
    *[("WEBP", mode, {"lossless": True, "exact": True}) for mode in ("RGB", "RGBA")],
    *[("BMP", mode, {}) for mode in ("L", "RGB")],
    *[
        ("TIFF", mode, {"compression": compression})
        for mode in ("L", "LA", "RGB", "RGBA")
        for compression in ("raw", "tiff_lzw", "tiff_adobe_deflate", "tiff_deflate", "packbits")
    ],
    ("TIFF", "RGB", {"compression": "tiff_lzw", "tiffinfo": {317: 2}}),
]
LOSSY: list[tuple[str, str, Options]] = [
    *[("JPEG", "RGB", {"quality": q, "progressive": p}) for q in (30, 75, 95, 100) for p in (False, True)],
    ("JPEG", "L", {"quality": 75}),
    ("JPEG", "L", {"quality": 75, "progressive": True}),
    ("JPEG", "RGB", {"quality": 75, "subsampling": 2}),
    ("JPEG", "RGB", {"quality": 75, "keep_rgb": True}),
    *[("WEBP", mode, {"quality": q}) for mode in ("RGB", "RGBA") for q in (20, 80, 100)],
]
PROFILE = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()


def image(mode: str, height: int = 24, width: int = 33) -> Image.Image:
    """A photo-like picture of a mode, with every alpha from 0 on."""
    made = photo(height, width, len(mode))
    if mode.endswith("A"):
        made[..., -1] = np.arange(height * width).reshape(height, width) % 256
    return Image.fromarray(made if len(mode) > 1 else made[..., 0])


def exif(order: int, *, below: bool = True) -> bytes:
    """An EXIF block with an orientation, a maker, a resolution and, with `below`, a directory."""
    block = Image.Exif()
    block[0x0112], block[0x010F] = order, "Maker"
    block[0x011A], block[0x011B], block[0x0128] = 96.0, 96.0, 2
    if below:
        block.get_ifd(0x8769)[0x9286] = b"ASCII\0\0\0a comment"
    return block.tobytes()


def changed(pixels: Pixels) -> Pixels:
    """A change of at most 8 levels, smooth enough to survive lossy coding."""
    y, x = np.mgrid[: pixels.shape[0], : pixels.shape[1]]
    wave = np.rint(8 * np.sin(x / 5 + y / 7)).astype(int)[..., None]
    return np.clip(pixels.astype(int) + wave, 0, 255).astype(np.uint8)


def plain(picture: Picture, pixels: Pixels) -> bytes:
    return encode(picture, pixels, None)


@pytest.mark.parametrize(("kind", "mode", "options"), LOSSLESS)
def test_lossless_pixels_come_back_exactly(kind: str, mode: str, options: Options) -> None:
    source = saved(image(mode), kind, **options)
    picture = decode(source)
    reference = np.asarray(Image.open(BytesIO(source)))
    assert np.array_equal(picture.pixels.reshape(24, 33, -1), reference.reshape(24, 33, -1)[..., : picture.pixels.shape[2]])
    assert (picture.format, picture.mode, picture.width, picture.height, picture.lossless) == (kind, mode, 33, 24, True)
    asked = changed(picture.pixels)
    assert not np.array_equal(asked, picture.pixels)
    data = encode(picture, asked, None)
    again = Image.open(BytesIO(data))
    assert (again.format, again.mode, again.size) == (kind, mode, (33, 24))
    assert again.info.get("compression") == Image.open(BytesIO(source)).info.get("compression")
    assert np.array_equal(np.asarray(again).reshape(24, 33, -1)[..., : asked.shape[2]], asked)
    if mode.endswith("A"):
        assert np.array_equal(np.asarray(again)[..., -1], reference[..., -1])
    assert readback(data, asked).linf == 0


@pytest.mark.parametrize(("kind", "mode", "options"), LOSSY)
def test_lossy_pixels_come_back_nearly(kind: str, mode: str, options: Options) -> None:
    source = saved(image(mode), kind, **options)
    picture = decode(source)
    assert (picture.format, picture.mode, picture.lossless) == (kind, mode, False)
    asked = changed(picture.pixels)
    data = encode(picture, asked, None)
    again = Image.open(BytesIO(data))
    assert (again.format, again.mode, again.size) == (kind, mode, (33, 24))
    back = readback(data, asked)
    assert back.linf == int(np.abs(np.asarray(again).reshape(24, 33, -1)[..., : asked.shape[2]].astype(int) - asked).max())
    error = np.abs(back.pixels.astype(int) - asked).mean()
    assert 0 < error < (2.5 if kind == "JPEG" else 6)
    if mode.endswith("A"):
        assert np.array_equal(np.asarray(again)[..., -1], np.asarray(Image.open(BytesIO(source)))[..., -1])


@pytest.mark.parametrize("quality", [1, 30, 50, 75, 89, 90, 95, 98, 100])
@pytest.mark.parametrize("mode", ["L", "RGB"])
def test_jpeg_quality_is_read_and_never_lower(quality: int, mode: str) -> None:
    source = saved(image(mode), "JPEG", quality=quality)
    picture = decode(source)
    tables = Image.open(BytesIO(source)).quantization  # type: ignore[attr-defined]
    assert picture.coding.tables == tuple(tuple(table) for table in tables.values())
    if quality >= 2:
        assert picture.coding.quality == quality
    found = Image.open(BytesIO(encode(picture, picture.pixels, None))).quantization  # type: ignore[attr-defined]
    ninety = Image.open(BytesIO(saved(image(mode), "JPEG", quality=90))).quantization  # type: ignore[attr-defined]
    for name, table in found.items():
        assert list(table) == [min(a, b) for a, b in zip(tables[name], ninety[name], strict=True)]


@pytest.mark.parametrize("subsampling", [0, 1, 2])
@pytest.mark.parametrize("progressive", [False, True])
def test_jpeg_is_444_and_of_its_kind(subsampling: int, progressive: bool) -> None:
    picture = decode(saved(image("RGB"), "JPEG", subsampling=subsampling, progressive=progressive))
    data = encode(picture, picture.pixels, None)
    at = data.index(b"\xff\xc2" if progressive else b"\xff\xc0")
    assert data[at + 9] == 3
    assert [data[at + 11 + 3 * i] for i in range(3)] == [0x11] * 3


def test_grey_jpeg_keeps_one_component() -> None:
    picture = decode(saved(image("L"), "JPEG"))
    assert picture.pixels.shape == (24, 33, 1)
    data = encode(picture, picture.pixels, None)
    assert data[data.index(b"\xff\xc0") + 9] == 1


@pytest.mark.parametrize(("spread", "stays"), [(3, True), (256, False)])
def test_progressive_jpeg_at_the_finest_tables_is_written(spread: int, stays: bool, capfd: pytest.CaptureFixture[str]) -> None:
    noise = np.random.default_rng(0).integers(0, spread, (300, 300, 3), dtype=np.uint8)
    picture = decode(saved(Image.fromarray(noise), "JPEG", quality=50, progressive=True))
    finest = replace(picture, coding=replace(picture.coding, tables=((1,) * 64,) * 2))
    data = encode(finest, noise, None)
    assert readback(data, noise).linf <= 5  # rounding, twice
    assert decode(data).coding.progressive is stays
    assert capfd.readouterr().err == ""


def test_rgb_jpeg_stays_rgb() -> None:
    picture = decode(saved(image("RGB"), "JPEG", keep_rgb=True, quality=95))
    assert picture.coding.rgb
    data = encode(picture, picture.pixels, None)
    assert Image.open(BytesIO(data)).info["adobe_transform"] == 0
    assert readback(data, picture.pixels).linf <= 12


@pytest.mark.parametrize("quality", [0, 20, 60, 85, 92, 97, 100])
def test_lossy_webp_is_as_fine_as_its_source(quality: int) -> None:
    picture = decode(saved(image("RGB", 96, 96), "WEBP", quality=quality))
    again = decode(encode(picture, picture.pixels, None))
    assert again.coding.quantisers[0] <= picture.coding.quantisers[0]
    assert again.coding.quantisers[1] <= picture.coding.quantisers[1]


def test_webp_quantisers_follow_the_quality() -> None:
    coarsest = [webp.quantisers(saved(image("RGB", 96, 96), "WEBP", quality=q)[20:])[1] for q in (0, 25, 50, 75, 90, 100)]
    assert coarsest == sorted(coarsest, reverse=True)
    assert len(set(coarsest)) == 6
    assert (coarsest[0], coarsest[-1]) == (127, 0)


KEEPERS: list[tuple[str, str, Options]] = [
    ("JPEG", "RGB", {"quality": 90}),
    ("JPEG", "L", {"quality": 90}),
    ("PNG", "RGB", {}),
    ("PNG", "LA", {}),
    ("WEBP", "RGB", {"quality": 90}),
    ("WEBP", "RGBA", {"lossless": True}),
    ("TIFF", "RGB", {"compression": "tiff_lzw"}),
    ("TIFF", "RGBA", {}),
]


def rich(kind: str, mode: str, options: Options, order: int) -> bytes:
    """A file with a profile, EXIF and a resolution; a TIFF carries the EXIF tags as its own."""
    below = "compression" not in options  # Pillow 13 cannot write a compressed TIFF with an EXIF directory
    extra: Options = {"icc_profile": PROFILE, "exif": exif(order, below=below)}
    if kind in ("JPEG", "PNG", "TIFF"):
        extra["dpi"] = (144, 72)
    return saved(image(mode), kind, **options, **extra)


def lost(source: bytes, write: Write) -> str:
    """What `write` loses of a file, judged by Pillow: a word, or nothing."""
    before = Image.open(BytesIO(source))
    picture = decode(source)
    shown = np.asarray(ImageOps.exif_transpose(Image.open(BytesIO(source)))).reshape(*picture.pixels.shape[:2], -1)
    if not np.array_equal(picture.pixels, shown[..., : picture.pixels.shape[2]]):
        return "orientation on the way in"
    asked = changed(picture.pixels)
    data = write(picture, asked)
    after = Image.open(BytesIO(data))
    if (after.size, after.mode, after.format) != (before.size, before.mode, before.format):
        return "size, mode or format"
    if after.info.get("icc_profile") != before.info.get("icc_profile"):
        return "profile"
    first, second = before.getexif(), after.getexif()
    places = {273, 279, 0x8769, 0x8825}  # offsets and sizes, which may move
    if {k: v for k, v in first.items() if k not in places} != {k: v for k, v in second.items() if k not in places}:
        return "EXIF"
    if first.get_ifd(0x8769) != second.get_ifd(0x8769):
        return "EXIF directory"
    if after.info.get("dpi") != before.info.get("dpi"):
        return "resolution"
    turned = np.asarray(ImageOps.exif_transpose(Image.open(BytesIO(data)))).reshape(shown.shape)
    if np.abs(turned[..., : asked.shape[2]].astype(int) - asked).mean() > 6:
        return "orientation on the way out"
    if shown.shape[2] in (2, 4) and not np.array_equal(turned[..., -1], shown[..., -1]):
        return "alpha"
    return ""


@pytest.mark.parametrize("order", range(1, 9))
@pytest.mark.parametrize(("kind", "mode", "options"), KEEPERS)
def test_nothing_is_lost(kind: str, mode: str, options: Options, order: int) -> None:
    source = rich(kind, mode, options, order)
    assert lost(source, plain) == ""
    picture = decode(source)
    assert (picture.orientation, picture.icc, picture.width, picture.height) == (order, PROFILE, 33, 24)
    assert picture.pixels.shape[:2] == ((24, 33) if order < 5 else (33, 24))
    assert picture.dpi == pytest.approx((144, 72) if kind in ("JPEG", "PNG", "TIFF") else (96, 96), rel=1e-3)


def saved_anew(picture: Picture, pixels: Pixels) -> bytes:
    return saved(Image.fromarray(stored(pixels, picture.orientation)), picture.format)


def not_turned_back(picture: Picture, pixels: Pixels) -> bytes:
    square = pixels.reshape(picture.height, picture.width, pixels.shape[2])
    return encode(picture, upright(square, 1) if picture.orientation < 5 else pixels[::-1, ::-1], None)


def without_exif(picture: Picture, pixels: Pixels) -> bytes:
    return saved(Image.fromarray(stored(pixels, picture.orientation)), picture.format, icc_profile=PROFILE)


def without_change(picture: Picture, pixels: Pixels) -> bytes:
    return encode(picture, 255 - picture.pixels, None)


@pytest.mark.parametrize(
    ("mutant", "word"),
    [
        (saved_anew, "profile"),
        (without_exif, "EXIF"),
        (not_turned_back, "orientation on the way out"),
        (without_change, "orientation on the way out"),
    ],
)
def test_a_writer_that_loses_something_is_caught(mutant: Write, word: str) -> None:
    assert lost(rich("JPEG", "RGB", {"quality": 90}, 6), mutant) == word


@pytest.mark.parametrize("order", range(1, 9))
def test_turning_is_undone(order: int) -> None:
    made = photo(3, 5)
    assert np.array_equal(stored(upright(made, order), order), made)
    tagged = Image.fromarray(made)
    tagged.getexif()[0x0112] = order
    assert np.array_equal(upright(made, order), np.asarray(ImageOps.exif_transpose(tagged)))


def test_png_chunks_stay_as_they_are() -> None:
    texts = PngImagePlugin.PngInfo()
    texts.add_text("Author", "someone")
    texts.add_text("Long", "x" * 3000, zip=True)
    texts.add_itxt("Title", "\u5199\u771f", lang="ja")
    source = saved(image("RGB"), "PNG", pnginfo=texts)
    more = (
        chunk(b"gAMA", struct.pack(">I", 45455))
        + chunk(b"tIME", bytes((7, 234, 1, 2, 3, 4, 5)))
        + chunk(b"abCd", b"keep")
        + chunk(b"abCD", b"drop")
    )
    source = source[:33] + more + source[33:]
    picture = decode(source)
    data = encode(picture, changed(picture.pixels), {"forearm": "1"})
    assert Image.open(BytesIO(data)).text == {**Image.open(BytesIO(source)).text, "forearm": '{"forearm":"1"}'}  # type: ignore[attr-defined]
    for name, kept in ((b"gAMA", True), (b"tIME", True), (b"abCd", True), (b"abCD", False)):
        assert (name in data) is kept
    assert picture.warnings == ("a abCD chunk, which the change makes untrue, is dropped",)


def test_png_interlaced_is_read() -> None:
    rows = b""
    made = photo(9, 7)
    for x, y, across, down in ((0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4), (0, 2, 2, 4), (1, 0, 2, 2), (0, 1, 1, 2)):
        for row in made[y::down, x::across]:
            rows += b"\0" + row.tobytes() if row.size else b""
    flat = png(7, 9, rows)
    header = flat[16:28] + b"\1"
    data = flat[:8] + chunk(b"IHDR", header) + flat[33:]
    assert np.array_equal(decode(data).pixels, made)
    short = png(7, 9, rows[:-1])
    with pytest.raises(InputError, match="1 bytes early"):
        decode(short[:8] + chunk(b"IHDR", header) + short[33:])


def test_jpeg_segments_stay_as_they_are() -> None:
    source = sound("JPEG")
    for marker, body in (
        (0xFE, b"a comment"),
        (0xED, b"Photoshop 3.0\x008BIM"),
        (0xE1, b"http://ns.adobe.com/xap/1.0/\0<x/>"),
        (0xE2, b"MPF\0more"),
    ):
        source = with_segment(source, marker, body)
    picture = decode(source + b"the second picture")
    data = encode(picture, picture.pixels, None)
    found = [s.whole for s in jpeg.segments(data, Limits())[0]]
    for s in jpeg.segments(source, Limits())[0]:
        if s.marker in (0xFE, 0xED, 0xE1, 0xE0):
            assert s.whole in found
    assert b"MPF\0" not in data
    assert [warning.partition(" ")[0] for warning in picture.warnings] == ["18", "further"]


def test_webp_unknown_chunks_and_xmp_stay() -> None:
    source = saved(image("RGBA"), "WEBP", xmp=b"<x/>", icc_profile=PROFILE)
    more = source + b"ODDS" + struct.pack("<I", 3) + b"abc\0"
    more += b"C2PA" + struct.pack("<I", 4) + b"sign"
    source = more[:4] + struct.pack("<I", len(more) - 8) + more[8:]
    picture = decode(source)
    assert picture.warnings == ("a C2PA chunk, which the change makes untrue, is dropped",)
    data = encode(picture, picture.pixels, {"forearm": "1"})
    again = Image.open(BytesIO(data))
    assert (again.info["xmp"], again.info["icc_profile"], again.mode) == (b"<x/>", PROFILE, "RGBA")
    assert b"ODDS\3\0\0\0abc\0" in data
    assert b"C2PA" not in data


def test_big_endian_tiff_keeps_its_order_and_tags() -> None:
    text = b"a scan of something\0"
    pixels = photo(4, 6, 1)
    tags = [
        (256, 3, 1, 6),
        (257, 3, 1, 4),
        (258, 3, 1, 8),
        (259, 3, 1, 1),
        (262, 3, 1, 0),
        (270, 2, len(text), 0),
        (273, 4, 1, 0),
        (274, 3, 1, 3),
    ]
    tags += [(277, 3, 1, 1), (278, 3, 1, 4), (279, 4, 1, 24)]
    body = 8 + 2 + 12 * len(tags) + 4
    places = {273: body, 270: body + 24}
    rows = b"".join(
        struct.pack(">HHI", t, k, n) + (struct.pack(">HH", v, 0) if k == 3 else struct.pack(">I", places.get(t, v))) for t, k, n, v in tags
    )
    data = b"MM\0*" + struct.pack(">IH", 8, len(tags)) + rows + bytes(4) + pixels.tobytes() + text
    picture = decode(data)
    assert np.array_equal(picture.pixels, 255 - pixels[::-1, ::-1])
    out = encode(picture, picture.pixels, None)
    again = Image.open(BytesIO(out))
    assert out[:4] == b"MM\0*"
    assert again.tag_v2[270] == "a scan of something"  # type: ignore[attr-defined]
    assert np.array_equal(np.asarray(ImageOps.exif_transpose(again)), picture.pixels[..., 0])
    assert decode(out).orientation == 3


def test_bmp_keeps_headers_alpha_and_the_fourth_byte() -> None:
    made = photo(5, 7, 4)
    masks = struct.pack("<4I", 0xFF0000, 0xFF00, 0xFF, 0xFF000000)
    body = np.ascontiguousarray(made[::-1, :, (2, 1, 0, 3)]).tobytes()
    for compression, mode in ((3, "RGBA"), (0, "RGB")):
        info = struct.pack("<IiiHHIIiiII", 108, 7, 5, 1, 32, compression, len(body), 3937, 3937, 0, 0) + masks + b"sRGB" + bytes(48)
        data = b"BM" + struct.pack("<IHHI", 14 + 108 + len(body), 0, 0, 14 + 108) + info + body
        picture = decode(data)
        assert picture.mode == mode
        assert np.array_equal(picture.pixels, made[..., :3])
        assert picture.dpi == pytest.approx((100, 100), rel=1e-3)
        asked = changed(picture.pixels)
        out = encode(picture, asked, {"forearm": "1"})
        assert (out[:122], len(out)) == (data[:122], len(data))
        assert out[125::4] == data[125::4]
        assert readback(out, asked).linf == 0
        assert np.array_equal(np.asarray(Image.open(BytesIO(out)).convert("RGB")), asked)


def test_bmp_top_down_is_read() -> None:
    source = sound("BMP")
    flipped = source[:22] + struct.pack("<i", -24) + source[26:]
    picture = decode(flipped)
    assert np.array_equal(picture.pixels, decode(source).pixels[::-1])
    assert encode(picture, picture.pixels, None) == flipped


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "BMP", "TIFF"])
def test_encoding_is_deterministic_and_pictures_travel(kind: str) -> None:
    picture = pickle.loads(pickle.dumps(decode(sound(kind))))
    first = encode(picture, picture.pixels, {"forearm": "1"})
    assert first == encode(decode(sound(kind)), picture.pixels, {"forearm": "1"})


def test_content_decides_and_a_wrong_name_is_reported(tmp_path: Path) -> None:
    path = tmp_path / "photo.jpg"
    path.write_bytes(sound("PNG"))
    picture = decode(path)
    assert picture.warnings == ("named .jpg but holds PNG, and is written as PNG",)
    assert encode(picture, picture.pixels, None)[:4] == b"\x89PNG"
    right = tmp_path / "photo.PNG"
    right.write_bytes(sound("PNG"))
    assert decode(right).warnings == ()


REFUSED: list[tuple[Callable[[], bytes], str]] = [
    (lambda: saved(image("RGB").convert("CMYK"), "JPEG"), "a CMYK or YCCK JPEG"),
    (lambda: saved(Image.fromarray(np.zeros((4, 4), np.uint16)), "PNG"), "a PNG of 16 bits"),
    (lambda: png(2, 2, (b"\0" + bytes(12)) * 2, bits=16), "a PNG of 16 bits"),
    (lambda: saved(image("RGB").convert("P"), "PNG"), "a PNG with a palette"),
    (lambda: saved(image("L").convert("1"), "PNG"), "a PNG of 1 bits"),
    (lambda: saved(image("RGB"), "PNG", save_all=True, append_images=[image("RGB").rotate(180)]), "an animated PNG"),
    (lambda: saved(image("RGB"), "WEBP", save_all=True, append_images=[image("RGB").rotate(180)]), "an animated WebP"),
    (lambda: saved(image("RGB"), "TIFF", save_all=True, append_images=[image("RGB")]), "a TIFF of several pages"),
    (lambda: saved(Image.fromarray(np.zeros((4, 4), np.uint16)), "TIFF"), "a TIFF of 16 bits"),
    (lambda: saved(Image.fromarray(np.zeros((4, 4), np.float32)), "TIFF"), "a TIFF of 32 bits"),
    (lambda: saved(Image.new("LAB", (4, 4)), "TIFF"), "a TIFF of CIE Lab"),
    (lambda: saved(image("RGB").convert("CMYK"), "TIFF"), "a TIFF of CMYK"),
    (lambda: saved(image("RGB").convert("P"), "TIFF"), "a TIFF of a palette"),
    (lambda: saved(image("RGB"), "TIFF", compression="jpeg"), "a TIFF of compression 7"),
    (
        lambda: saved(image("RGBA"), "TIFF").replace(struct.pack("<HHIH", 338, 3, 1, 2), struct.pack("<HHIH", 338, 3, 1, 1)),
        "a TIFF of premultiplied alpha",
    ),
    (lambda: saved(image("RGB").convert("P"), "BMP"), "a BMP with a palette"),
    (lambda: saved(image("RGB"), "GIF"), "a GIF"),
    (lambda: saved(image("RGB"), "JPEG2000"), "a JPEG 2000"),
    (lambda: b"\0\0\0\x18ftypheic" + bytes(30), "a HEIC"),
    (lambda: b"\0\0\0\x18ftypavif" + bytes(30), "an AVIF"),
    (lambda: frame_size(sound("JPEG"), 10_000, 6_000), "10000 x 6000 pixels; up to 50000000"),
    (lambda: tiff([(256, 4, 1, 60_000), (257, 4, 1, 2)]), "60000 x 2 pixels; sides up to 30000"),
    (lambda: scans(100), "a JPEG of more than 64 scans"),
    (lambda: sound("JPEG").replace(b"\xff\xc0", b"\xff\xc9", 1), "JPEG coding process SOF9"),
    (lambda: b"", "an empty file"),
]


@pytest.mark.parametrize(("make", "message"), REFUSED, ids=[message for _, message in REFUSED])
def test_what_cannot_be_kept_is_refused_by_name(make: Callable[[], bytes], message: str) -> None:
    with pytest.raises(InputError) as caught:
        decode(make())
    text = str(caught.value)
    assert text.partition(": ")[2].startswith(message)
    assert "\n" not in text
    assert "; " in text
    assert "for example" in text


def test_limits_hold_on_both_sides(tmp_path: Path) -> None:
    data = sound("PNG")
    path = tmp_path / "photo.png"
    path.write_bytes(data)
    for allowed, refused in (
        (Limits(max_bytes=len(data)), Limits(max_bytes=len(data) - 1)),
        (Limits(max_pixels=24 * 32), Limits(max_pixels=24 * 32 - 1)),
        (Limits(max_side=32), Limits(max_side=31)),
        (Limits(max_parts=3), Limits(max_parts=2)),
    ):
        assert decode(path, allowed).width == 32
        assert decode(data, allowed).width == 32
        for source in (path, data):
            with pytest.raises(InputError):
                decode(source, refused)
    text = saved(image("RGB"), "PNG", pnginfo=_long_text(5000))
    assert decode(text, Limits(max_inflated=5000)).width == 33
    with pytest.raises(InputError, match="inflates beyond 4999 bytes"):
        decode(text, Limits(max_inflated=4999))
    assert decode(scans(10), Limits(max_scans=20)).width == 32
    with pytest.raises(InputError, match="more than 19 scans"):
        decode(scans(10), Limits(max_scans=19))


def _long_text(size: int) -> PngImagePlugin.PngInfo:
    info = PngImagePlugin.PngInfo()
    info.add_text("Long", "x" * size, zip=True)
    return info


def test_lenient_pillow_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ImageFile, "LOAD_TRUNCATED_IMAGES", True)
    with pytest.raises(InputError, match="LOAD_TRUNCATED_IMAGES"):
        decode(sound("JPEG"))


def test_pixels_of_another_shape_are_refused() -> None:
    picture = decode(sound("PNG"))
    with pytest.raises(InputError, match="encode: pixels"):
        encode(picture, picture.pixels[:-1], None)
    with pytest.raises(InputError, match="encode: pixels"):
        encode(picture, picture.pixels.astype(np.float32), None)  # type: ignore[arg-type]
    with pytest.raises(InputError, match="readback: "):
        readback(sound("PNG"), picture.pixels[:-1])


def test_readback_tells_the_difference() -> None:
    picture = decode(sound("PNG"))
    asked = picture.pixels.copy()
    asked[3, 4, 1] ^= 16
    assert readback(sound("PNG"), asked).linf == 16


def test_real_photos_come_back() -> None:
    sets = pytest.importorskip("forearm.data.sets")
    photos = sorted((sets.root() / "imagenette").rglob("*.[jJ][pP]*"))[:3]
    if not photos:
        pytest.skip("no imagenette photos under FOREARM_DATA")
    for path in photos:
        picture = decode(path)
        assert np.array_equal(picture.pixels, np.asarray(ImageOps.exif_transpose(Image.open(path))).reshape(picture.pixels.shape))
        asked = changed(picture.pixels)
        back = readback(encode(picture, asked, None), asked)
        assert np.abs(back.pixels.astype(int) - asked).mean() < 2.5
