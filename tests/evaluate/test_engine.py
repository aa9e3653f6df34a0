"""The engine against an obvious loop, and what its rows must not depend on."""

from __future__ import annotations

import dataclasses
import shutil
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from forearm.attacks.table import ATTACKS
from forearm.core.channel import jpeg
from forearm.core.losses import margin
from forearm.core.noise import Noise
from forearm.core.precision import fast, folded
from forearm.core.quantize import release, to_8bit
from forearm.core.threat import Threat
from forearm.defenses.inference.table import INFERENCE, Inference
from forearm.defenses.preemptive.ensemble import Ensemble
from forearm.defenses.preemptive.mcgs import mcgs
from forearm.defenses.preemptive.reversion import revert
from forearm.errors import BudgetError
from forearm.evaluate import engine
from forearm.evaluate.cell import Cell
from forearm.evaluate.engine import Bench, as_pictures, audit_block, masking_block, released_block
from forearm.evaluate.lanes import LANES, Lanes
from forearm.evaluate.statistics import worst_case
from forearm.models.load import load_model
from forearm.registry import bind
from tests.evaluate.bench import block_of, cells_of, matrix_text

THREAT = Threat.parse("linf:1/255")


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """As every worker of an audit has: several threads share a batch out by its places."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def cell_of(bench: Path, attack: str = "pgd(steps=3)", defense: str = "none", threat: str = "linf:1/255", **changes: object) -> Cell:
    """One cell; the attack need not be one that a matrix allows."""
    informed = bool(changes.pop("informed", False))
    cell = cells_of(bench, matrix_text(bench, '"fgsm"', f'"{defense}"', f'"{threat}"'))[-1]
    return dataclasses.replace(cell, attack=attack, informed=informed, **changes)  # type: ignore[arg-type]


def rows_of(bench: Path, cell: Cell, batch: int = 25, n: int = 25) -> dict[str, np.ndarray]:
    block = block_of(bench, cell).part(slice(0, n))
    return audit_block(cell, block, released_block(cell, block), batch)


def test_the_pipeline_is_this_loop(bench: Path) -> None:
    """Release, wear, revert, attack, judge: one picture after another, written down once more."""
    cell = cell_of(bench, "pgd(steps=3)", "mspd(copies=2)", informed=True, wear="jpeg(quality=90)", seed=5)
    n, found = 14, rows_of(bench, cell, n=14)
    victim, backbone, labeller = (load_model(bench / name) for name in ("victim", "backbone", "labeller"))
    block, twin = block_of(bench, cell), fast(victim)
    for i in range(n):
        x, y, ids = as_pictures(block.pixels[i : i + 1]), torch.from_numpy(block.y[i : i + 1]), torch.tensor([i])
        label = labeller(x).argmax(1)
        released = release(mcgs(fast(backbone), x, label, threat=THREAT, noise=Noise(5, ids), copies=2), x, THREAT)
        worn = jpeg(released, noise=Noise(0, ids), quality=90)
        assert found["clean"][i] == (victim(x).argmax(1) == y).item()
        assert found["protected"][i] == (victim(worn).argmax(1) == y).item()
        if not found["protected"][i]:
            assert (found["robust"][i], found["distance"][i], found["changed"][i]) == (False, 0.0, False)
            assert found["margin"][i] == pytest.approx(float(margin(victim(worn), y)), abs=1e-3)
            continue
        back = to_8bit(revert(fast(backbone), worn, protector=lambda *a, **k: mcgs(*a, **k, copies=2), threat=THREAT, noise=Noise(5, ids)))
        attacker = bind(ATTACKS, "pgd(steps=3)")
        x_adv = attacker(Lanes(victim), back, y, threat=THREAT, noise=Noise(5, ids).stream("attack"), twin=Lanes(twin))
        assert found["robust"][i] == (victim(x_adv).argmax(1) == y).item()
        assert found["distance"][i] == pytest.approx(float((x_adv - back).abs().max()), abs=1e-7)
        assert found["margin"][i] == pytest.approx(float(margin(victim(x_adv), y)), abs=1e-3)
        assert found["changed"][i]
    assert 0 < found["robust"].sum() < found["protected"].sum() < n


SPECS = [
    ("pgd(steps=4, stop=True)", "none", "linf:1/255"),
    ("pgd(steps=4)", "none", "l2:0.1"),
    ("apgd(steps=6)", "conceal", "linf:1/255"),
    ("apgd(steps=6)", "none", "l1:1"),
    ("square(queries=12)", "mspd(copies=2)", "linf:1/255"),
    ("ddn(steps=8)", "none", "l2:0.2"),
    ("fab(steps=3)", "none", "linf:1/255"),
    ("ffa(steps=3)", "none", "linf:1/255"),
    ("mi_fgsm(steps=3)", "jpeg", "linf:1/255"),
    ("pgd(steps=3)", "resize_pad", "linf:1/255"),
    ("apgd(steps=3)", "noise+s_fgsm", "targeted:linf:1/255"),
    ("autoattack(steps=2, queries=4, targets=2)", "none", "linf:1/255"),
]


@pytest.mark.parametrize(("attack", "defense", "threat"), SPECS, ids=[f"{a}, {d}, {t}" for a, d, t in SPECS])
def test_a_batch_of_seven_and_of_sixty_four_give_the_same_rows(bench: Path, attack: str, defense: str, threat: str) -> None:
    for informed in (False, True):
        cell = cell_of(bench, attack, defense, threat, informed=informed)
        first, second = rows_of(bench, cell, 7, 9), rows_of(bench, cell, 64, 9)
        for name in first:
            assert np.array_equal(first[name], second[name]), name
        assert not (first["robust"] & ~first["protected"]).any()


@pytest.mark.parametrize(("attack", "defense"), [("pgd(steps=3)", "none"), ("mi_fgsm(steps=3)", "jpeg"), ("fgsm", "resize_pad")])
def test_so_they_do_by_transfer(bench: Path, attack: str, defense: str) -> None:
    cell = transfer_cell(bench, attack, defense, informed=defense != "none")
    first, second = rows_of(bench, cell, 7, 9), rows_of(bench, cell, 64, 9)
    for name in first:
        assert np.array_equal(first[name], second[name]), name


def test_an_example_has_its_own_randomness(bench: Path) -> None:
    """Of a model that draws: neither its neighbours nor what was drawn before change an example's row, and nothing is drawn outside."""
    cell = cell_of(bench, "pgd(steps=2)", "noise(eps=1/8)")
    torch.manual_seed(7)
    before = torch.random.get_rng_state()
    whole = rows_of(bench, cell, n=10)
    assert torch.equal(torch.random.get_rng_state(), before)
    block = block_of(bench, cell).part(slice(4, 7))
    part = audit_block(cell, block, released_block(cell, block))
    for name in whole:
        assert np.array_equal(whole[name][4:7], part[name]), name
    other = rows_of(bench, dataclasses.replace(cell, seed=1), n=10)
    assert not np.array_equal(whole["margin"], other["margin"])


