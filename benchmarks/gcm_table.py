"""Claim: GCM keeps more than 90 % of a natural net's right answers under PGD from who does not know it, and none from who does.

The published table (arXiv 2205.10617, table 2) and, beside it, who knows. CIFAR-10: `examples/gcm.toml` on the first test images, on a natural and a
robust net. Photos: the same grids at the published budgets on two natural ImageNet nets, judged among the ten classes of the held-out photos.
What no matrix can name is added here: PGD in L1 with dense steps, the hash of GCM's signs taken off again, transfer from another net, and the two
controls (random signs, a random walk). Needs the data sets in FOREARM_DATA. A run that was broken off goes on with the same command.

    python benchmarks/gcm_table.py [--examples 200] [--photos 50] [--part cifar10|photos] [--jobs 2]
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from claim import record
from forearm.attacks.apgd import apgd
from forearm.attacks.best import Best
from forearm.attacks.gradient import margins
from forearm.attacks.pgd import pgd
from forearm.core.gradients import Classifier, bpda, input_gradient
from forearm.core.noise import Noise
from forearm.core.norms import Norm, per_example
from forearm.core.precision import verdict
from forearm.core.threat import Threat
from forearm.data import sets
from forearm.defenses.inference.conceal import conceal
from forearm.errors import BudgetError
from forearm.evaluate.cell import Cell, spans
from forearm.evaluate.chosen import Chosen, Sources, content
from forearm.evaluate.engine import Bench, Pixels, as_pictures
from forearm.evaluate.lanes import Lanes
from forearm.evaluate.matrix import Matrix, cells, read_matrix
from forearm.evaluate.statistics import Share, attack_success, paired_difference
from forearm.evaluate.store import Store
from forearm.jobs.audit import AuditJob, missing, run
from forearm.models.load import load_model
from forearm.registry import parse
from forearm.report.findings import Attempt, Entry, benches

ROOT = Path(__file__).parents[1]
STORE = ROOT / "runs" / "gcm_table"
PHOTO = {"l2:8/7": "l2:8", "l1:1600/49": "l1:1600"}  # the published budgets, by those at 32 x 32
NATURAL = "cifar10_labeller"
STEPS, STEP = 20, 3 / 40
OMEGA = 1e20


# attackers that no matrix can name


@dataclass(frozen=True, slots=True)
class Scene:
    """What an attacker may differentiate. hardened: the deployed model; known: the bare one if he knows the defence, else the hardened one;
    other: a net of the same classes that is not attacked.
    """

    hardened: Classifier
    known: Classifier
    other: Classifier | None


Attacker = Callable[[Scene, Tensor, Tensor, Threat, Noise], Tensor]  # pictures `n c h w`, labels `n` -> attacked pictures


def published(model: Classifier, x: Tensor, y: Tensor, threat: Threat, noise: Noise) -> Tensor:
    """PGD as published: 20 steps of 3/40 of the budget from the picture itself. An L1 step is g / |g|_1, which moves every value; the steepest one
    of `attacks.pgd` moves a single value and is no match for a budget of 1600.
    """
    norm = threat.norm if threat.norm.name != "l1" else dense(threat.norm)
    return pgd(model, x, y, threat=replace(threat, norm=norm), noise=noise, steps=STEPS, step=STEP, random_start=False)


def dense(norm: Norm) -> Norm:
    """`norm` with the gradient itself, scaled to unit size, for its steepest direction."""
    return replace(norm, steepest=lambda g: g / per_example(norm.size(g), g).clamp_min(torch.finfo(g.dtype).tiny))


def unhashed(model: Classifier, omega: float = OMEGA) -> Classifier:
    """A concealed model with the signs of its gradient put right: each is multiplied by sign(cos(omega x)), the sign of GCM's slope. The sizes stay
    as GCM made them, |cos(omega x)| times the bare model's.
    """

    def turned(x: Tensor) -> Tensor:
        return x * torch.cos(omega * x.detach()).sign()

    right = bpda(Tensor.detach, turned)
    return lambda x: model(right(x))


def dense_pgd(scene: Scene, x: Tensor, y: Tensor, threat: Threat, noise: Noise) -> Tensor:
    """PGD as published on what the attacker knows."""
    return published(scene.known, x, y, threat, noise)


def unhashed_pgd(scene: Scene, x: Tensor, y: Tensor, threat: Threat, noise: Noise) -> Tensor:
    """PGD as published on the concealed model itself, its signs put right."""
    return published(unhashed(scene.hardened), x, y, threat, noise)


def transfer_pgd(scene: Scene, x: Tensor, y: Tensor, threat: Threat, noise: Noise) -> Tensor:
    """PGD as published on the other net; the one that is attacked is never asked."""
    assert scene.other is not None
    return published(scene.other, x, y, threat, noise)


def known_pgd(scene: Scene, x: Tensor, y: Tensor, threat: Threat, noise: Noise) -> Tensor:
    """The bench's `pgd(steps=20)` on what the attacker knows, around what was released: he reverts nothing."""
    return pgd(scene.known, x, y, threat=threat, noise=noise, steps=20)


