"""The paper's table (`benchmarks/mspd_table.py`) on small nets: its units, what it derives from them, and what it does not claim."""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from forearm.attacks.pgd import pgd
from forearm.core.noise import Noise
from forearm.core.precision import verdict
from forearm.core.threat import Threat

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"
N, CLASSES = 30, 4
THREAT = Threat.parse("linf:8/255")


def script(name: str) -> ModuleType:
    """A benchmark by its file, whose neighbours can be imported."""
    spec = importlib.util.spec_from_file_location(name, BENCHMARKS / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    made = importlib.util.module_from_spec(spec)
    sys.modules[name] = made  # where its dataclasses look for themselves
    spec.loader.exec_module(made)
    return made


@pytest.fixture(scope="module")
def scripts() -> Iterator[tuple[ModuleType, ModuleType]]:
    """mspd_units, mspd_table; gone from the import system afterwards."""
    before = set(sys.modules)
    sys.path.insert(0, str(BENCHMARKS))
    try:
        yield script("mspd_units"), script("mspd_table")
    finally:
        sys.path.remove(str(BENCHMARKS))
        for name in set(sys.modules) - before:
            if getattr(sys.modules[name], "__file__", None) and Path(str(sys.modules[name].__file__)).parent == BENCHMARKS:
                del sys.modules[name]


@pytest.fixture(scope="module")
def units(scripts: tuple[ModuleType, ModuleType]) -> Any:
    return scripts[0]


@pytest.fixture(scope="module")
def table(scripts: tuple[ModuleType, ModuleType]) -> Any:
    return scripts[1]


def linear(seed: int) -> nn.Module:
    """A frozen linear net on pictures of 8 x 8."""
    generator = torch.Generator().manual_seed(seed)
    layer = nn.Linear(3 * 8 * 8, CLASSES)
    layer.weight.data = torch.randn(CLASSES, 3 * 8 * 8, generator=generator) / 3
    layer.bias.data.zero_()
    return nn.Sequential(nn.Flatten(), layer).eval().requires_grad_(False)


def bench(units: Any, folder: Path, monkeypatch: pytest.MonkeyPatch, weights: str = "1") -> Any:
    """Thirty drawn pictures; a backbone, two robust targets and a natural one. True labels: the backbone's, a third of them turned."""
    monkeypatch.setattr(units, "RUNS", folder)
    x = torch.randint(0, 256, (N, 3, 8, 8), generator=torch.Generator().manual_seed(0)).float() / 255
    kinds = {"backbone": "backbone", "first": "robust", "second": "robust", "natural": "natural"}
    models = {name: linear(seed) for seed, name in enumerate(kinds)}
    nets = {name: units.Net(kind, f"{name}{weights}", 8, *([models[name]] * 3)) for name, kind in kinds.items()}
    coupled = models["backbone"](x).argmax(1)
    turned = torch.arange(N) % 3 == 0
    decoupled, y = torch.where(turned, (coupled + 1) % CLASSES, coupled), models["first"](x).argmax(1)
    labels = {"decoupled": decoupled, "coupled": coupled, "given": y}
    return units.Bench("cifar10", x, y, labels, THREAT, nets, ("lost",), {"backbone": f"b{weights}", "labeller": "l"})


def unit(units: Any, target: str, way: str, release: str, labels: str = "decoupled", start: int = 0) -> Any:
    return units.Unit(0, start, target, way, release, labels)


def test_a_unit_with_other_labels_is_what_it_is_without_the_shortcut(units: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = bench(units, tmp_path, monkeypatch)
    x, y, ids = made.x[:25], made.y[:25], torch.arange(25)
    for labels in ("coupled", "given"):
        whole = made.protect("mspd", x, made.labels[labels][:25], ids)
        assert torch.equal(made.release("mspd", labels, 0), whole)
        clean, robust = units.struck(made.nets["first"], made.nets["backbone"], units.WAYS["cifar10"]["PGD-50"], whole, y, ids)
        found = made.flags(unit(units, "first", "PGD-50", "mspd", labels))
        assert torch.equal(found[0], clean)
        assert torch.equal(found[1], robust)
    assert not torch.equal(made.release("mspd", "decoupled", 0), made.release("mspd", "given", 0))


def test_what_is_done_is_read_and_other_weights_are_done_anew(units: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made, one = bench(units, tmp_path, monkeypatch), unit(units, "first", "FGSM", "mspd")
    first = made.flags(one)
    monkeypatch.setattr(units, "struck", lambda *_: pytest.fail("done again"))
    assert torch.equal(made.flags(one)[1], first[1])
    assert not bench(units, tmp_path, monkeypatch, weights="2").unit_file(one).exists()
    assert not made.unit_file(unit(units, "first", "FGSM", "mspd", start=25)).exists()
    assert not list(tmp_path.rglob("*.part"))


def test_an_attack_that_leaves_its_ball_is_refused(units: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def cheat(model: Any, x: Tensor, y: Tensor, *, threat: Threat, noise: Noise) -> Tensor:
        return (x + 2 * threat.eps).clamp(0, 1)

    made = bench(units, tmp_path, monkeypatch)
    monkeypatch.setattr(units.forearm, "attack", lambda spec: cheat, raising=False)
    with pytest.raises(units.BudgetError, match=r"at most 0\.03"):
        made.flags(unit(units, "first", "FGSM", "none"))


def test_around_the_original_is_what_an_attack_there_gives(units: Any, table: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = bench(units, tmp_path, monkeypatch)
    wanted = [unit(units, "first", "PGD-50", release) for release in ("none", "mspd")]
    for one in wanted:
        made.flags(one)
    found = table.collected(made, wanted)
    rows = found["first", table.ORIGINAL, "mspd", "decoupled"]
    model, x, y = made.nets["first"].model, made.x[:25], made.y[:25]
    released = made.release("mspd", "decoupled", 0)
    x_adv = pgd(model, x, y, threat=THREAT, noise=Noise(1, torch.arange(25)), steps=50)  # the ball around the original
    stands = verdict(model, released, y)[0] & verdict(model, x, y)[0] & verdict(model, x_adv, y)[0]
    assert [rows[i][1] for i in range(25)] == stands.tolist()
    around = found["first", "PGD-50", "mspd", "decoupled"]
    assert sum(right for _, right in around.values()) > int(stands.sum())
    wrong = {
        ("first", "PGD-50", "none", "decoupled"): {0: (True, True)},
        ("first", "PGD-50", "mspd", "decoupled"): {0: (False, False), 1: (True, True)},
    }
    assert table.around_original(made, wrong)["first", table.ORIGINAL, "mspd", "decoupled"] == {0: (False, False)}


def test_a_mean_has_all_targets_and_an_interval_even_where_all_end_alike(table: Any) -> None:
    lost = dict.fromkeys(range(4), (True, False))
    kept = dict.fromkeys(range(3), (True, True))
    assert table.mean([lost, kept])["value"] == 0.5
    assert table.mean([lost, kept])["n"] == 3
    assert table.mean([lost, {}]) is None
    assert table.mean([kept], [lost]) == {"value": 1.0, "interval": [table.mean([kept], [lost])["interval"][0], 1.0], "n": 3}
    low, high = table.mean([lost])["interval"]
    assert low == 0.0
    assert high > 0.3
    low, high = table.mean([lost], [lost])["interval"]
    assert low < 0 < high


def test_the_worst_case_counts_pictures_that_every_attack_saw(
    units: Any, table: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = bench(units, tmp_path, monkeypatch)
    ways = [name for name, way in units.WAYS["cifar10"].items() if way.threat == "linf:8/255"]
    found = {("first", way, "mspd", "decoupled"): {0: (True, True), 1: (True, True), 2: (True, True)} for way in ways}
    found["first", ways[0], "mspd", "decoupled"] = {0: (True, False), 1: (True, True)}
    assert table.worst(made, found) == {("first", table.WORST, "mspd", "decoupled"): {0: (True, False), 1: (True, True)}}
    found["first", ways[1], "mspd", "decoupled"] = {}
    assert table.worst(made, found) == {}


def test_the_order_and_the_sizes(units: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = bench(units, tmp_path, monkeypatch)
    planned = made.units(strong=25)
    assert len({made.unit_file(one) for one in planned}) == len(planned)
    assert [one.stage for one in planned] == sorted(one.stage for one in planned)
    asked = {(made.nets[one.target].kind, one.way) for one in planned}
    assert {way for kind, way in asked if kind == "natural"} == {"FGSM", "PGD-50", "MI-FGSM, carried over"}
    assert {one.start for one in planned if one.release == "bilevel"} == {0}
    assert {one.start for one in planned if one.way == "AutoAttack"} == {0}
    assert {one.start for one in planned if one.way == "PGD-50" and one.release == "mspd"} == {0, 25}
    assert not [one for one in planned if one.release == "none" and one.labels != "decoupled"]
    assert {one.release for one in planned if one.way == "AutoAttack"} == {"none", "s_fgsm", "mspd"}


def test_a_run_cut_short_says_what_is_missing_and_claims_nothing_from_less(
    units: Any, table: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    said: list[dict[str, Any]] = []
    monkeypatch.setattr(table, "record", lambda *words, **values: said.append({"value": words[2], "unit": words[3]} | values))
    made = bench(units, tmp_path, monkeypatch)
    planned = made.units(strong=25)
    assert table.summed(made, planned) is None
    for one in [one for one in planned if one.way in ("PGD-50", "FGSM") and one.release in ("none", "mspd") and one.target == "first"]:
        made.flags(one)
    half = table.summed(made, planned)
    assert half["means"]["targets"] == ["first"]
    assert any(line.startswith("AutoAttack, mspd, decoupled: ") and "first 0 of 25" in line for line in half["not measured"])
    assert half["absent"] == ["lost"]
    table.recorded({"cifar10": half}, N)
    assert said[-1]["unit"].startswith("points of PGD-50")
    assert said[-1]["holds"] is False
    table.recorded({}, N)
    assert len(said) == 1
    strong = [one for one in planned if one.way == "AutoAttack" and one.release in ("none", "mspd") and one.target == "first"]
    for one in strong:
        units.written(made.unit_file(one), units.json.dumps({"clean": [True] * 25, "robust": [one.release == "mspd"] * 25}).encode())
    table.recorded({"cifar10": table.summed(made, planned)}, N)
    assert said[-1]["unit"].startswith("points of AutoAttack")
    assert said[-1]["value"] == 100.0
    assert said[-1]["holds"] is True
    cells = half["targets"]["first"]["attacks"]["PGD-50"]["mspd"]
    assert set(cells) == {"decoupled", "coupled", "given"}
    assert cells["given"]["robust"]["n"] == N


@pytest.mark.parametrize(("way", "low", "holds"), [("AutoAttack", 0.1, True), ("AutoAttack", -0.1, False), ("PGD-50", 0.1, False)])
def test_the_claim_holds_under_the_strongest_attack_alone(
    table: Any, monkeypatch: pytest.MonkeyPatch, way: str, low: float, holds: bool
) -> None:
    said: list[dict[str, Any]] = []
    monkeypatch.setattr(table, "record", lambda *words, **values: said.append(values))
    won = {"value": 0.2, "interval": [low, 0.3], "n": 50}
    means = {"targets": ["first"], "ways": {way: {"mspd": {"decoupled": {"above none": won}}}}}
    table.recorded({"cifar10": {"means": means}}, N)
    assert said[0]["holds"] is holds


def test_the_plan_times_what_is_left(
    units: Any, table: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    made = bench(units, tmp_path, monkeypatch)
    some = [one for one in made.units(strong=25) if one.target == "first" and one.way in ("FGSM", "AutoAttack")]
    assert table.planned(made, some) > 0
    lines = capsys.readouterr().out
    assert "AutoAttack                      75 pictures" in lines
    for one in [one for one in some if one.way == "FGSM"]:
        made.flags(one)
    table.planned(made, some)
    assert "FGSM" not in capsys.readouterr().out