class Draws(nn.Module):
    """A defence that draws from torch's generator."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.model((x + 0.1 * torch.randn_like(x)).clamp(0.0, 1.0))
        return logits


def draws(model: nn.Module) -> nn.Module:
    """The hardened model of `Draws`."""
    return Draws(model)


def test_a_random_model_that_is_not_called_random_depends_on_its_batch(bench: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The mutant of the laws above: without the flag they do not hold."""
    from forearm.evaluate import defense as parts

    monkeypatch.setitem(parts.HARDEN, "draws", f"{__name__}:draws")
    monkeypatch.setitem(parts.UNMASK, "draws", f"{__name__}:draws")
    for random in (True, False):
        monkeypatch.setitem(INFERENCE, "draws", Inference("", None, random, ""))
        cell = cell_of(bench, "fgsm", "draws")
        first, second = rows_of(bench, cell, 3, 9), rows_of(bench, cell, 9, 9)
        assert np.array_equal(first["margin"], second["margin"]) is random


class Crowded(nn.Module):
    """A model that looks at how many pictures it is given, as kernels do in their last bits, only more so."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.model(x * (1.0 - 1e-3 * len(x)))
        return logits


def crowded(model: nn.Module) -> nn.Module:
    """The hardened model of `Crowded`."""
    return Crowded(model)


def test_without_lanes_rows_depend_on_the_batch(bench: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The mutant of the same laws for models that draw nothing."""
    from forearm.evaluate import defense as parts

    monkeypatch.setitem(parts.HARDEN, "crowded", f"{__name__}:crowded")
    monkeypatch.setitem(parts.UNMASK, "crowded", f"{__name__}:crowded")
    monkeypatch.setitem(INFERENCE, "crowded", Inference("", None, False, ""))
    cell = cell_of(bench, "pgd(steps=2)", "crowded")
    for lanes in (True, False):
        if not lanes:
            monkeypatch.setattr(engine, "Lanes", lambda model, width: model)
        first, second = rows_of(bench, cell, 3, 9), rows_of(bench, cell, 9, 9)
        assert np.array_equal(first["margin"], second["margin"]) is lanes


