"""Claim: FGSM regularisation on the bare model's gradient makes a net harder for who knows it; through GCM, whose gradient is noise, it does not.

The small recipe of the gradient concealment challenge on CIFAR-10 with everything, and with one ingredient left out at a time: MixUp and CutMix, FGSM
regularisation, its bare gradient (taken through GCM instead), the 32 operations, the stage with resize-and-pad (its epochs go to the first), the MLP head
(a linear one, an ML-Decoder), and all of them. Each net is scored on the first test pictures: clean; at all 91 places of resize-and-pad; after the 32
operations at five severities; after FGSM and PGD-20 at 2/255 and 8/255 by an attacker who differentiates the concealed net as it is given to him, and by
one who knows GCM and differentiates the bare one. Verdicts are the concealed net's. All nets see the same number of pictures; those with fewer ingredients
take fewer passes for them. One seed.

Nets and scores are on disk when done (`runs/challenge_ingredients`): the same command goes on where it stopped, also after `--minutes`.

    OMP_NUM_THREADS=1 FOREARM_DATA=... python benchmarks/challenge_ingredients.py [--minutes 30] [--examples 400] [--nets everything "no FGSM"]
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from claim import record
from forearm.attacks.fgsm import fgsm
from forearm.attacks.pgd import pgd
from forearm.core.noise import Noise
from forearm.core.precision import fast, verdict
from forearm.core.threat import Threat
from forearm.data import sets
from forearm.data.batches import Batch, Pictures
from forearm.data.corrupted import corrupted
from forearm.data.corruptions.table import CORRUPTIONS
from forearm.defenses.inference.conceal import conceal
from forearm.defenses.inference.resize_pad import placings
from forearm.evaluate.statistics import paired_difference, wilson
from forearm.jobs.train_challenge import ChallengeSettings, train_challenge
from forearm.models.load import Model, load_model

ROOT = Path(__file__).parents[1]
PART = 100  # pictures judged together
SEVERITIES = (1, 2, 3, 4, 5)
THREATS = ("linf:2/255", "linf:8/255")
ATTACKS: dict[str, Callable[..., torch.Tensor]] = {"FGSM": fgsm, "PGD-20": pgd}
WHOLE = "everything"
OUT = {"mixup": 0.0, "cutmix": 0.0}
NETS: dict[str, dict[str, Any]] = {  # what differs from the recipe; "head" and "placed" are put together in `settings_for`
    WHOLE: {},
    "no MixUp, CutMix": OUT,
    "no FGSM": {"fgsm": 0.0},
    "FGSM through GCM": {"through": "gcm"},
    "no operations": {"augment": "crop_flip"},
    "no resize-and-pad": {"placed": False},
    "linear head": {"head": "linear"},
    "ML-Decoder": {"head": "ml_decoder"},
    "nothing": {**OUT, "fgsm": 0.0, "augment": "crop_flip", "placed": False, "head": "linear"},
}


class Over(Exception):
    """The time that `--minutes` gave is over."""


@dataclass(frozen=True, slots=True)
class Clock:
    """Until when work goes on."""

    end: float

    def check(self) -> None:
        """Raise `Over` once it is later."""
        if time.monotonic() > self.end:
            raise Over


def settings_for(recipe: Path, name: str) -> ChallengeSettings:
    """The recipe with what one net changes; without the second stage its epochs are the first one's."""
    changed = dict(NETS[name])
    whole = ChallengeSettings.read(recipe, {})
    head, placed = changed.pop("head", None), changed.pop("placed", True)
    if head is not None:
        changed["arch"] = whole.arch.replace("head='mlp'", f"head={head!r}")
        assert changed["arch"] != whole.arch
    if not placed:
        changed |= {"epochs": whole.epochs + whole.placed_epochs, "placed_epochs": 0}
    return ChallengeSettings.read(recipe, changed)


def trained(name: str, recipe: Path, runs: Path, clock: Clock) -> Model:
    """One net, trained or taken as an earlier call left it."""
    out = runs / "".join(c if c.isalnum() else "_" for c in name)

    def report(stage: str, row: dict[str, float]) -> None:
        print(name, stage, {key: round(value, 3) for key, value in row.items()}, flush=True)
        clock.check()

    train_challenge(settings_for(recipe, name), out, report)
    return load_model(out)


