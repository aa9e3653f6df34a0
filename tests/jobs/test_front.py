"""`forearm.arm`: the same kind comes back, whatever the kind."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import forearm
from forearm.images.codec import decode
from forearm.images.provenance import tag_of
from tests.jobs.test_armory import picture

FAST = {"defense": "s_fgsm", "threat": "linf:4/255"}


def png(pixels: np.ndarray) -> bytes:
    file = io.BytesIO()
    Image.fromarray(pixels.squeeze()).save(file, "PNG")
    return file.getvalue()


def test_bytes_and_paths_give_the_bytes_of_an_armed_file(pair: dict[str, str], tmp_path: Path) -> None:
    pixels = picture()
    (tmp_path / "a.png").write_bytes(png(pixels))
    results = [forearm.arm(given, **FAST, **pair)[0] for given in (png(pixels), tmp_path / "a.png", str(tmp_path / "a.png"))]
    assert results[0] == results[1] == results[2]
    assert np.abs(decode(results[0]).pixels.astype(int) - pixels).max() == 4
    tag = tag_of(results[0])
    assert tag is not None
    assert tag["defense"] == "s_fgsm"
    assert "seed" not in tag


def test_every_kind_gets_the_same_pixels(pair: dict[str, str]) -> None:
    pixels = picture()
    want = decode(forearm.arm(png(pixels), **FAST, **pair)[0]).pixels
    array, report = forearm.arm(pixels, **FAST, **pair)
    pillow, _ = forearm.arm(Image.fromarray(pixels), **FAST, **pair)
    tensor, _ = forearm.arm(torch.from_numpy(pixels).permute(2, 0, 1) / 255.0, **FAST, **pair)
    batch, reports = forearm.arm(np.stack([pixels, picture(seed=1)]), **FAST, **pair)
    assert np.array_equal(array, want)
    assert np.array_equal(np.asarray(pillow), want)
    assert np.array_equal((tensor * 255).round().to(torch.uint8).permute(1, 2, 0).numpy(), want)
    assert np.array_equal(batch[0], want)
    assert reports[0] == report
    assert len(reports) == 2


def test_grey_and_alpha_are_kept(pair: dict[str, str]) -> None:
    grey = picture(channels=1)
    assert forearm.arm(grey[..., 0], **FAST, **pair)[0].shape == (40, 48)
    assert forearm.arm(Image.fromarray(grey[..., 0]), **FAST, **pair)[0].mode == "L"
    rgba = Image.fromarray(picture(channels=4))
    armed, _ = forearm.arm(rgba, **FAST, **pair)
    assert armed.mode == "RGBA"
    assert np.array_equal(np.asarray(armed)[..., 3], np.asarray(rgba)[..., 3])


def test_labels_by_name_one_for_each(pair: dict[str, str]) -> None:
    _, report = forearm.arm(picture(), label="truck", **FAST, **pair)
    assert report.name == "truck"
    _, reports = forearm.arm(np.stack([picture(), picture(seed=1)]), label=["cat", 0], **FAST, **pair)
    assert [r.name for r in reports] == ["cat", "airplane"]


@pytest.mark.parametrize(
    "bad",
    [
        np.zeros((4, 4, 3)),
        np.zeros((4, 4, 2), np.uint8),
        torch.zeros(3, 4, 4, dtype=torch.uint8),
        torch.full((3, 4, 4), 2.0),
        torch.zeros(5, 4, 4),
        Image.new("CMYK", (4, 4)),
        b"not a picture",
        Path("no-such-file.png"),
        7,
    ],
)
def test_what_is_no_picture_is_refused_in_one_line(bad: object) -> None:
    with pytest.raises(forearm.InputError) as error:
        forearm.arm(bad)  # type: ignore[call-overload]
    assert "\n" not in str(error.value)


def test_a_wrong_number_of_labels_is_refused(pair: dict[str, str]) -> None:
    with pytest.raises(forearm.InputError, match="one for each"):
        forearm.arm(np.stack([picture()] * 2), label=["cat"], **FAST, **pair)
    with pytest.raises(forearm.InputError, match="a list of 2"):
        forearm.arm(np.stack([picture()] * 2), label="cat", **FAST, **pair)


def test_the_exported_names_exist() -> None:
    for name in forearm.__all__:
        assert getattr(forearm, name) is not None
    with pytest.raises(AttributeError, match="armm"):
        _ = forearm.armm  # type: ignore[attr-defined]
