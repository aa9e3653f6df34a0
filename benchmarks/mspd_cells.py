"""What MSPD's ablations, reversions, purifiers and lemma probes share: pictures, nets, and verdicts that are kept in units of 50 pictures.

A row of such a study is pictures as they meet the attacker; PGD-20 at 8/255, its ball around them, then asks every target. A unit is one row on 50
pictures, written to `runs/STUDY/` when done, all rows on the first 50 before any on the next: a run that was broken off, or stopped by `--minutes`,
goes on with the same command, and what is there is summed up either way. A unit is named by the sha256 of its pictures and nets and by its settings,
not by the code: delete the folder to begin anew.
"""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

import forearm
from forearm.core.quality import psnr
from forearm.core.quantize import levels
from forearm.core.threat import Threat
from forearm.data import sets
from forearm.errors import ForearmError
from mspd_gain import Target, judge, labels_of, releases
from mspd_table import Verdicts, above, mean, rate
from mspd_units import written

RUNS = Path(__file__).parents[1] / "runs"
FIGURES = Path(__file__).parents[1] / "docs" / "pictures"
PART = 50  # pictures of a unit
ATTACK, THREAT = "pgd(steps=20, stop=True)", Threat.parse("linf:8/255")
BACKBONE = "cifar10_backbone"
TARGETS = (BACKBONE, "resnet2b", "cnn_a_adv4", "cifar10_preact")
NATURAL = ("cifar10_labeller", "resnet20_a", "resnet56_a")

Cell = dict[str, Any]  # {"verdicts": target -> [[right, right under attack], ...], "psnr": [...], "seconds": ...}


@dataclass(frozen=True)
class Stand:
    """The pictures, the labeller's labels and the nets of one study, and the folder that keeps what is done."""

    folder: Path
    x: Tensor
    y: Tensor
    said: Tensor
    targets: dict[str, Target]
    sources: dict[str, Target]  # nets that arm or revert; the targets are among them
    sums: dict[str, str]  # net -> sha256 of its weights
    absent: tuple[str, ...]

    @classmethod
    def load(cls, study: str, examples: int, names: tuple[str, ...] = TARGETS, arming: tuple[str, ...] = ()) -> Stand:
        """CIFAR-10's first test images; of the targets `names`, and the nets `arming` that only give gradients, those that are there."""
        pictures = sets.load("cifar10", "test").first(examples)
        x, y = pictures.images.float() / 255, pictures.labels
        sources, sums, absent = dict[str, Target](), dict[str, str](), list[str]()
        for name in (*names, *arming):
            try:
                model = forearm.load_model(name)
            except ForearmError as error:
                absent.append(name)
                print(f"left out: {name} ({error})", flush=True)
                continue
            kind = "backbone" if name == BACKBONE else "natural" if name in NATURAL else "robust"
            sources[name], sums[name] = Target.plain(name, kind, model), model.card.sha256
        labeller = forearm.load_model("labeller")
        targets = {name: source for name, source in sources.items() if name in names}
        sums["labeller"] = labeller.card.sha256
        return cls(RUNS / study, x, y, labels_of(labeller, x), targets, sources, sums, tuple(absent))

    def held_out(self) -> list[str]:
        """The robust targets whose gradients no release of the backbone has seen."""
        return [name for name, target in self.targets.items() if target.kind == "robust"]

    def span(self, start: int) -> slice:
        return slice(start, min(start + PART, len(self.x)))

    def ids(self, start: int) -> Tensor:
        return torch.arange(len(self.x))[self.span(start)]

    def kept_file(self, folder: Path, what: str, start: int, nets: tuple[str, ...], suffix: str) -> Path:
        """Where something about a unit is kept: its name holds all that decides it."""
        span = self.span(start)
        shown = hashlib.sha256(levels(self.x[span]).numpy().tobytes() + self.y[span].numpy().tobytes()).hexdigest()
        key = json.dumps([what, start, shown, [self.sums[name] for name in (*nets, "labeller")]])
        return folder / f"{hashlib.sha256(key.encode()).hexdigest()[:32]}{suffix}"

    def release(self, spec: str, start: int, threat: Threat = THREAT, backbone: str = BACKBONE) -> Tensor:
        """The pictures of a unit as 8-bit releases with the labeller's labels, from their file or made now."""
        span = self.span(start)
        if spec == "none":
            return self.x[span]
        path = self.kept_file(RUNS / "mspd_cells", f"{spec} {threat}", start, (backbone,), ".npy")
        if not path.exists():
            made = releases(spec, self.sources[backbone].twin, self.x[span], self.said[span], self.ids(start), threat, None)
            whole = BytesIO()
            np.save(whole, levels(made).numpy())
            written(path, whole.getvalue())
        return torch.from_numpy(np.load(path)).float() / 255.0

    def judged(self, start: int, shown: Tensor) -> Cell:
        """Every target on pictures of a unit as they meet the attacker (8 bits)."""
        span = self.span(start)
        verdicts = {}
        for name, target in self.targets.items():
            clean, robust = judge(target, shown, self.y[span], self.ids(start), THREAT, ATTACK)
            verdicts[name] = [list(pair) for pair in zip(clean.tolist(), robust.tolist(), strict=True)]
        return {"verdicts": verdicts, "psnr": psnr(shown, self.x[span]).clamp(max=99.0).tolist()}


