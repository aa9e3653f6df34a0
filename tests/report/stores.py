"""Stores as an audit writes them, with drawn verdicts: for tests of what reads them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from forearm.evaluate.cell import Cell, spans
from forearm.evaluate.store import Store
from forearm.jobs.audit import about

EPS = 8 / 255
SHA = "0123456789abcdef" * 4
CLASSES = ("plane", "car", "bird", "cat")


def cell(defense: str = "none", attack: str = "pgd(steps=20)", informed: bool = False, **given: object) -> Cell:
    """A cell of one bench; a preemptive defence has its backbone and labeller."""
    made = (
        {"backbone": "cifar10_backbone", "labeller": "cifar10_labeller", "release_threat": "linf:8/255"}
        if defense.startswith("mspd")
        else {}
    )
    names = ("model", "pictures", *(name for name in ("backbone", "labeller") if name in made))
    fields = {
        "dataset": "cifar10",
        "split": "test",
        "model": "resnet20",
        "defense": defense,
        "wear": "none",
        "attack": attack,
        "threat": "linf:8/255",
        "examples": 60,
        "informed": informed,
        "seed": 0,
        "labels": "decoupled",
        "backbone": "",
        "labeller": "",
        "around": "release",
        "contents": tuple(f"{name}={SHA}" for name in sorted(names)),
    }
    return Cell(**(fields | made | given))  # type: ignore[arg-type]


def rows(of: Cell, clean: float, kept: float, unchanged: float = 0.0, seed: int = 1) -> dict[str, NDArray[np.generic]]:
    """Verdicts for a cell: a share `clean` right before the attack, about `kept` of those after it. Harder pictures are the same for all attacks."""
    n = of.examples
    hardness = np.random.default_rng(seed).permutation(n) / n
    own = np.random.default_rng(int(of.key[:8], 16))
    before = hardness < clean
    robust = before & (hardness + own.normal(0.0, 0.04, n) < clean * kept)
    distance = np.where(before, np.where(robust, EPS, EPS * own.beta(2.0, 2.0, n)), 0.0)
    return {
        "id": np.arange(n),
        "y": np.arange(n) % len(CLASSES),
        "clean": before,
        "protected": before,
        "robust": robust,
        "distance": distance,
        "margin": np.where(robust, -1.0, 1.0),
        "changed": before & (own.random(n) >= unchanged),
    }


def put(store: Store, of: Cell, values: dict[str, NDArray[np.generic]]) -> None:
    """One complete cell with these rows."""
    for number, span in enumerate(spans(of.examples)):
        store.put_block(of, number, {name: column[span] for name, column in values.items()})
    store.finish(of)


def put_release(store: Store, of: Cell, pixels: NDArray[np.uint8]) -> None:
    """The released pictures of a cell."""
    for number, span in enumerate(spans(of.examples)):
        store.put_release(of, number, pixels[span])


def verdict(masked: bool) -> dict[str, object]:
    """A masking verdict as JSON."""
    evidence = [
        {
            "name": "zero_gradient",
            "flagged": masked,
            "value": 1.0 if masked else 0.0,
            "bound": 0.25,
            "says": "Gradients are 0 on some pictures.",
        },
        {"name": "draws", "flagged": False, "value": None, "bound": 0.9, "says": "The model draws nothing."},
    ]
    return {"masked": masked, "evidence": evidence, "n": 16, "passes": 1234}


DEFENSES: tuple[tuple[str, float, float], ...] = (
    ("none", 0.9, 0.4),
    ("mspd", 0.95, 0.75),
    ("conceal", 0.9, 0.9),
    ("jpeg(quality=75)", 0.85, 0.5),
)
ATTACKS = ("fgsm", "pgd(steps=20)", "apgd", "fab_t", "square(queries=200)")


def realistic(path: Path, wears: Sequence[str] = ("none",), pixels: NDArray[np.uint8] | None = None, sha256: str = SHA) -> Store:
    """Four defences against five attacks; jpeg is attacked by nobody who knows it, conceal is masked and falls to those who do."""
    store = Store(path)
    contents = {"contents": (f"model={SHA} resnet20", f"pictures={sha256}")}
    for wear in wears:
        for defense, clean, kept in DEFENSES:
            for number, attack in enumerate(ATTACKS):
                for informed in (False, True) if defense in ("mspd", "conceal") else (False,):
                    extra = (f"backbone={SHA} preact", f"labeller={SHA} resnext") if defense == "mspd" else ()
                    of = cell(defense, attack, informed, wear=wear, contents=tuple(sorted((*contents["contents"], *extra))))
                    left = kept - 0.05 * number - (0.45 if informed and defense == "conceal" else 0.05 * informed)
                    if number == 0 and not informed:
                        store.put_masking(about(of), verdict(masked=defense == "conceal"))
                    put(store, of, rows(of, clean, left, unchanged=0.5 if defense == "conceal" and not informed else 0.0))
                    if defense == "mspd" and pixels is not None:
                        put_release(store, of, pixels)
    return store