def flags(model: torch.nn.Module, batches: list[Batch]) -> list[bool]:
    """Which pictures a model gets right."""
    return [bool(one) for batch in batches for one in verdict(model, batch.x, batch.y)[0]]


def placed(model: Model, batches: list[Batch], least: float) -> list[float]:
    """For each picture the chance that a random place leaves it right, over all places."""
    side = batches[0].x.shape[-1]
    total = torch.zeros(sum(len(batch.y) for batch in batches), dtype=torch.float64)
    for place in placings(side, side, least):
        total += place.chance * torch.cat([verdict(model, place(batch.x), batch.y)[0] for batch in batches]).double()
    return [round(float(one), 6) for one in total]


def attacked(model: Model, batches: list[Batch], attack: str, text: str, informed: bool) -> list[bool]:
    """Which pictures the concealed net gets right before and after an attack on the bare (`informed`) or on the concealed net."""
    threat, shown = Threat.parse(text), conceal(model)
    held = []
    for batch in batches:
        right = verdict(shown, batch.x, batch.y)[0]
        twin = {"twin": fast(model)} if informed else {}  # GCM's own gradient belongs to float32
        source = model if informed else shown
        x_adv = ATTACKS[attack](source, batch.x, batch.y, threat=threat, noise=Noise(0, batch.ids), **twin)
        assert float(threat.distance(x_adv, batch.x).max()) <= threat.eps * (1 + 1e-4) + 1e-6
        held += [bool(one) for one in right & verdict(shown, x_adv, batch.y)[0]]
    return held


def spoilt(pictures: Pictures) -> dict[str, list[Batch]]:
    """The pictures after each operation at each severity, "fog 3"."""
    return {
        f"{name} {severity}": list(corrupted(pictures, name, severity).batches(PART)) for name in CORRUPTIONS for severity in SEVERITIES
    }


def scored(
    name: str, model: Model, pictures: Pictures, worn: Callable[[], dict[str, list[Batch]]], least: float, runs: Path
) -> dict[str, Any]:
    """Per picture: clean, at the places, corrupted (its share of versions), after each attack; and the share of each version. Kept on disk."""
    path = runs / "scores" / f"{''.join(c if c.isalnum() else '_' for c in name)}.json"
    key = {"sha256": model.card.sha256, "n": len(pictures), "least": least, "attacks": [*ATTACKS], "threats": [*THREATS]}
    held: dict[str, Any] = json.loads(path.read_text()) if path.is_file() else {}
    if held.get("key") != key:
        batches = list(pictures.batches(PART))
        rows = {version: flags(conceal(model), them) for version, them in worn().items()}
        held = {
            "key": key,
            "clean": flags(conceal(model), batches),
            "placed": placed(model, batches, least),
            "corrupted": torch.tensor(list(rows.values())).double().mean(0).tolist(),
            "versions": {version: sum(row) / len(row) for version, row in rows.items()},
            "attacked": {
                f"{attack} {threat}, {'knows' if informed else 'does not know'}": attacked(model, batches, attack, threat, informed)
                for informed in (False, True)
                for threat in THREATS
                for attack in ATTACKS
            },
        }
        path.parent.mkdir(parents=True, exist_ok=True)
        half = path.with_suffix(".part")
        half.write_text(json.dumps(held))
        half.replace(path)
    return held


def share(values: list[float]) -> dict[str, Any]:
    """The mean over the pictures with a Wilson interval that counts pictures, not their versions: too wide for means of versions, never too narrow."""
    n, value = len(values), sum(values) / len(values)
    return {"value": value, "interval": wilson(round(value * n), n), "n": n}