Make = Callable[[Stand, int], Cell]  # (stand, start) -> what is measured of a unit


@dataclass(frozen=True, slots=True)
class Row:
    """One row of a study. what: all that decides it, beside pictures and nets; late: run after the others on the same pictures."""

    what: str
    make: Make
    late: bool = False


Rows = Mapping[str, Row]


def cell_file(stand: Stand, row: Row, start: int) -> Path:
    """Where a unit's verdicts are kept."""
    return stand.kept_file(stand.folder, row.what, start, tuple(stand.targets), ".json")


def run(stand: Stand, rows: Rows, minutes: float) -> None:
    """Measure what is not there, until so many minutes have passed."""
    began = time.monotonic()
    order = sorted(rows, key=lambda name: rows[name].late)
    todo = [(start, name) for start in range(0, len(stand.x), PART) for name in order if not cell_file(stand, rows[name], start).exists()]
    for number, (start, name) in enumerate(todo, 1):
        if time.monotonic() - began > 60 * minutes:
            return
        spent = time.process_time()
        cell = rows[name].make(stand, start)
        cell |= {"row": name, "start": start, "seconds": time.process_time() - spent}
        written(cell_file(stand, rows[name], start), json.dumps(cell).encode())
        figures = ", ".join(f"{target} {sum(right for _, right in found)}" for target, found in cell.get("verdicts", {}).items())
        print(f"{number}/{len(todo)} {name}, from {start}: {figures}; {cell['seconds']:.0f} s", flush=True)


def collected(stand: Stand, row: Row) -> list[tuple[int, Cell]]:
    """A row's cells that are there, with their first picture."""
    files = [(start, cell_file(stand, row, start)) for start in range(0, len(stand.x), PART)]
    return [(start, json.loads(path.read_text())) for start, path in files if path.exists()]


def verdicts_of(stand: Stand, rows: Rows) -> dict[str, dict[str, Verdicts]]:
    """Row -> target -> picture -> (right, right under attack), of the units that are there."""
    found: dict[str, dict[str, Verdicts]] = {}
    for name, row in rows.items():
        each: dict[str, Verdicts] = {target: {} for target in stand.targets}
        for start, cell in collected(stand, row):
            for target, pairs in cell["verdicts"].items():
                each[target].update({start + i: (pair[0], pair[1]) for i, pair in enumerate(pairs)})
        if any(each.values()):
            found[name] = each
    return found


def compared(stand: Stand, found: dict[str, dict[str, Verdicts]], name: str, others: tuple[str, ...], left_out: str = "") -> dict[str, Any]:
    """A row in figures: each target and the mean of the held-out ones but `left_out`, robust and above other rows on the same pictures, paired."""
    mine = found[name]
    targets: dict[str, Any] = {}
    for target, verdicts in mine.items():
        targets[target] = {"clean": rate([c for c, _ in verdicts.values()]), "robust": rate([r for _, r in verdicts.values()])}
        for other in others:
            if other in found and other != name:
                targets[target][f"above {other}"] = above(verdicts, found[other][target])
    unseen = [target for target in stand.held_out() if target != left_out]
    held: dict[str, Any] = {"targets": unseen, "robust": mean([mine[t] for t in unseen])}
    for other in others:
        if other in found and other != name:
            held[f"above {other}"] = mean([mine[t] for t in unseen], [found[other][t] for t in unseen])
    return {"targets": targets, "held out": held}


def missing(stand: Stand, rows: Rows) -> list[str]:
    """What of the plan is not measured: a line for each row."""
    lines = []
    for name, row in rows.items():
        done = sum(len(stand.ids(start)) for start, _ in collected(stand, row))
        if done < len(stand.x):
            lines.append(f"{name}: {done} of {len(stand.x)} pictures")
    return lines