@pytest.mark.parametrize(
    ("cheat", "words"),
    [
        ("too_far", r"example 4: a change of 0\.0039\d+; at most 0\.00392157 in linf"),
        ("unboxed", r"example 4: values outside of \[0, 1\]"),
        ("broken", "example 4: values that are not finite"),
        ("fewer", r"pictures \(\d, 3, 32, 32\) for \(\d, 3, 32, 32\)"),
    ],
)
def test_a_cheating_attack_is_named_with_its_cell_and_example(bench: Path, monkeypatch: pytest.MonkeyPatch, cheat: str, words: str) -> None:
    monkeypatch.setitem(ATTACKS, cheat, f"tests.evaluate.cheats:{cheat}")
    cell = cell_of(bench, cheat)
    with pytest.raises(BudgetError, match=rf"^cifar10: .*, none, {cheat}, linf:1/255: {words}"):
        rows_of(bench, cell, n=5)


@pytest.mark.parametrize("threat", ["linf:0.1/255", "linf:8/255", "linf:32/255"])
def test_the_surface_of_the_ball_is_inside(bench: Path, monkeypatch: pytest.MonkeyPatch, threat: str) -> None:
    monkeypatch.setitem(ATTACKS, "edge", "tests.evaluate.cheats:edge")
    found = rows_of(bench, cell_of(bench, "edge", threat=threat))
    assert found["distance"][found["protected"]] == pytest.approx(Threat.parse(threat).eps, rel=1e-4)


