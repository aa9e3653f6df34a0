"""Verify recomputes everything from the files: what is well passes, what was tampered with does not."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import forearm
from forearm.images.codec import decode
from forearm.jobs.compare import Check
from forearm.jobs.verify import Pairing, as_json, inspect, pairings, summary, verify
from tests.jobs.test_armory import picture


@pytest.fixture
def files(pair: dict[str, str], tmp_path: Path) -> Pairing:
    """An original of 40 x 48 pixels and its armed file, label 3."""
    Image.fromarray(picture()).save(tmp_path / "a.png")
    (tmp_path / "armed.png").write_bytes(forearm.arm(tmp_path / "a.png", defense="mspd(copies=2)", threat="linf:4/255", label=3, **pair)[0])
    return Pairing(tmp_path / "armed.png", tmp_path / "a.png", 3, "linf:4/255")


def check(pairing: Pairing, pair: dict[str, str]) -> Check:
    return next(verify([pairing], attack="pgd(steps=3)", targets=[pair["backbone"], pair["labeller"]], **pair))


def test_an_armed_file_is_well(files: Pairing, pair: dict[str, str]) -> None:
    seen = check(files, pair)
    assert seen.problem is None
    assert seen.within
    assert seen.lossless
    assert (seen.linf, seen.label, seen.name) == (4, 3, "cat")
    assert seen.margin_after > seen.margin_before
    assert [t.name for t in seen.targets] == ["backbone", "labeller"]
    assert all(t.clean_after or not t.robust_after for t in seen.targets)


def test_a_pixel_out_of_budget_is_seen(files: Pairing, pair: dict[str, str]) -> None:
    kept = decode(files.armed)
    pixels = kept.pixels.copy()
    pixels[0, 0, 0] = (decode(files.original).pixels[0, 0, 0].astype(int) + 100) % 256
    from forearm.images.codec import encode

    files.armed.write_bytes(encode(kept, pixels, {"forearm": "0", "defense": "x", "threat": "linf:4/255", "backbone": "backbone"}))
    assert "leaves linf:4/255" in (check(files, pair).problem or "")


def test_an_untagged_copy_a_wrong_size_and_a_broken_file_are_problems_not_crashes(files: Pairing, pair: dict[str, str]) -> None:
    Image.fromarray(picture()).save(files.armed)
    assert "no tag" in (check(files, pair).problem or "")
    Image.fromarray(picture(9, 9)).save(files.armed)
    assert "same size" in (check(files, pair).problem or "")
    files.armed.write_bytes(b"\x89PNG\r\n\x1a\n broken")
    broken = check(files, pair)
    assert broken.problem
    both = [broken, check(Pairing(files.original, files.original, 3), pair)]
    assert summary(both)["files"] == 2
    assert json.loads(as_json(both))["summary"]["problems"] == 2


@pytest.mark.parametrize(
    ("named", "followed"),
    [
        ("photo_backbone", "photo_backbone"),
        ("photo_backbone+photo_wide", "photo_backbone+photo_wide"),
        ("https://example.org/a.pth", None),
        ("photo_backbone+/etc/x", None),
        ("photo_wide+photo_wide+photo_wide", None),  # a tag may not make us load as often as it likes
    ],
)
def test_a_file_cannot_name_what_is_loaded(files: Pairing, named: str, followed: str | None) -> None:
    from forearm.images.codec import encode

    kept = decode(files.armed)
    files.armed.write_bytes(encode(kept, kept.pixels, {"forearm": "0", "defense": "x", "threat": "linf:4/255", "backbone": named}))
    assert [pair.backbone for pair in pairings(files.armed, files.original)] == [followed]


def test_the_numbers_are_those_of_the_pixels(files: Pairing, pair: dict[str, str]) -> None:
    seen = check(files, pair)
    difference = decode(files.armed).pixels.astype(float) - decode(files.original).pixels
    assert seen.linf == np.abs(difference).max()
    assert seen.psnr == pytest.approx(10 * np.log10(255**2 / (difference**2).mean()), abs=1e-3)


def test_what_there_is_to_verify(files: Pairing, tmp_path: Path) -> None:
    found = pairings(files.armed, files.original)[0]
    assert (found.threat, found.backbone) == ("linf:4/255", None)  # no embedded one: `--backbone` must name it
    with pytest.raises(forearm.InputError, match="--original"):
        pairings(files.armed)
    with pytest.raises(forearm.InputError, match="no journal"):
        pairings(tmp_path)
    with pytest.raises(forearm.InputError, match="no such file"):
        pairings(tmp_path / "nowhere")


def test_inspect_tells_armed_from_bare(files: Pairing) -> None:
    assert inspect(files.armed)["armed"]["defense"] == "mspd(copies=2)"
    bare = inspect(files.original)
    assert bare["armed"] is None
    assert (bare["format"], bare["mode"], bare["width"], bare["height"]) == ("PNG", "RGB", 48, 40)
