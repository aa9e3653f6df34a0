"""`--survive`, `--strength` and bounds on the quality: what the armourer does, what is recorded, and what `verify` measures after publishing."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from typer.testing import CliRunner

import forearm
from forearm.cli.app import app
from forearm.core.lpips import HEADS, TRUNK
from forearm.core.publishing import family, spelled
from forearm.core.quality import lpips
from forearm.data.sets import root
from forearm.errors import InputError, SpecError
from forearm.images.codec import decode
from forearm.images.journal import Line
from forearm.jobs.armory import STRENGTHS, Armory, as_tensor
from forearm.jobs.bounds import Bounds, largest
from forearm.jobs.plan import ProtectJob
from forearm.jobs.protect import protect
from forearm.jobs.single import protect_bytes
from forearm.jobs.summary import Summary
from forearm.jobs.verify import Pairing, as_json, inspect, summary, verify
from tests.jobs.photos import journal, paint, tree
from tests.jobs.test_armory import armory, picture

SOCIAL = spelled(family("social"))


def smooth(seed: int = 0, side: int = 48) -> np.ndarray:
    """A picture whose codecs leave something to see."""
    x = torch.rand(1, 3, 5, 5, generator=torch.Generator().manual_seed(seed))
    x = torch.nn.functional.interpolate(x, (side, side), mode="bicubic").clamp(0.1, 0.9)
    return (x[0].permute(1, 2, 0) * 255).round().to(torch.uint8).numpy()


# what it is armed for


def test_what_a_file_was_armed_for_is_in_its_key_its_line_and_its_tag(pair: dict[str, str], tmp_path: Path) -> None:
    source = paint(tmp_path / "a.png", 1)
    lines = {}
    for survive in (None, "none", "social", SOCIAL, "jpeg:75"):
        data, line = protect_bytes(source.read_bytes(), armory(pair, survive=survive))
        lines[survive] = line
        (tmp_path / "armed.png").write_bytes(data)
        assert inspect(tmp_path / "armed.png")["armed"].get("survive") == line.survive
    assert lines[None].key == lines["none"].key
    assert lines["social"].key == lines[SOCIAL].key
    assert len({line.key for line in lines.values()}) == 3
    assert [lines[name].survive for name in (None, "social", "jpeg:75")] == [None, SOCIAL, "jpeg:75"]
    assert lines[None].out_sha256 is not None
    assert len({line.out_sha256 for line in lines.values()}) == 3


def test_without_the_options_settings_are_what_they_were(pair: dict[str, str]) -> None:
    known = armory(pair).settings(40, 48)
    assert set(known) == {
        "defense", "threat", "backbone", "backbone_sha256", "labeller", "labeller_sha256", "threshold", "seed",
    }  # fmt: skip


def test_a_rerun_with_another_channel_mixes_nothing(pair: dict[str, str], tmp_path: Path) -> None:
    paint(tmp_path / "in/a.png", 1)
    job = ProtectJob((tmp_path / "in",), tmp_path / "out", jobs=1)
    protect(job, armory(pair))
    first = tree(tmp_path / "out")
    other = protect(job, armory(pair, survive="jpeg:60"))
    assert [line.status for line in other.skipped] == ["skipped"]
    assert "other settings" in other.skipped[0].reason
    assert tree(tmp_path / "out") == first
    assert len(protect(job, armory(pair)).done) == 1
    again = protect(ProtectJob((tmp_path / "in",), tmp_path / "out", jobs=1, exists="overwrite"), armory(pair, survive="jpeg:60"))
    assert len(again.armed) == 1
    assert journal(tmp_path / "out")["a.png"]["survive"] == "jpeg:60"
    assert tree(tmp_path / "out") != first


def test_large_photos_are_armed_for_a_channel_too(pair: dict[str, str]) -> None:
    pixels = picture(150, 170)
    plain, armed = (armory(pair, survive=survive).arm([pixels], [1])[0] for survive in (None, "jpeg:60"))
    assert armed.report.linf <= 4
    assert not np.array_equal(plain.pixels, armed.pixels)


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"survive": "sociable"}, "social"),
        ({"survive": "social", "defense": "s_fgsm"}, "no copies"),
        ({"survive": "social", "defense": "mspd(survive='web')"}, "names its own"),
        ({"strength": "mighty"}, "balanced"),
        ({"strength": "subtle", "threat": "linf:1/255"}, "one of them"),
        ({"min_psnr": 0.0}, "min-psnr"),
        ({"min_psnr": math.nan}, "min-psnr"),
        ({"min_psnr": 30.0, "threat": "l2:0.5"}, "linf"),
        ({"max_lpips": -1.0}, "max-lpips"),
        ({"max_lpips": 0.1}, "--lpips"),
    ],
)
def test_options_that_cannot_work_are_refused_before_any_model_is_loaded(options: dict[str, object], says: str) -> None:
    with pytest.raises(SpecError, match=says) as error:
        armory({}, **options)
    assert "\n" not in str(error.value)


# strength


@pytest.mark.parametrize("strength", STRENGTHS)
@pytest.mark.parametrize("side", [40, 100])
def test_a_strength_is_a_threat_for_the_picture_size(pair: dict[str, str], strength: str, side: int) -> None:
    threat = STRENGTHS[strength][side <= 64]
    assert armory(pair, strength=strength).settings(side, side) == armory(pair, threat=threat).settings(side, side)


def test_balanced_is_the_default_and_strengths_are_in_order(pair: dict[str, str]) -> None:
    assert armory(pair).settings(40, 40) == armory(pair, strength="balanced").settings(40, 40)
    for small in (True, False):
        levels = [int(threat[small].removeprefix("linf:").removesuffix("/255")) for threat in STRENGTHS.values()]
        assert levels == sorted(set(levels))


# bounds on the quality


@given(top=st.integers(1, 40), limit=st.integers(-1, 45))
def test_the_largest_good_level_is_found_by_bisection(top: int, limit: int) -> None:
    made: list[int] = []

    def make(level: int) -> int:
        made.append(level)
        return level

    found = largest(top, make, lambda release: release <= limit)
    best = max((level for level in range(1, top + 1) if level <= limit), default=None)
    assert found == (None if best is None else (best, best))
    assert len(made) == len(set(made))
    assert len(made) <= 1 + math.ceil(math.log2(top)) if top > 1 else len(made) == 1


def test_a_bound_gets_the_largest_budget_that_keeps_it(pair: dict[str, str]) -> None:
    pixels = smooth()
    reports = {k: armory(pair, threat=f"linf:{k}/255").arm([pixels], [2])[0] for k in range(1, 9)}
    bound = (reports[5].report.psnr + reports[6].report.psnr) / 2
    armed = armory(pair, threat="linf:8/255", min_psnr=bound).arm([pixels], [2])[0]
    assert armed.report.eps == 5
    assert armed.report.psnr >= bound > reports[6].report.psnr
    assert np.array_equal(armed.pixels, reports[5].pixels)  # armed anew for that budget, not scaled


def test_a_picture_that_keeps_its_bound_is_armed_as_without_one(pair: dict[str, str]) -> None:
    pixels = smooth()
    free, bound = armory(pair).arm([pixels], [2])[0], armory(pair, min_psnr=10.0).arm([pixels], [2])[0]
    assert np.array_equal(free.pixels, bound.pixels)
    assert (free.report.eps, bound.report.eps) == (None, 8)


def test_a_bound_that_no_budget_keeps_refuses_the_picture(pair: dict[str, str], tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"quality: even a change of 1/255 gives a PSNR of 4\d\.\d\d dB, below 70; .*example"):
        armory(pair, min_psnr=70.0).arm([smooth()], [2])
    with pytest.raises(InputError, match="no whole level"):
        armory(pair, min_psnr=30.0, threat="linf:0.5/255").arm([smooth()], [2])
    paint(tmp_path / "in/a.png", 1)
    job = protect(ProtectJob((tmp_path / "in",), tmp_path / "out", jobs=1), armory(pair, min_psnr=70.0))
    assert [line.reason.partition(":")[0] for line in job.failed] == ["quality"]


def test_the_budget_is_in_the_line_and_the_bound_in_the_key(pair: dict[str, str], tmp_path: Path) -> None:
    data = paint(tmp_path / "a.png", 1).read_bytes()
    _, free = protect_bytes(data, armory(pair))
    _, bound = protect_bytes(data, armory(pair, min_psnr=36.0))
    _, again = protect_bytes(data, armory(pair, min_psnr=36.0))
    assert free.eps is None
    assert bound.eps is not None
    assert 1 <= bound.eps < 8
    assert bound.psnr is not None
    assert bound.psnr >= 36.0
    assert bound.key != free.key
    assert (bound.key, bound.out_sha256) == (again.key, again.out_sha256)


def test_the_summary_counts_the_budgets() -> None:
    lines = [Line(str(i), None, "armed", eps=eps) for i, eps in enumerate([3, 2, 3, None])]
    values = Summary.of(lines[:1], lines[1:], [], 0.0).values()
    assert values["budgets"] == {"2": 1, "3": 2}


weights = root() / "lpips_squeeze"


@pytest.mark.skipif(
    not all((weights / name).is_file() for name in (TRUNK, HEADS)), reason="needs the LPIPS-Squeeze weights in FOREARM_DATA"
)
def test_a_bound_on_lpips_is_kept_and_not_by_much(pair: dict[str, str]) -> None:
    pixels = smooth()
    x = as_tensor(pixels, "cpu")
    far = {}
    for k in (3, 4):
        far[k] = float(lpips(as_tensor(armory(pair, threat=f"linf:{k}/255").arm([pixels], [2])[0].pixels, "cpu"), x, weights))
    arms = armory(pair, max_lpips=(far[3] + far[4]) / 2, lpips=weights)
    assert far[3] < far[4]
    assert arms.arm([pixels], [2])[0].report.eps == 3
    assert len(str(arms.settings(48, 48)["lpips_sha256"])) == 64
    with pytest.raises(InputError, match="LPIPS cannot measure"):
        arms.arm([smooth()[:9]], [2])


def test_no_bounds_are_no_bounds() -> None:
    assert not Bounds.of(None, None, None)
    assert Bounds.of(None, None, None).settings() == {}
    assert Bounds.of(30.0, None, None)


# verify


@pytest.fixture
def files(pair: dict[str, str], tmp_path: Path) -> Pairing:
    paint(tmp_path / "a.png", 3, 40, 48)
    armed, _ = forearm.arm(tmp_path / "a.png", defense="mspd(copies=2)", label=3, survive="jpeg:75", strength="subtle", **pair)
    (tmp_path / "armed.png").write_bytes(armed)
    return Pairing(tmp_path / "armed.png", tmp_path / "a.png", 3, "linf:4/255")


@pytest.mark.parametrize(("survive", "size"), [("jpeg:60|none", (48, 40)), ("jpeg:85,resize:24,jpeg:75", (24, 20))])
def test_verify_measures_what_holds_after_the_channel(files: Pairing, pair: dict[str, str], survive: str, size: tuple[int, int]) -> None:
    chain, pixels = family(survive)[0], [decode(path).pixels for path in (files.original, files.armed)]
    targets = [pair["backbone"], pair["labeller"]]
    seen = next(verify([files], attack="pgd(steps=3)", targets=targets, survive=survive, **pair))
    found = seen.survival
    assert found is not None
    assert (found.chain, found.width, found.height) == (str(chain), *size)
    published = [(chain.exact(as_tensor(p, "cpu"))[0].permute(1, 2, 0) * 255).round().byte().numpy() for p in pixels]
    assert [found.margin_before, found.margin_after] == pytest.approx(Armory.open(**pair).margins(published, [3, 3]), abs=1e-4)  # type: ignore[arg-type]
    assert (found.margin_after > 0) == (found.says == seen.name)
    assert found.margin_after != pytest.approx(seen.margin_after, abs=1e-6)
    assert [target.name for target in found.targets] == ["backbone", "labeller"]
    assert summary([seen])["survival"]["files"] == 1
    assert json.loads(as_json([seen]))["files"][0]["survival"]["says"] == found.says


def test_without_a_channel_verify_says_nothing_of_one(files: Pairing, pair: dict[str, str]) -> None:
    seen = next(verify([files], attack="pgd(steps=1)", targets=[pair["backbone"]], **pair))
    assert seen.survival is None
    assert "survival" not in summary([seen])


def test_the_commands_take_the_options(pair: dict[str, str], tmp_path: Path) -> None:
    paint(tmp_path / "in/a.png", 3)
    paint(tmp_path / "in/sub/b.jpg", 4)
    models = ["--backbone", pair["backbone"]]
    made = CliRunner().invoke(
        app,
        ["protect", str(tmp_path / "in"), "-o", str(tmp_path / "out"), "--survive", "jpeg:75", "--strength", "subtle", "--min-psnr", "37",
         "--heat-map", str(tmp_path / "maps"), "--defense", "mspd(copies=2)", "--jobs", "1", "--labeller", pair["labeller"], *models],
    )  # fmt: skip
    assert made.exit_code == 0, made.stderr
    assert "budget " in made.stderr
    assert set(tree(tmp_path / "maps")) == {"a.png.png", "sub/b.jpg.png", "before_after.html"}
    seen = CliRunner().invoke(
        app, ["verify", str(tmp_path / "out"), "--survive", "social", "--attack", "pgd(steps=1)", "--target", pair["backbone"], *models]
    )
    assert seen.exit_code == 0, seen.output
    assert "After jpeg:85,resize:1080,jpeg:75" in seen.output
    assert "the label holds on" in " ".join(seen.output.split())