def known_apgd(scene: Scene, x: Tensor, y: Tensor, threat: Threat, noise: Noise) -> Tensor:
    """The bench's `apgd(steps=50)`, likewise."""
    return apgd(scene.known, x, y, threat=threat, noise=noise, steps=50)


def random_sign(scene: Scene, x: Tensor, y: Tensor, threat: Threat, noise: Noise) -> Tensor:
    """FGSM's control: the whole budget, every sign drawn."""
    return threat.project(x + threat.eps * (noise.integers(x, 2).to(x.dtype) * 2.0 - 1.0), x)


def random_walk(scene: Scene, x: Tensor, y: Tensor, threat: Threat, noise: Noise) -> Tensor:
    """PGD's control: as many steps of the same size in drawn directions (Linf: signs; L2, L1: Gaussian), the worst iterate as PGD returns it."""
    norm, best, here = dense(threat.norm) if threat.norm.name == "l1" else threat.norm, Best.of(x), torch.arange(len(x))
    x_adv = x
    for _ in range(STEPS):
        x_adv = threat.project(x_adv + STEP * threat.eps * norm.steepest(noise.normal(x)), x)
        best.take(here, x_adv, margins(scene.hardened, x_adv, y, threat))
    return best.x_adv


ATTACKERS: dict[str, Attacker] = {
    "dense_pgd": dense_pgd,
    "unhashed_pgd": unhashed_pgd,
    "transfer_pgd": transfer_pgd,
    "known_pgd": known_pgd,
    "known_apgd": known_apgd,
    "random_sign": random_sign,
    "random_walk": random_walk,
}
CONTROLS = ("random_sign", "random_walk")
NORMS = ("l1", "l2", "linf")
# attacker, defence, whether he knows it, norms
EXTRA: tuple[tuple[str, str, bool, tuple[str, ...]], ...] = (
    ("dense_pgd", "none", False, ("l1",)),
    ("dense_pgd", "conceal", False, ("l1",)),
    ("dense_pgd", "conceal", True, ("l1",)),
    ("unhashed_pgd", "conceal", True, NORMS),
    ("transfer_pgd", "none", False, NORMS),
    ("transfer_pgd", "conceal", False, NORMS),
    ("random_sign", "none", False, ("linf",)),
    ("random_walk", "none", False, NORMS),
)


# their cells, in the bench's store


