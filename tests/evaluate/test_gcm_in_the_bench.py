"""What GCM is worth, on a small net through the whole bench: nearly everything to who does not know it, nothing to who does."""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

from forearm.attacks.fgsm import fgsm
from forearm.core.gradients import input_gradient
from forearm.core.noise import Noise
from forearm.core.precision import verdict
from forearm.core.threat import Threat
from forearm.defenses.inference.conceal import conceal
from forearm.errors import BudgetError
from forearm.evaluate import defense as parts
from forearm.evaluate.cell import Cell
from forearm.evaluate.chosen import Sources
from forearm.evaluate.matrix import Matrix, cells, matrix_from
from forearm.evaluate.statistics import paired_difference
from forearm.evaluate.store import Store
from forearm.jobs.train import write_weights
from forearm.models.architectures import ARCHITECTURES
from forearm.models.card import Card, write_card
from forearm.models.load import load_model
from forearm.models.weights import file_sum
from forearm.registry import bind
from tests.evaluate.controls import CLASSES, shapes

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"
ARCH, N = "cnn_a", 25
THREATS = {"l1": "l1:80", "l2": "l2:2", "linf": "linf:28/255"}
MATRIX = """
dataset = "npz(path='{folder}/shapes.npz')"
examples = {n}
masking = false
[[grid]]
models = ["{folder}/net"]
defenses = ["none", "conceal"]
attacks = ["fgsm", "pgd(random_start=False, step=3/40, steps=20)"]
threats = ["linf:28/255"]
[[grid]]
models = ["{folder}/net"]
defenses = ["none", "conceal"]
attacks = ["pgd(random_start=False, step=3/40, steps=20)"]
threats = ["l2:2"]
"""

TOGETHER = """
dataset = "npz(path='{folder}/shapes.npz')"
examples = 10
masking = false
[[grid]]
models = ["{folder}/net"]
defenses = ["none", "mspd", "conceal", "mspd+conceal"]
attacks = ["pgd(steps=20)", "apgd(steps=50)"]
threats = ["linf:28/255"]
"""


def pictures(n: int, seed: int, grain: float = 0.03) -> tuple[Tensor, Tensor]:
    """The controls' pictures, twice as large, under grain of that deviation, on the 8-bit grid. Without it they are made of equal pixels."""
    x, y = shapes(n, seed)
    x = F.interpolate(x, scale_factor=2)
    x = x + grain * torch.randn(x.shape, generator=torch.Generator().manual_seed(seed))
    return (x.clamp(0.0, 1.0) * 255.0).round() / 255.0, y


def write_net(folder: Path, seed: int) -> Path:
    """A natural net, trained in seconds."""
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        net: nn.Module = bind(ARCHITECTURES, ARCH)(classes=CLASSES)
    optimizer = torch.optim.AdamW(net.parameters(), lr=2e-3)
    for step in range(100):
        x, y = pictures(64, 1000 * seed + step)
        optimizer.zero_grad()
        F.cross_entropy(net(x), y).backward()
        optimizer.step()
    folder.mkdir()
    write_weights(net.eval(), folder / "weights.safetensors")
    sha256, named = file_sum(folder / "weights.safetensors"), tuple(str(k) for k in range(CLASSES))
    card = Card(name=folder.name, arch=ARCH, weights="weights.safetensors", sha256=sha256, classes=named, size=32)
    write_card(card, folder / "card.toml")
    return folder


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
    """`benchmarks/gcm_table.py` and `benchmarks/together.py`."""
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(BENCHMARKS))
        for name in ("claim", "gcm_table", "together"):
            patch.delitem(sys.modules, name, raising=False)  # and put back afterwards
        yield script("gcm_table"), script("together")
        for name in ("claim", "gcm_table", "together"):
            sys.modules.pop(name, None)


@pytest.fixture(scope="module")
def benchmark(scripts: tuple[ModuleType, ModuleType]) -> ModuleType:
    """`benchmarks/gcm_table.py`."""
    return scripts[0]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """`net`, `other` and `shapes.npz`; nobody writes into it."""
    made = tmp_path_factory.mktemp("gcm")
    write_net(made / "net", 1)
    write_net(made / "other", 2)
    x, y = pictures(30, 1)
    np.savez(made / "shapes.npz", x=(x * 255.0).round().to(torch.uint8).numpy(), y=y.numpy())
    return made


