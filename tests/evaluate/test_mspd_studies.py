"""The studies of MSPD (`benchmarks/mspd_{ablation,reversion,purifiers,lemmas}.py`) on small nets: their units, their figures, their verdicts."""

from __future__ import annotations

import importlib.util
import json
import math
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"
SCRIPTS = ("mspd_gain", "mspd_units", "mspd_table", "mspd_cells", "mspd_remover", "mspd_probes")
STUDIES = ("mspd_ablation", "mspd_reversion", "mspd_purifiers", "mspd_lemmas")
N, PART, CLASSES, SIDE = 30, 20, 2, 8
NETS = ("cifar10_backbone", "resnet2b", "cnn_a_adv4")  # the studies' targets here; the probes have a natural one more


@pytest.fixture(scope="module")
def scripts() -> Iterator[SimpleNamespace]:
    """The benchmarks by name, without `mspd_`; gone from the import system afterwards."""
    before = set(sys.modules)
    sys.path.insert(0, str(BENCHMARKS))
    made: dict[str, ModuleType] = {}
    try:
        for name in (*SCRIPTS, *STUDIES):
            spec = importlib.util.spec_from_file_location(name, BENCHMARKS / f"{name}.py")
            assert spec is not None
            assert spec.loader is not None
            made[name] = importlib.util.module_from_spec(spec)
            sys.modules[name] = made[name]
            spec.loader.exec_module(made[name])
        yield SimpleNamespace(**{name.removeprefix("mspd_"): module for name, module in made.items()})
    finally:
        sys.path.remove(str(BENCHMARKS))
        for name in set(sys.modules) - before:
            if getattr(sys.modules[name], "__file__", None) and Path(str(sys.modules[name].__file__)).parent == BENCHMARKS:
                del sys.modules[name]


def linear(seed: int) -> nn.Module:
    """A frozen linear net of two classes: the sign of its loss's gradient is the same everywhere."""
    generator = torch.Generator().manual_seed(seed)
    layer = nn.Linear(3 * SIDE * SIDE, CLASSES)
    layer.weight.data = torch.randn(CLASSES, 3 * SIDE * SIDE, generator=generator) / 3
    layer.bias.data.zero_()
    return nn.Sequential(nn.Flatten(), layer).eval().requires_grad_(False)


def stand(scripts: SimpleNamespace, folder: Path, monkeypatch: pytest.MonkeyPatch, weights: str = "1", more: tuple[str, ...] = ()) -> Any:
    """Thirty drawn pictures away from black and white; the nets of the studies, all linear. True labels: the first held-out net's."""
    monkeypatch.setattr(scripts.cells, "RUNS", folder)
    monkeypatch.setattr(scripts.cells, "PART", PART)
    for module in (scripts.cells, scripts.reversion):
        monkeypatch.setattr(module, "ATTACK", "pgd(steps=5, stop=True)")
    monkeypatch.setattr(scripts.cells, "FIGURES", folder)
    for study in ("ablation", "reversion", "purifiers", "lemmas"):
        monkeypatch.setattr(getattr(scripts, study), "FIGURES", folder)
    x = torch.randint(60, 196, (N, 3, SIDE, SIDE), generator=torch.Generator().manual_seed(0)).float() / 255
    names = (*NETS, *more)
    kinds = {name: "natural" if name in scripts.cells.NATURAL else "robust" for name in names}
    kinds[scripts.cells.BACKBONE] = "backbone"
    models = {name: linear(seed) for seed, name in enumerate(names)}
    targets = {name: scripts.gain.Target(name, kinds[name], models[name], models[name]) for name in names}
    said = models[scripts.cells.BACKBONE](x).argmax(1)
    sums = dict.fromkeys((*names, "labeller"), weights)
    return scripts.cells.Stand(folder / "study", x, models["resnet2b"](x).argmax(1), said, targets, targets, sums, ())