def extra_cells(found: Iterable[Cell], threats: Mapping[str, str], others: Mapping[str, str]) -> list[Cell]:
    """The cells of `EXTRA`, for every model of a matrix's cells. threats: norm -> budget; others: model -> the net that attacks are carried over from."""
    made = []
    for cell in {(cell.model, cell.defense): cell for cell in found}.values():
        for name, defense, informed, norms in EXTRA:
            if defense != cell.defense or (name == "transfer_pgd" and cell.model not in others):
                continue
            carried = others[cell.model] if name == "transfer_pgd" else ""
            contents = (*cell.contents, content("source", Sources().card(carried))) if carried else cell.contents
            attack = f"{name}(source={carried!r})" if carried else name
            for norm in norms:
                bound = str(Threat.parse(threats[norm]))
                made.append(replace(cell, attack=attack, informed=informed, threat=bound, contents=tuple(sorted(contents))))
    return made


def attacked_rows(cell: Cell, block: Chosen, released: Pixels) -> dict[str, NDArray[Any]]:
    """The rows of a block of an extra cell, as `evaluate.engine.audit_block` gives those of others; the attacker's ball lies around the release.
    BudgetError for an attacker who leaves it. One thread, as in the bench: the number of threads changes the last bits.
    """
    torch.set_num_threads(1)
    name, options = parse(cell.attack)
    threat, bench = Threat.parse(cell.threat), Bench.of(replace(cell, attack="fgsm"), block)
    x, y, noise = as_pictures(block.pixels), torch.from_numpy(block.y), Noise(cell.seed, torch.from_numpy(block.ids))
    centre = as_pictures(released)
    other = Lanes(load_model(options["source"])) if "source" in options else None
    clean, protected = (verdict(bench.victim, shown, y)[0] for shown in (x, centre))
    x_adv = centre.clone()
    here = protected.nonzero().squeeze(1)
    if len(here):
        scene = Scene(bench.victim, bench.attacked, other)
        x_adv[here] = ATTACKERS[name](scene, centre[here], y[here], threat, noise.at(here).stream("attack"))
    distance = threat.distance(x_adv, centre)
    if bool((distance > threat.eps * (1.0 + 1e-4)).any()) or bool(((x_adv < 0.0) | (x_adv > 1.0)).any()):
        raise BudgetError(f"{cell}: a change of {float(distance.max()):.6g}; at most {threat.eps:.6g} in {threat.norm.name}, in [0, 1]")
    robust, logits = verdict(bench.victim, x_adv, y)
    changed = (x_adv != centre).flatten(1).any(1)
    columns = {"clean": clean, "protected": protected, "robust": robust & protected, "distance": distance, "changed": changed}
    margin = threat.margin(logits, y).float()
    return {"id": block.ids, "y": block.y, "margin": margin.numpy()} | {name: column.numpy() for name, column in columns.items()}


def make_extra(store: Store, wanted: Iterable[Cell], sources: Sources, jobs: int) -> None:
    """What is missing of the extra cells, block by block; their releases must be in the store. jobs: processes, 0 for this one."""
    wanted = list(wanted)
    with store.writing():
        todo = [(cell, number) for cell in wanted for number in missing(store, cell, sources)]
        tasks = []
        for cell, number in todo:
            block = sources.pictures(cell.dataset, cell.split, cell.examples, cell.pick).part(list(spans(cell.examples))[number])
            released = store.release(cell, number)
            tasks.append((cell, block, block.pixels if released is None else released))
        if jobs:
            with ProcessPoolExecutor(jobs, get_context("spawn")) as pool:
                for (cell, number), rows in zip(todo, pool.map(attacked_rows, *zip(*tasks, strict=True)) if tasks else (), strict=True):
                    store.put_block(cell, number, rows)
                    print(f"{short(cell.model)}, {cell.defense}, {cell.attack}, {cell.threat}, block {number}", flush=True)
        else:
            for (cell, number), task in zip(todo, tasks, strict=True):
                store.put_block(cell, number, attacked_rows(*task))
        for cell in wanted:
            if not store.has(cell):
                store.finish(cell)


def short(model: str) -> str:
    """A model's name without where it lies."""
    return Path(model.partition("=")[2] or model).stem if "/" in model else model