def findings(scores: dict[str, dict[str, Any]]) -> dict[str, Any]:
    """By net: every figure, and under each attack the paired difference to the whole recipe."""
    table: dict[str, Any] = {}
    for name, held in scores.items():
        versions = held["versions"]
        row: dict[str, Any] = {figure: share(held[figure]) for figure in ("clean", "placed", "corrupted")}
        row["by severity"] = {str(s): _mean([v for key, v in versions.items() if key.endswith(f" {s}")]) for s in SEVERITIES}
        row["by operation"] = {one: _mean([versions[f"{one} {s}"] for s in SEVERITIES]) for one in CORRUPTIONS}
        row["attacked"] = {attack: share(right) for attack, right in held["attacked"].items()}
        if WHOLE in scores:
            row["above everything"] = {
                attack: _paired(right, scores[WHOLE]["attacked"][attack]) for attack, right in held["attacked"].items()
            } | {"clean": _paired(held["clean"], scores[WHOLE]["clean"])}
        table[name] = row
    return table


def _paired(first: list[bool], second: list[bool]) -> dict[str, Any]:
    value, low, high = paired_difference(first, second)
    return {"value": value, "interval": (low, high)}


def _mean(values: list[float]) -> float:
    return sum(values) / len(values)


def main() -> None:
    parser = argparse.ArgumentParser(description="The challenge's ingredients: with everything, and with one left out at a time.")
    parser.add_argument("--examples", type=int, default=400, help="test pictures")
    parser.add_argument("--nets", nargs="+", default=[*NETS], choices=[*NETS])
    parser.add_argument(
        "--minutes", type=float, default=float("inf"), help="stop after the epoch or net in which this is over, and stay resumable"
    )
    parser.add_argument("--recipe", type=Path, default=ROOT / "recipes" / "cifar10_challenge_small.toml")
    parser.add_argument("--runs", type=Path, default=ROOT / "runs" / "challenge_ingredients")
    parser.add_argument(
        "--write", action=argparse.BooleanOptionalAction, default=True, help="write benchmarks/results/challenge_ingredients.json"
    )
    given = parser.parse_args()
    clock = Clock(time.monotonic() + 60.0 * given.minutes)
    base = ChallengeSettings.read(given.recipe, {})
    pictures = sets.load(base.data, "test", base.folder, first=given.examples)
    made: dict[str, dict[str, list[Batch]]] = {}

    def worn() -> dict[str, list[Batch]]:
        if not made:
            made["all"] = spoilt(pictures)
        return made["all"]

    scores = {}
    try:
        for name in given.nets:
            model = trained(name, given.recipe, given.runs, clock)
            clock.check()
            scores[name] = scored(name, model, pictures, worn, base.least, given.runs)
            print(name, {key: round(share(scores[name][key])["value"], 3) for key in ("clean", "placed", "corrupted")}, flush=True)
            print(name, {key: round(share(right)["value"], 3) for key, right in scores[name]["attacked"].items()}, flush=True)
    except Over:
        print(f"challenge_ingredients: {given.minutes:g} minutes are over; the same command goes on from here")
        return
    if given.write and {WHOLE, "FGSM through GCM", "no FGSM"} <= set(scores):
        concluded(findings(scores), scores, base)


def concluded(table: dict[str, Any], scores: dict[str, dict[str, Any]], base: ChallengeSettings) -> None:
    """The claim: what the bare gradient is worth above GCM's, in pairs, for PGD-20 at 2/255 by who knows."""
    attack = f"PGD-20 {THREATS[0]}, knows"
    bare, hashed, none = (scores[name]["attacked"][attack] for name in (WHOLE, "FGSM through GCM", "no FGSM"))
    gain = _paired(bare, hashed)
    record(
        "challenge_ingredients",
        "FGSM regularisation on the bare gradient raises robust accuracy for who knows the net; through GCM it is training with noise",
        100 * gain["value"],
        "points of accuracy under PGD-20 at 2/255, bare gradient above GCM's, paired",
        n=len(bare),
        interval=(100 * gain["interval"][0], 100 * gain["interval"][1]),
        at_least=0.0,
        holds=gain["interval"][0] > 0.0,
        details={"recipe": base.said(), "through GCM above no FGSM": _paired(hashed, none), "nets": table},
    )


if __name__ == "__main__":
    main()