def part(benchmark: ModuleType, folder: Path, n: int = N) -> tuple[Matrix, list[Cell]]:
    """The matrix over the small net, and its extra cells."""
    matrix = matrix_from(MATRIX.format(folder=folder, n=n), "matrix")
    return matrix, benchmark.extra_cells(cells(matrix, Sources()), THREATS, {str(folder / "net"): str(folder / "other")})


def measured(benchmark: ModuleType, folder: Path, place: Path, n: int = N) -> dict[str, Any]:
    """What the benchmark finds on the small net."""
    matrix, extra = part(benchmark, folder, n)
    benchmark.make(matrix, extra, Store(place), 0)
    found: dict[str, Any] = benchmark.findings(Store(place), (*cells(matrix, Sources()), *extra))["net"]
    return found


@pytest.fixture(scope="module")
def found(benchmark: ModuleType, folder: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """The findings of the small net, once for the tests that only look."""
    return measured(benchmark, folder, tmp_path_factory.mktemp("store"))


PGD = ("PGD L1", "PGD L2", "PGD Linf")


def test_who_does_not_know_is_stopped(found: dict[str, Any]) -> None:
    """PGD takes the bare net's right answers and leaves the concealed net's: over 90 %, as published."""
    bare, gcm = found["published"]["vanilla"], found["published"]["GCM"]
    assert found["clean"]["value"] > 0.9
    assert bare["PGD Linf"]["ar"]["value"] < 0.1
    assert all(gcm[column]["ar"]["value"] > 0.9 for column in PGD)
    assert all(bare[column]["ar"]["value"] < 0.5 for column in PGD)


def test_who_knows_is_not(found: dict[str, Any]) -> None:
    """The worst case is the bare net's within the paired interval; with the bare gradient it is so picture by picture."""
    for norm, worst in found["worst"].items():
        low, high = worst["difference"]["interval"]
        assert low <= 0.0 <= high, norm
        assert worst["verdicts"] >= N
        assert worst["verdicts that differ"] == 0
        assert worst["GCM, its own gradient"]["value"] > worst["GCM"]["value"] + 0.4
    for norm in THREATS:
        right = found["knows"]["PGD, the bare model's gradient"][norm]["ar"]["value"]
        assert found["knows"]["PGD, signs put right by sign(cos)"][norm]["ar"]["value"] <= right + 0.1
        assert found["knows"]["PGD on another net, carried over"][norm]["ar"]["value"] < 0.9


def test_a_bench_whose_informed_attacker_knows_nothing_is_told(
    benchmark: ModuleType, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The mutant of the law above: unmasking that unmasks nothing, and nobody else who knows."""
    monkeypatch.setitem(parts.UNMASK, "conceal", parts.HARDEN["conceal"])
    plain = tuple(row for row in benchmark.EXTRA if row[0] in ("dense_pgd", *benchmark.CONTROLS))
    monkeypatch.setattr(benchmark, "EXTRA", plain)
    found = measured(benchmark, folder, tmp_path, 20)
    for worst in found["worst"].values():
        assert worst["difference"]["interval"][0] > 0.0
        assert worst["verdicts that differ"] > 0


def test_the_signs_are_put_right(benchmark: ModuleType, folder: Path) -> None:
    """sign(cos) gives the sign of the bare net's gradient at every value, on the 8-bit grid and off it; another omega half of them."""
    net, (x, y) = load_model(folder / "net"), pictures(8, 5)
    for shown in (x, (x + 0.01 * torch.rand(x.shape, generator=torch.Generator().manual_seed(0))).clamp(0.0, 1.0)):
        bare = input_gradient(net, shown, y)[0].sign()
        right = input_gradient(benchmark.unhashed(conceal(net)), shown, y)[0].sign()
        assert torch.equal(right, bare)
        for wrong in (conceal(net), benchmark.unhashed(conceal(net), omega=1e19)):
            share = float((input_gradient(wrong, shown, y)[0].sign() == bare).float().mean())
            assert 0.3 < share < 0.7


@pytest.mark.parametrize("grain", [0.03, 0.0])
def test_random_signs_do_as_well_as_fgsm_through_gcm(benchmark: ModuleType, folder: Path, grain: float) -> None:
    """At a budget where they hurt; the attack itself does much better. Where neighbours are equal so are their hashes, and GCM conceals less."""
    net, threat, (x, y) = load_model(folder / "net"), Threat.parse("linf:0.35"), pictures(400, 6, grain)
    noise = Noise.of(len(x))

    def right(x_adv: Tensor) -> NDArray[np.bool_]:
        kept: NDArray[np.bool_] = verdict(net, x_adv, y)[0].numpy()
        return kept

    drawn = right(benchmark.random_sign(benchmark.Scene(net, net, None), x, y, threat, noise))
    _, low, high = paired_difference(right(fgsm(conceal(net), x, y, threat=threat, noise=noise)), drawn)
    assert 0.8 < drawn.mean() < 0.97
    assert (low <= 0.0 <= high) if grain else high < 0.0
    assert paired_difference(drawn, right(fgsm(net, x, y, threat=threat, noise=noise)))[1] > 0.5


def test_pgd_through_gcm_walks_to_and_fro(benchmark: ModuleType, folder: Path) -> None:
    """The sign is a hash of the value, so steps are undone: the walk ends short of a random one, which grows with the root of its steps."""
    net, (x, y) = load_model(folder / "net"), pictures(40, 7)
    far = benchmark.walked(net, x, y, Threat.parse("linf:8/255"), Noise.of(len(x)))
    step = 8.0 * benchmark.STEP
    assert far["random walk"][-1] == pytest.approx(step * 20**0.5, rel=0.03)
    assert far["through GCM"][0] == far["bare"][0] == pytest.approx(step, rel=0.01)
    assert far["through GCM"][-1] < 0.6 * far["random walk"][-1]
    assert far["bare"][-1] > 1.5 * far["random walk"][-1]


def test_what_is_there_is_not_made_again(benchmark: ModuleType, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A block that is lost is made anew, the same to the byte; all others are left."""
    monkeypatch.setattr(benchmark, "EXTRA", (("random_sign", "none", False, ("linf",)), ("unhashed_pgd", "conceal", True, ("linf",))))
    _, extra = part(benchmark, folder, 30)
    store, asked = Store(tmp_path), []
    make, rows_of = benchmark.attacked_rows, [benchmark.make_extra(store, extra, Sources(), 0)]
    monkeypatch.setattr(benchmark, "attacked_rows", lambda *task: asked.append(task[0]) or make(*task))
    lost = tmp_path / "cells" / extra[1].key / "block-00001.parquet"
    before = lost.read_bytes()
    lost.unlink()
    assert not store.has(extra[1])
    benchmark.make_extra(store, extra, Sources(), 0)
    assert asked == [extra[1]]
    assert lost.read_bytes() == before
    assert all(store.has(cell) for cell in extra)
    assert rows_of == [None]


def test_who_leaves_his_ball_is_told(benchmark: ModuleType, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(benchmark, "EXTRA", (("random_sign", "none", False, ("linf",)),))
    monkeypatch.setitem(benchmark.ATTACKERS, "random_sign", lambda scene, x, y, threat, noise: (x + 2.0 * threat.eps).clamp(0.0, 1.0))
    _, extra = part(benchmark, folder, 10)
    with pytest.raises(BudgetError, match=r"random_sign, linf:28/255: a change of 0\.2\d+; at most 0\.109804 in linf"):
        benchmark.make_extra(Store(tmp_path), extra, Sources(), 0)


def test_together(scripts: tuple[ModuleType, ModuleType], folder: Path, tmp_path: Path) -> None:
    """Both defences on the small net: GCM takes nothing from who knows it, alone or beside MSPD, and the worst case is over all attackers."""
    benchmark, together = scripts
    pair = f'backbone = "{folder}/other"\nlabeller = "{folder}/other"\n'
    text = pair + TOGETHER.format(folder=folder)
    matrix = matrix_from(text, "matrix")
    found = cells(matrix, Sources())
    around = together.around_cells(found)
    benchmark.make(matrix, around, Store(tmp_path), 0)
    row = together.findings(Store(tmp_path), (*found, *around))["net"]
    made = row["defenses"]
    assert list(made) == ["none", "conceal", "mspd", "mspd+conceal"]
    for defense, one in made.items():
        known = [one[who]["value"] for who in ("knows nothing", "knows GCM alone", "knows all") if one[who]]
        assert one["worst"]["value"] <= min(known) + 1e-9, defense
    for both, alone in (("conceal", "none"), ("mspd+conceal", "mspd")):
        assert made[both]["knows nothing"]["value"] > made[alone]["knows nothing"]["value"] + 0.2
        assert made[both]["above the same without GCM"]["value"] == 0.0
    assert made["mspd+conceal"]["knows GCM alone"]["value"] < made["mspd+conceal"]["knows nothing"]["value"]
    assert made["none"]["knows all"] is None
    assert made["none"]["above none"]["value"] == 0.0