# what the rows say


@dataclass(frozen=True, slots=True)
class Only:
    """Some cells of a store, for `report.findings`."""

    store: Store
    chosen: tuple[Cell, ...]

    def cells(self) -> list[Cell]:
        return list(self.chosen)

    def rows(self, cell: Cell) -> pl.DataFrame:
        return self.store.rows(cell)

    def masking(self) -> list[dict[str, Any]]:
        return self.store.masking()


def rate(share: Share | None) -> dict[str, Any]:
    """A share with its 95 % Wilson interval and sample size."""
    return (
        {"value": 0.0, "interval": [0.0, 1.0], "n": 0}
        if share is None
        else {"value": share.value, "interval": share.interval, "n": share.n}
    )


def paired(first: NDArray[np.bool_], second: NDArray[np.bool_]) -> dict[str, Any]:
    """share(first) - share(second) over the same pictures, with its 95 % interval."""
    difference, low, high = paired_difference(first, second)
    return {"value": difference, "interval": [low, high], "n": len(first)}


def against(attempt: Attempt) -> dict[str, Any]:
    """AR (of those right before) and robust accuracy (of all) of one attempt."""
    return {"ar": rate(attempt.attacked.kept), "robust": rate(attempt.attacked.accuracy)}


def named(entry: Entry, name: str, informed: bool) -> Attempt | None:
    """The attempt with the attack `name`, whatever its options."""
    found = [one for one in entry.attempts if parse(one.cell.attack)[0] == name and one.cell.informed == informed]
    return found[0] if found else None


# column -> the attack by name, its norm
COLUMNS = {
    "FGSM Linf": ("fgsm", "linf"),
    "PGD L1": ("dense_pgd", "l1"),
    "PGD L2": ("pgd", "l2"),
    "PGD Linf": ("pgd", "linf"),
    "C&W L2": ("carlini_wagner", "l2"),
}
# way -> the attacks by name, who knows the defence
WAYS: dict[str, tuple[tuple[str, ...], bool]] = {
    "PGD through GCM": (("pgd", "dense_pgd"), False),
    "PGD, the bare model's gradient": (("pgd", "dense_pgd"), True),
    "PGD, signs put right by sign(cos)": (("unhashed_pgd",), True),
    "PGD on another net, carried over": (("transfer_pgd",), False),
    "finite differences (SPSA)": (("spsa",), False),
    "Square": (("square",), False),
}
CONTROL = {"FGSM Linf": "random_sign", "PGD L1": "random_walk", "PGD L2": "random_walk", "PGD Linf": "random_walk"}


def findings(store: Store, found: Iterable[Cell]) -> dict[str, Any]:
    """What the tables show of one part: by model, all that was measured of it."""
    everything = tuple(found)
    serious = tuple(cell for cell in everything if parse(cell.attack)[0] not in CONTROLS)
    rows: dict[str, Any] = {}
    for model in dict.fromkeys(cell.model for cell in everything):
        own = tuple(cell for cell in serious if cell.model == model)
        pairs = {Threat.parse(b.cell.threat).norm.name: {e.cell.defense: e for e in b.entries} for b in benches(Only(store, own))}
        of_model = [cell for cell in everything if cell.model == model]
        rows[short(model)] = {
            "clean": rate(pairs["linf"]["none"].clean),
            "budgets": {norm: pair["none"].cell.threat for norm, pair in pairs.items()},
            "published": {
                label: {
                    column: against(one) for column, (name, norm) in COLUMNS.items() if (one := named(pairs[norm][defense], name, False))
                }
                for label, defense in (("vanilla", "none"), ("GCM", "conceal"))
            },
            "knows": {way: {norm: _way(pair["conceal"], *how) for norm, pair in pairs.items()} for way, how in WAYS.items()},
            "controls": {column: _control(store, of_model, pairs, column) for column in CONTROL},
            "worst": {norm: _worst(pair["none"], pair["conceal"]) for norm, pair in pairs.items()},
        }
    return rows