def test_who_does_nothing_changes_nothing(bench: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(ATTACKS, "still", "tests.evaluate.cheats:still")
    found = rows_of(bench, cell_of(bench, "still"))
    assert np.array_equal(found["robust"], found["protected"])
    assert not found["changed"].any()
    assert not found["distance"].any()
    assert np.array_equal(found["protected"], found["margin"] < 0)


def test_only_the_bare_model_has_a_twin(bench: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(ATTACKS, "still", "tests.evaluate.cheats:still")
    for attack, defense, informed, expected in (
        ("pgd", "none", False, True),
        ("pgd", "conceal", False, False),
        ("pgd", "conceal", True, True),  # who knows GCM differentiates the bare model
        ("pgd", "jpeg", True, False),
        ("still", "none", False, False),
    ):
        cell = cell_of(bench, attack, defense, informed=informed)
        found = Bench.of(cell, block_of(bench, cell))
        assert ("twin" in getattr(found.attack, "keywords", {})) is expected, (attack, defense)


def transfer_cell(bench: Path, attack: str, defense: str = "none", informed: bool = False, source: str = "labeller") -> Cell:
    """A cell of one whose attacks are made on another model."""
    found = cells_of(bench, matrix_text(bench, defenses=f'"{defense}"', more=f'source = "{bench / source}"'))[-1]
    return dataclasses.replace(found, attack=attack, informed=informed)


@pytest.mark.parametrize("attack", ["pgd(steps=3)", "mi_fgsm(decay=0.0, step=1.9, steps=5)"])  # the second often ends behind its best step
def test_transfer_is_this_loop(bench: Path, attack: str) -> None:
    """The attack is made on the source, or told to take its gradients there, and judged on the victim, which it never asks."""
    cell = transfer_cell(bench, attack)
    found, block = rows_of(bench, cell, n=12), block_of(bench, cell)
    victim, source = load_model(bench / "victim"), load_model(bench / "labeller")
    twin = Lanes(fast(source))
    copy = {"source": twin} if attack.startswith("mi_fgsm") else {"twin": twin}
    for i in found["protected"].nonzero()[0].tolist():
        x, y, noise = as_pictures(block.pixels[i : i + 1]), torch.from_numpy(block.y[i : i + 1]), Noise(0, torch.tensor([i]))
        x_adv = bind(ATTACKS, attack)(Lanes(source), x, y, threat=THREAT, noise=noise.stream("attack"), **copy)
        assert found["robust"][i] == (victim(x_adv).argmax(1) == y).item()
        assert found["margin"][i] == pytest.approx(float(margin(victim(x_adv), y)), abs=1e-3)
        assert found["distance"][i] == pytest.approx(float((x_adv - x).abs().max()), abs=1e-7)
    assert 5 < found["changed"].sum() == found["protected"].sum()


def test_who_has_the_victim_gets_further_than_by_transfer(bench: Path) -> None:
    """The mutant of the loop above, an engine that forgets the source, gives the first of these."""
    attack = "pgd(steps=5)"
    white, moved = rows_of(bench, cell_of(bench, attack)), rows_of(bench, transfer_cell(bench, attack))
    assert np.array_equal(white["protected"], moved["protected"])
    held = white["protected"]
    assert (moved["margin"][held] < white["margin"][held]).all()
    assert moved["robust"].sum() > white["robust"].sum() + 2
    same = dataclasses.replace(
        transfer_cell(bench, attack),
        source=str(bench / "victim"),
        contents=transfer_cell(bench, attack, "median", source="victim").contents,
    )
    again = rows_of(bench, same)
    assert all(np.array_equal(again[name], white[name]) for name in white)


def test_who_knows_the_defense_puts_it_around_the_source(bench: Path) -> None:
    for attack, defense, informed, twin in (
        ("pgd(steps=3)", "jpeg(quality=50)", False, True),
        ("pgd(steps=3)", "jpeg(quality=50)", True, False),
        ("pgd(steps=3)", "conceal", True, True),  # what GCM hides the bare source shows
        ("autoattack", "none", False, True),
    ):
        cell = transfer_cell(bench, attack, defense, informed)
        found = Bench.of(cell, block_of(bench, cell))
        assert ("twin" in found.attack.keywords) is twin, (defense, informed)  # type: ignore[attr-defined]
        assert ("folded" in found.attack.keywords) is (attack == "autoattack")  # type: ignore[attr-defined]
        x = as_pictures(block_of(bench, cell).pixels[:LANES])
        bare = load_model(bench / "labeller")(x)
        asked = found.attacked(x)
        assert torch.allclose(asked, bare, atol=1e-4) is twin
        assert not torch.allclose(found.victim(x), bare, atol=1e-1)
    known, unknown = (transfer_cell(bench, "pgd(steps=3)", "mspd(copies=2)", informed) for informed in (True, False))
    assert not np.array_equal(rows_of(bench, known, n=8)["margin"], rows_of(bench, unknown, n=8)["margin"])  # it is reverted first


def test_layers_are_those_of_the_source(bench: Path) -> None:
    own = [
        name for name, _ in load_model(bench / "labeller").named_modules() if name not in dict(load_model(bench / "victim").named_modules())
    ]
    cell = transfer_cell(bench, f"ffa(layer='{own[-1]}', steps=2)")
    found = Bench.of(cell, block_of(bench, cell))
    assert found.attacked is engine._loaded(cell.source, engine._sum_of(cell, "source"))
    assert found.together == 1
    assert rows_of(bench, cell, n=4)["changed"].any()


def test_a_source_of_another_size_is_asked_through_its_own_resize(bench: Path, tmp_path: Path) -> None:
    card = (bench / "labeller/card.toml").read_text()
    shutil.copytree(bench / "labeller", tmp_path / "small")
    (tmp_path / "small/card.toml").write_text(card.replace("size = 32", "size = 16"))
    cell = dataclasses.replace(transfer_cell(bench, "pgd(steps=2)"), source=str(tmp_path / "small"))
    x = as_pictures(block_of(bench, cell).pixels[:LANES])
    found = Bench.of(cell, block_of(bench, cell))
    small = torch.nn.functional.interpolate(x, (16, 16), mode="bilinear", antialias=True, align_corners=False)
    assert torch.allclose(found.attacked(x), load_model(tmp_path / "small")(small), atol=1e-2)
    assert torch.equal(found.victim(x), load_model(bench / "victim")(x))


def test_only_autoattack_gets_a_folded_copy_beside_its_twin(bench: Path) -> None:
    for attack, defense, names in (
        ("autoattack(version='standard')", "none", {"version", "twin", "folded"}),
        ("autoattack", "conceal", set()),
        ("apgd", "none", {"twin"}),
        ("fab", "none", set()),
        ("square", "none", set()),
    ):
        cell = cell_of(bench, attack, defense)
        block = block_of(bench, cell)
        keywords = Bench.of(cell, block).attack.keywords  # type: ignore[attr-defined]
        assert set(keywords) == names, attack
        if "folded" in names:
            x, bare = as_pictures(block.pixels[:LANES]), load_model(bench / "victim")
            assert torch.equal(keywords["folded"](x), Lanes(folded(bare))(x))
            assert torch.allclose(keywords["folded"](x), bare(x), atol=1e-4)


def test_who_knows_uses_it(bench: Path) -> None:
    """GCM is nothing to an attacker who knows it; the same attack without the knowledge finds less."""
    attack = "pgd(steps=5)"
    bare = rows_of(bench, cell_of(bench, attack))
    known = rows_of(bench, cell_of(bench, attack, "conceal", informed=True))
    unknown = rows_of(bench, cell_of(bench, attack, "conceal"))
    assert known["robust"].sum() <= bare["robust"].sum() + 1
    assert unknown["robust"].sum() > known["robust"].sum() + 2


def test_around_the_original_nothing_is_left_of_a_release(bench: Path) -> None:
    none = rows_of(bench, cell_of(bench, "pgd(steps=3)"))
    held = rows_of(bench, cell_of(bench, "pgd(steps=3)", "mspd(copies=2)", around="original"))
    both = none["protected"] & held["protected"]
    for name in ("robust", "distance", "margin"):
        assert np.array_equal(none[name][both], held[name][both]), name
    assert both.sum() > 10


@pytest.mark.parametrize("labels", ["decoupled", "coupled", "given"])
def test_labels_are_whose_they_should_be(bench: Path, labels: str) -> None:
    cell = cell_of(bench, defense="s_fgsm", labels=labels)
    block = block_of(bench, cell).part(slice(0, 12))
    x, y = as_pictures(block.pixels), torch.from_numpy(block.y)
    backbone, labeller = load_model(bench / "backbone"), load_model(bench / "labeller")
    said = {"decoupled": labeller(x).argmax(1), "coupled": backbone(x).argmax(1), "given": y}
    assert len({tuple(label.tolist()) for label in said.values()}) == 3
    protector = bind({"s_fgsm": "forearm.defenses.preemptive.single_step:s_fgsm"}, "s_fgsm")
    for i in range(len(x)):
        one = slice(i, i + 1)
        wanted = release(
            protector(fast(backbone), x[one], said[labels][one], threat=THREAT, noise=Noise(0, torch.tensor([i]))), x[one], THREAT
        )
        assert torch.equal(as_pictures(released_block(cell, block.part(one))), wanted)


def test_several_backbones_arm_together_and_are_reverted_together(bench: Path) -> None:
    """One cell with both weights in its contents; coupled labels are the first's. The mutants: either backbone alone."""
    both = f"{bench / 'backbone'}+{bench / 'victim'}"
    (cell, knows) = cells_of(bench, matrix_text(bench, defenses='"s_fgsm"', more=f'backbone = "{both}"\nlabels = "coupled"'))
    assert cell.backbone == both
    assert [text.partition("=")[0] for text in cell.contents] == ["backbone 2", "backbone", "model", "pictures"]
    assert len({cell.key, *(dataclasses.replace(cell, backbone=name).key for name in both.split("+"))}) == 3
    block = block_of(bench, cell).part(slice(0, 4))
    x, models = as_pictures(block.pixels), [load_model(name) for name in both.split("+")]
    protector = bind({"s_fgsm": "forearm.defenses.preemptive.single_step:s_fgsm"}, "s_fgsm")
    twins = [fast(model) for model in models]
    made = {}
    for name, twin in (("both", Ensemble(tuple(twins))), ("first", twins[0]), ("second", twins[1])):
        parts = [
            release(
                protector(twin, x[i : i + 1], models[0](x[i : i + 1]).argmax(1), threat=THREAT, noise=Noise(0, torch.tensor([i]))),
                x[i : i + 1],
                THREAT,
            )
            for i in range(len(x))
        ]
        made[name] = torch.cat(parts)
    released = torch.cat([as_pictures(released_block(cell, block.part(slice(i, i + 1)))) for i in range(len(x))])
    assert torch.equal(released, made["both"])
    assert not torch.equal(released, made["first"])
    assert not torch.equal(released, made["second"])
    assert knows.informed
    assert audit_block(knows, block, released_block(knows, block), 4)["robust"].shape == (4,)


def test_a_targeted_attacker_wins_at_his_target_alone(bench: Path) -> None:
    cell = cell_of(bench, "pgd(steps=5)", threat="targeted:linf:8/255")
    found, block = rows_of(bench, cell), block_of(bench, cell)
    aim = engine._aim(torch.from_numpy(block.y), Noise(0, torch.from_numpy(block.ids)), 10)
    assert not (aim == torch.from_numpy(block.y)).any()
    assert len(aim.unique()) > 4
    right = found["robust"]
    assert (found["margin"][right] < 0).all()
    assert (found["margin"] > 0).sum() > 3  # reached their target
    assert (~right & found["protected"] & (found["margin"] < 0)).sum() > 0  # lost to another class than the target


def test_pictures_of_another_size_reach_the_model_through_a_resize(bench: Path) -> None:
    cell = cell_of(bench, "pgd(steps=2)", "mspd(copies=2)")
    block = block_of(bench, cell).part(slice(0, 4))
    large = dataclasses.replace(block, pixels=np.ascontiguousarray(block.pixels.repeat(2, 2).repeat(2, 3)))
    released = released_block(cell, large)
    assert released.shape == (4, 3, 64, 64)
    assert 0 < np.abs(released.astype(int) - large.pixels).max() <= 1
    found = audit_block(cell, large, released)
    assert found["distance"][found["protected"]] == pytest.approx(1 / 255, rel=1e-3)
    grey = dataclasses.replace(block, pixels=np.ascontiguousarray(block.pixels[:, :1]))
    assert released_block(cell, grey).shape == (4, 1, 32, 32)
    assert not audit_block(cell, grey, released_block(cell, grey))["robust"].any()


def test_where_nothing_is_right_nothing_is_attacked(bench: Path) -> None:
    cell = cell_of(bench)
    block = block_of(bench, cell).part(slice(0, 4))
    wrong = dataclasses.replace(block, y=(block.y + 5) % 10)
    found = audit_block(cell, wrong, block.pixels)
    assert not any(found[name].any() for name in ("protected", "robust", "changed", "distance"))
    assert (found["margin"] > 0).all()


def test_lanes_ask_for_a_fixed_number(bench: Path) -> None:
    asked: list[int] = []

    def model(x: Tensor) -> Tensor:
        asked.append(len(x))
        return x.flatten(1)[:, :4] * 2.0

    x = torch.rand(12, 3, 2, 2).requires_grad_()
    logits = Lanes(model)(x)
    assert asked == [LANES] * -(-12 // LANES)
    assert torch.equal(logits, x.flatten(1)[:, :4] * 2.0)
    (gradient,) = torch.autograd.grad(logits.sum(), x)
    assert torch.equal(gradient.flatten(1)[:, :4], torch.full((12, 4), 2.0))
    assert not gradient.flatten(1)[:, 4:].any()
    assert Lanes(model)(x[:0]).shape == (0, 4)


def test_a_model_that_depends_on_the_size_of_its_batch_does_not_in_lanes() -> None:
    def model(x: Tensor) -> Tensor:
        return x.flatten(1) * len(x)

    x = torch.rand(12, 3, 2, 2)
    assert torch.equal(Lanes(model)(x)[:3], Lanes(model)(x[:3]))
    assert not torch.equal(model(x)[:3], model(x[:3]))  # the mutant


def test_a_model_that_cuts_the_graph_off_has_the_gradient_zero() -> None:
    x = torch.rand(3, 3, 2, 2).requires_grad_()
    (gradient,) = torch.autograd.grad(Lanes(lambda x: x.detach().flatten(1))(x).sum(), x)
    assert not gradient.any()
    with torch.no_grad():
        assert torch.equal(Lanes(lambda x: x.flatten(1))(x), x.flatten(1))


@pytest.mark.parametrize("kind", ["exact", "fast"])
def test_in_lanes_a_picture_does_not_depend_on_its_company(bench: Path, kind: str) -> None:
    model = load_model("cifar10_backbone")
    asked = Lanes(fast(model) if kind == "fast" else model)
    x = as_pictures(block_of(bench, cell_of(bench)).pixels[:11])
    order = torch.tensor([10, 3, 7, 0, 1, 9, 2])
    both = []
    for pictures in (x, x[order]):
        point = pictures.clone().requires_grad_()
        logits = asked(point)
        (gradient,) = torch.autograd.grad(logits.logsumexp(1).sum(), point)
        both.append((logits.detach(), gradient))
    assert torch.equal(both[0][0][order], both[1][0])
    assert torch.equal(both[0][1][order], both[1][1])


def test_a_masking_verdict_is_plain(bench: Path) -> None:
    import json

    cell = cell_of(bench, defense="conceal", threat="linf:8/255")
    block = block_of(bench, cell)
    found = masking_block(cell, block, released_block(cell, block), examples=6)
    assert json.loads(json.dumps(found, allow_nan=False)) == found
    assert found["masked"] is True
    assert 0 < found["n"] <= 6
    bare = masking_block(dataclasses.replace(cell, defense="none"), block, block.pixels, examples=6)
    assert bare["masked"] is False


FLAGS = st.integers(2, 12).flatmap(lambda n: st.lists(st.lists(st.booleans(), min_size=n, max_size=n), min_size=1, max_size=5))


@given(FLAGS)
@settings(deadline=None)
def test_the_worst_case_is_never_better_than_any_attack_and_another_one_never_helps(flags: list[list[bool]]) -> None:
    ids = np.arange(len(flags[0]))
    attacks = {str(k): (ids, np.array(row)) for k, row in enumerate(flags)}
    before = len(ids)
    for k in range(1, len(flags) + 1):
        _, survivors = worst_case(dict(list(attacks.items())[:k]))
        assert survivors.sum() <= min(row.sum() for _, row in list(attacks.values())[:k])
        assert survivors.sum() <= before
        before = survivors.sum()


def test_on_real_rows_the_worst_case_is_never_better_than_any_attack(bench: Path) -> None:
    attacks = {}
    before = 25
    for attack in ("fgsm", "pgd(steps=4)", "square(queries=20)"):
        found = rows_of(bench, cell_of(bench, attack))
        attacks[attack] = (found["id"], found["robust"])
        _, survivors = worst_case(attacks)
        assert survivors.sum() <= min(before, found["robust"].sum())
        before = int(survivors.sum())
    assert 0 < before < 25