def test_a_unit_is_measured_once_and_again_for_other_weights(
    scripts: SimpleNamespace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made: list[int] = []

    def make(stand: Any, start: int) -> dict[str, Any]:
        made.append(start)
        return {"verdicts": {name: [[True, start == 0]] * len(stand.ids(start)) for name in stand.targets}}

    rows = {"one": scripts.cells.Row("one", make), "two": scripts.cells.Row("two", make, late=True)}
    here = stand(scripts, tmp_path, monkeypatch)
    scripts.cells.run(here, rows, -1.0)
    assert made == []
    assert scripts.cells.missing(here, rows) == [f"one: 0 of {N} pictures", f"two: 0 of {N} pictures"]
    for _ in range(2):
        scripts.cells.run(here, rows, math.inf)
    assert made == [0, 0, PART, PART]
    assert scripts.cells.missing(here, rows) == []
    found = scripts.cells.verdicts_of(here, rows)["one"]["resnet2b"]
    assert [found[i][1] for i in range(N)] == [True] * PART + [False] * (N - PART)
    scripts.cells.run(stand(scripts, tmp_path, monkeypatch, "2"), rows, math.inf)
    assert len(made) == 8


def test_a_release_is_kept_and_keeps_its_budget(scripts: SimpleNamespace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    here = stand(scripts, tmp_path, monkeypatch)
    first = here.release("mspd(copies=2)", 0)
    change = ((first - here.x[:PART]) * 255).round().abs()
    assert change.max() == 8
    assert torch.equal(first * 255, (first * 255).round())
    monkeypatch.setattr(scripts.cells, "releases", None)
    assert torch.equal(here.release("mspd(copies=2)", 0), first)
    with pytest.raises(TypeError):
        here.release("mspd(copies=2)", PART)


def test_an_ablation_leaves_a_rows_backbone_out(scripts: SimpleNamespace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    here = stand(scripts, tmp_path, monkeypatch)
    names = ("none", "mspd", "N = 1", "eps 4/255", "resnet2b", "F1-B2, no smoothing")
    rows = {name: scripts.ablation.SETTINGS[name].row() for name in names}
    scripts.cells.run(here, rows, math.inf)
    found = scripts.ablation.summed(here, rows)
    assert json.loads(json.dumps(found)) == found
    settings = found["settings"]
    assert "resnet2b" not in settings["resnet2b"]["held out"]["targets"]
    assert "resnet2b" in settings["mspd"]["held out"]["targets"]
    assert settings["mspd"]["targets"][scripts.cells.BACKBONE]["robust"]["n"] == N
    assert settings["eps 4/255"]["psnr"] > settings["mspd"]["psnr"] + 5
    for name in ("F1-B2, no smoothing", "resnet2b"):
        assert settings[name]["held out"]["above none"]["n"] == N
    scripts.ablation.draw(settings)
    assert (tmp_path / "mspd_ablation.png").stat().st_size > 5000


def test_who_knows_everything_restores_a_linear_models_pictures(
    scripts: SimpleNamespace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    here = stand(scripts, tmp_path, monkeypatch)
    rows = scripts.reversion.rows_of(here)
    kept = {
        name: rows[name] for name in ("none", "mspd", "reverts, knows everything", "reverts, not eps (takes 4/255)", "purifies, JPEG 75")
    }
    kept[scripts.reversion.COUNTED] = rows[scripts.reversion.COUNTED]
    scripts.cells.run(here, kept, math.inf)
    attackers = scripts.reversion.summed(here, kept)["attackers"]
    assert attackers["reverts, knows everything"]["restored"] == 1.0
    assert attackers["reverts, not eps (takes 4/255)"]["restored"] < 0.5
    backbone = attackers["reverts, knows everything"]["targets"][scripts.cells.BACKBONE]
    assert backbone["above none"]["value"] == 0.0
    free, counted = (attackers[name]["targets"] for name in ("mspd", scripts.reversion.COUNTED))
    assert all(counted[name]["robust"]["value"] <= free[name]["robust"]["value"] for name in free)
    scripts.reversion.draw(attackers)
    assert (tmp_path / "mspd_reversion.png").stat().st_size > 5000


def test_the_law_tells_a_release_that_is_worse_off(scripts: SimpleNamespace) -> None:
    def cell(value: float, low: float, high: float) -> dict[str, Any]:
        return {"above none": {"value": value, "interval": [low, high], "n": 50}}

    attackers = {
        "none": {"targets": {"a": {}}},
        "mspd": {"targets": {"a": cell(0.2, 0.1, 0.3), "b": cell(-0.02, -0.05, 0.01)}},
        "worse": {"targets": {"a": cell(-0.1, -0.15, -0.05), "b": cell(0.0, -0.01, 0.01)}},
    }
    found = scripts.reversion.law(attackers)
    assert found["wholly below"] == ["worse, a"]
    assert found["below"] == ["mspd, b", "worse, a"]
    assert (found["least bound"]["attacker"], found["least bound"]["target"]) == ("worse", "a")
    assert (found["cells"], found["wholly above"]) == (4, 1)


def drawn_pairs(count: int) -> tuple[Tensor, Tensor]:
    """Pictures, and releases whose change a small net can read off: eight levels by the row's parity."""
    x = torch.randint(60, 196, (count, 3, SIDE, SIDE), generator=torch.Generator().manual_seed(1), dtype=torch.uint8) // 40 * 40
    change = torch.where(torch.arange(SIDE) % 2 == 0, 8, -8).reshape(1, 1, SIDE, 1)
    return x, (x.int() + change).to(torch.uint8)


def test_the_remover_learns_and_resumes(scripts: SimpleNamespace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scripts.remover, "pairs", lambda folder, backbone, count, threat: drawn_pairs(count))
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    whole.mkdir()
    broken.mkdir()
    net = scripts.remover.learned(whole, "b", scripts.cells.THREAT, count=100, epochs=6)
    x, armed = (part.float() / 255 for part in drawn_pairs(100))
    assert (net(armed) - x).abs().mean() < 0.6 * (armed - x).abs().mean()
    assert (net(armed) - armed).abs().max() <= scripts.cells.THREAT.eps + 1e-6

    def stop(*args: object, **named: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(scripts.remover, "print", stop, raising=False)
        with pytest.raises(KeyboardInterrupt):
            scripts.remover.learned(broken, "b", scripts.cells.THREAT, count=100, epochs=6)
    resumed = scripts.remover.learned(broken, "b", scripts.cells.THREAT, count=100, epochs=6)
    assert torch.equal(resumed(armed), net(armed))


def test_the_learned_remover_is_an_attacker(scripts: SimpleNamespace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    here = stand(scripts, tmp_path, monkeypatch)
    monkeypatch.setattr(scripts.remover, "pairs", lambda folder, backbone, count, threat: drawn_pairs(count))
    here.folder.mkdir()
    trained = scripts.remover.learned
    monkeypatch.setattr(
        scripts.reversion, "learned", lambda folder, backbone, threat: trained(folder, backbone, threat, count=100, epochs=1)
    )
    name = next(iter(scripts.reversion.PAIRS))
    rows = {key: row for key, row in scripts.reversion.rows_of(here).items() if key in ("none", name, name + scripts.reversion.ALIKE)}
    scripts.cells.run(here, rows, math.inf)
    attackers = scripts.reversion.summed(here, rows)["attackers"]
    assert 0.0 < attackers[name]["levels"] <= 16.0
    assert f"above {name}{scripts.reversion.ALIKE}" in attackers[name]["targets"]["resnet2b"]


def test_what_a_channel_leaves(scripts: SimpleNamespace) -> None:
    def rows(right: int) -> dict[str, Any]:
        return {"t": {i: (True, i < right) for i in range(40)}}

    found = {"none": rows(8), "mspd": rows(28), "none, blur": rows(6), "mspd, blur": rows(16)}
    kept = scripts.purifiers.left(found, ["t"], "blur")
    assert kept["value"] == pytest.approx(0.5)
    assert kept["interval"][0] < 0.5 < kept["interval"][1]
    assert scripts.purifiers.left(found | {"mspd": rows(8)}, ["t"], "blur") is None


def test_purifiers_are_told_by_pairs(scripts: SimpleNamespace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    here = stand(scripts, tmp_path, monkeypatch)
    rows = {name: row for name, row in scripts.purifiers.rows_of([]).items() if name.endswith(("none", "mspd", "4 bits", "sigma 1"))}
    scripts.cells.run(here, rows, math.inf)
    channels = scripts.purifiers.summed(here, rows)["channels"]
    assert list(channels) == ["", "4 bits", "Gaussian, sigma 1"]
    assert channels[""]["mspd"]["targets"][scripts.cells.BACKBONE]["above none"]["value"] > 0
    assert "kept" in channels["4 bits"]
    scripts.purifiers.draw(channels)
    assert (tmp_path / "mspd_purifiers.png").stat().st_size > 5000


def test_rank_correlation(scripts: SimpleNamespace) -> None:
    lemmas = scripts.lemmas
    assert lemmas.ranks(torch.tensor([3.0, 1.0, 3.0, 2.0]).numpy()).tolist() == [3.5, 1.0, 3.5, 2.0]
    rising = lemmas.correlation([1, 2, 3, 4, 5, 6], [1, 8, 27, 64, 125, 216])
    assert rising["value"] == pytest.approx(1.0)
    assert rising["p"] == pytest.approx(1 / 720, abs=2e-3)
    assert lemmas.correlation([1, 2, 3, 4, 5, 6], [6, 5, 4, 3, 2, 1])["p"] > 0.99
    assert lemmas.correlation([1, 2, 3], [1, 1, 1])["value"] is None


def test_the_variances_slope_decides(scripts: SimpleNamespace) -> None:
    lemmas = scripts.lemmas

    def cell(power: float) -> dict[str, Any]:
        return {"variance": {f"{name}, {n}": [1.0 / n**power] * 5 for name in ("forward epoch", "release") for n in lemmas.COPIES}}

    assert lemmas.third_lemma([cell(1.0)])["forward epoch"]["slope"]["value"] == pytest.approx(-1.0)
    assert lemmas.third_lemma([cell(1.0)])["holds"]
    assert not lemmas.third_lemma([cell(0.5)])["holds"]


def test_all_probes_run(scripts: SimpleNamespace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    here = stand(scripts, tmp_path, monkeypatch, more=("resnet56_a",))
    monkeypatch.setattr(scripts.probes, "TARGETS", NETS)
    monkeypatch.setattr(scripts.lemmas, "TARGETS", NETS)
    monkeypatch.setattr(scripts.lemmas, "UNSEEN", NETS[1:])
    for module in (scripts.probes, scripts.lemmas):
        monkeypatch.setattr(module, "EPOCHS", (0, 1, 2))
    monkeypatch.setattr(scripts.lemmas, "LAST", 2)
    scripts.cells.run(here, scripts.probes.ROWS, math.inf)
    found = scripts.lemmas.summed(here)
    assert json.loads(json.dumps(found)) == found
    lemmas = found["lemmas"]
    own = lemmas["1"]["targets"][scripts.cells.BACKBONE]
    assert own["cosine"] == pytest.approx(1.0)
    assert own["signs"] == 1.0
    assert abs(lemmas["1"]["targets"]["resnet56_a"]["cosine"]) < 0.3
    assert lemmas["4"]["error, levels"]["nothing"]["value"] == 0.0
    assert lemmas["4"]["error, levels"]["not reverted"]["value"] > 5.0
    assert set(lemmas["2"]["loss"]) == {f"{which}, {who}" for which in ("plain", "attacked") for who in ("backbone", "held out")}
    scripts.lemmas.draw(lemmas)
    assert (tmp_path / "mspd_lemmas.png").stat().st_size > 5000