def walked(model: nn.Module, x: Tensor, y: Tensor, threat: Threat, noise: Noise) -> dict[str, list[float]]:
    """How far 20 Linf steps of 3/40 of the budget have come after each: the root mean square change a value, in 1/255.

    Along the gradient's signs of the bare model, of the concealed one, and along drawn ones. GCM's sign is a hash of the value, not a draw: a value
    that comes back meets the sign that sent it away, and most end up going to and fro between two values.
    """
    signs: dict[str, Callable[[Tensor], Tensor]] = {
        "bare": lambda at: input_gradient(model, at, y)[0].sign(),
        "through GCM": lambda at: input_gradient(conceal(model), at, y)[0].sign(),
        "random walk": lambda at: noise.normal(at).sign(),
    }
    far: dict[str, list[float]] = {}
    for name, sign in signs.items():
        x_adv, far[name] = x, []
        for _ in range(STEPS):
            x_adv = threat.project(x_adv + STEP * threat.eps * sign(x_adv), x)
            far[name].append(255.0 * float((x_adv - x).square().mean().sqrt()))
    return far


def _way(entry: Entry, names: tuple[str, ...], informed: bool) -> dict[str, Any] | None:
    tried = [one for name in names if (one := named(entry, name, informed))]
    return against(tried[0]) if tried else None


def _control(store: Store, found: list[Cell], pairs: Mapping[str, Mapping[str, Entry]], column: str) -> dict[str, Any]:
    """GCM's column, and its control on the bare model; the difference is of robust accuracy, paired."""
    name, norm = COLUMNS[column]
    through = named(pairs[norm]["conceal"], name, False)
    assert through is not None
    cell = next(one for one in found if one.attack == CONTROL[column] and one.threat == through.cell.threat)
    control = Attempt(cell, store.rows(cell).sort("id"))
    return {"GCM": against(through), "control": against(control), "difference": paired(through.robust, control.robust)}


def _worst(none: Entry, gcm: Entry) -> dict[str, Any]:
    """Robust accuracy in the worst case over all attackers; through GCM's gradient alone; and how many verdicts of the same attack with the bare
    model's gradient are not those on the bare model.
    """
    gradient = [
        one for one in gcm.attempts if not one.cell.informed and parse(one.cell.attack)[0] not in ("square", "spsa", "transfer_pgd")
    ]
    lost = np.logical_and.reduce([one.robust for one in gradient])
    twins = [(one, none.attempt(one.cell.attack, False)) for one in gcm.attempts if one.cell.informed]
    same = [(one.robust, bare.robust) for one, bare in twins if bare is not None]
    return {
        "vanilla": rate(none.worst.accuracy),
        "GCM": rate(gcm.worst.accuracy),
        "GCM, its own gradient": rate(attack_success(gcm.right_before, lost & gcm.right_before).accuracy),
        "difference": paired(gcm.survivors[1], none.survivors[1]),
        "verdicts": sum(len(a) for a, _ in same),
        "verdicts that differ": sum(int((a != b).sum()) for a, b in same),
    }


# the two parts


def cifar(examples: int) -> tuple[Matrix, list[Cell]]:
    """The matrix of CIFAR-10 and its extra cells."""
    matrix = read_matrix(ROOT / "examples" / "gcm.toml").model_copy(update={"examples": examples})
    weights = sets.root() / "cifar10_weights"
    others = {
        NATURAL: f"resnet56_a={weights / 'akamaster/resnet56-4bfd9763.th'}",
        "cifar10_backbone": f"resnet2b={weights / 'abcrown/resnet2b.pth'}",
    }
    return matrix, extra_cells(cells(matrix, Sources()), {"l1": "l1:1600/49", "l2": "l2:8/7", "linf": "linf:8/255"}, others)


def photos(count: int) -> tuple[Matrix, list[Cell]]:
    """The grids of the natural net at the published budgets, on the two ImageNet nets; each is the other one's transfer."""
    matrix = read_matrix(ROOT / "examples" / "gcm.toml")
    weights = sets.root() / "imagenet" / "weights"
    nets = [f"mobilenet_v2_ten={weights / f'mobilenet_v2_1.0_224_{kind}.npz'}" for kind in ("ptq_int8", "quant_uint8")]
    grids = [
        grid.model_copy(update={"models": nets, "threats": [PHOTO.get(threat, threat) for threat in grid.threats]})
        for grid in matrix.grid
        if NATURAL in grid.models
    ]
    setting = {"dataset": "imagenette(side=224)", "pick": "even", "examples": count, "masking": False, "batch": 10, "grid": grids}
    matrix = matrix.model_copy(update=setting)
    others = dict(zip(nets, reversed(nets), strict=True))
    return matrix, extra_cells(cells(matrix, Sources()), {"l1": "l1:1600", "l2": "l2:8", "linf": "linf:8/255"}, others)


def make(matrix: Matrix, extra: list[Cell], store: Store, jobs: int) -> None:
    """Whatever is missing of a part."""
    summary = run(AuditJob(matrix, store.path, jobs), lambda p: print(f"{p.stage}: {p.done} of {p.total}", flush=True))
    for cell, error in summary.failed:
        raise type(error)(f"{cell}: {error}")
    make_extra(store, extra, Sources(), jobs)


def main() -> None:
    parser = argparse.ArgumentParser(description="GCM's table, and the attackers who know.")
    parser.add_argument("--examples", type=int, default=200, help="CIFAR-10 test pictures")
    parser.add_argument("--photos", type=int, default=50, help="held-out photos for the two ImageNet nets")
    parser.add_argument("--part", choices=("cifar10", "photos"), help="only this part; the claim is recorded on the parts that are there")
    parser.add_argument("--jobs", type=int, default=2, help="processes")
    given = parser.parse_args()
    store, parts = Store(STORE), {"cifar10": cifar(given.examples), "photos": photos(given.photos)}
    for name in (given.part,) if given.part else tuple(parts):
        make(*parts[name], store, given.jobs)
    every = {name: (*cells(matrix, Sources()), *extra) for name, (matrix, extra) in parts.items()}
    done = {name: found for name, found in every.items() if all(store.has(cell) for cell in found)}
    if "cifar10" not in done:
        print("the part cifar10 is not there yet")
        return
    details = {name: findings(store, found) for name, found in done.items()}
    few = sets.load("cifar10", "test").first(min(16, given.examples))
    x, threat = few.images.float() / 255.0, Threat.parse("linf:8/255")
    steps = walked(load_model(NATURAL), x, few.labels, threat, Noise.of(len(x)))
    natural = {"cifar10": [NATURAL]} | {name: list(found) for name, found in details.items() if name == "photos"}
    held = [details[part][model]["published"]["GCM"] for part, models in natural.items() for model in models]
    least = min((row[column]["ar"] for row in held for column in ("PGD L1", "PGD L2", "PGD Linf")), key=lambda ar: float(ar["value"]))
    worst = [row["difference"]["interval"] for part in details.values() for model in part.values() for row in model["worst"].values()]
    record(
        "gcm_table",
        "GCM lifts the AR of natural nets under PGD (L1, L2, Linf) above 90 % for who does not know it; the worst case over all attackers is the "
        "bare model's within the paired interval",
        100 * least["value"],
        "% of right answers kept under PGD by who does not know, the least over natural nets and norms",
        n=given.examples + (given.photos if "photos" in done else 0),
        interval=tuple(100 * end for end in least["interval"]),
        at_least=90.0,
        holds=all(low <= 0.0 <= high for low, high in worst),
        details=details | {"steps": {"model": NATURAL, "n": len(x), "far": steps}},
    )


if __name__ == "__main__":
    main()
