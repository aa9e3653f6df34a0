"""Claim: the masking verdict separates all controls: what hides gradients is always flagged, whatever net it hides, and a net alone never is.

Negative: small nets made on the spot (plain and adversarially trained), the embedded models and public checkpoints. Positive: seven ways to hide
gradients, over the small nets and those of CIFAR-10. Pictures: generated ones for the small nets, CIFAR-10's test set and imagenette where the data
is at hand, pieces of scikit-image's photos under the model's own labels otherwise and besides. Every probe's value stands in `details`, with the value
nearest to its bound on either side; below them what the verdict says of the project's own defences at test time, which is not part of the claim.

    python benchmarks/masking_verdict.py [--pictures 16]
"""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

import forearm
from claim import record
from forearm.core.noise import Noise
from forearm.core.threat import Threat
from forearm.data import sets
from forearm.defenses.inference.table import INFERENCE
from forearm.evaluate.masking import DECISIVE, Masking, masking
from forearm.evaluate.statistics import wilson
from forearm.models.load import embedded
from forearm.registry import bind

sys.path.insert(0, str(Path(__file__).parents[1]))

from tests.evaluate.controls import POSITIVE, SMALL, chosen, confident, crops, shapes, small

FOREIGN = {
    "resnet20_a": "akamaster/resnet20-12fca82f.th",
    "resnet56_a": "akamaster/resnet56-4bfd9763.th",
    "resnet2b": "abcrown/resnet2b.pth",
    "cnn_a_adv4": "abcrown/cifar_cnn_a_adv4.model",
}
HIDDEN = ("cifar10_backbone", "cifar10_labeller", "resnet20_a", "resnet2b", "cnn_a_adv4")  # and all small ones
OWN = "cifar10_backbone"
POOL = 60  # pictures to choose from


def threat_for(name: str) -> Threat:
    """16/255 for the small nets, 8/255 for CIFAR-10's, 4/255 for photos."""
    return Threat.parse("linf:16/255" if name in SMALL else "linf:4/255" if name.startswith("photo") else "linf:8/255")


def nets() -> dict[str, nn.Module]:
    """Every net with honest gradients that is at hand, by name."""
    found: dict[str, nn.Module] = {name: small(name) for name in SMALL}
    found |= {name: forearm.load_model(name) for name in embedded()}
    folder = sets.root() / "cifar10_weights"
    found |= {n: forearm.load_model(f"{n}={folder / file}") for n, file in FOREIGN.items() if (folder / file).is_file()}
    return found


def real(name: str) -> tuple[Tensor, Tensor] | None:
    """Labelled pictures of a net's own data set, where it is at hand."""
    if name in SMALL:
        return shapes(POOL, 1)
    photo = name.startswith("photo")
    if not (sets.root() / ("imagenette" if photo else "cifar10")).is_dir():
        return None
    pictures = sets.load("imagenette(side=128)" if photo else "cifar10", "test")
    index = torch.arange(POOL) * (len(pictures) // POOL)
    return pictures.images[index].float() / 255, pictures.labels[index]


def row(base: str, hiding: str, shown: str, verdict: Masking, seconds: float) -> dict[str, Any]:
    """One control: what the verdict says, and each probe's value."""
    return {
        "net": base,
        "behind": hiding,
        "pictures": shown,
        "n": verdict.n,
        "masked": verdict.masked,
        "flagged": [one.name for one in verdict.evidence if one.flagged],
        "values": {one.name: one.value for one in verdict.evidence},
        "passes a picture": round(verdict.passes / verdict.n),
        "seconds": round(seconds, 2),
    }


def judged(base: str, hiding: str, bare: nn.Module, model: nn.Module, n: int, own_labels: bool = False) -> dict[str, Any] | None:
    """The verdict on `model` from `n` pictures that it gets right; None where fewer than half of them are to be had."""
    labelled = None if own_labels else real(base)
    x, y = confident(bare, crops(int(getattr(bare, "size", 32))), POOL) if labelled is None else labelled
    x, y = chosen(model, x, y, n)
    if len(x) < n // 2:
        return None
    began = time.perf_counter()
    verdict = masking(model, x, y, threat=threat_for(base), noise=Noise.of(len(x)), bare=bare)
    shown = "pieces of photos" if labelled is None else "generated" if base in SMALL else "test set"
    made = row(base, hiding, shown, verdict, time.perf_counter() - began)
    print(f"{base:20s} {hiding:20s} {shown:16s} masked {verdict.masked!s:5s} {', '.join(made['flagged'])}", flush=True)
    return made


def nearest(negative: list[dict[str, Any]], positive: list[dict[str, Any]]) -> dict[str, Any]:
    """For each probe: its range over the negative controls, and over each kind of positive ones."""

    def span(rows: list[dict[str, Any]], name: str) -> list[float] | None:
        values = [r["values"][name] for r in rows if r["values"][name] is not None]
        return [min(values), max(values)] if values else None

    kinds = {kind: [r for r in positive if r["behind"] == kind] for kind in POSITIVE}
    return {
        name: {"decisive": name in DECISIVE, "nets": span(negative, name)} | {kind: span(rows, name) for kind, rows in kinds.items()}
        for name in negative[0]["values"]
    }


def main() -> None:
    parser = argparse.ArgumentParser(description="The masking verdict on controls whose answer is known.")
    parser.add_argument("--pictures", type=int, default=16)
    n = parser.parse_args().pictures
    every = nets()
    negative = [judged(name, "nothing", net, net, n) for name, net in every.items()]
    negative += [judged(name, "nothing", every[name], every[name], n, own_labels=True) for name in embedded()]
    positive = [
        judged(name, kind, every[name], hide(every[name]), n)
        for name in every
        if name in SMALL or name in HIDDEN
        for kind, hide in POSITIVE.items()
    ]
    own = [judged(OWN, name, every[OWN], bind({name: spec.harden}, name)(every[OWN]), n) for name, spec in INFERENCE.items()]
    kept_negative, kept_positive = ([r for r in rows if r is not None] for rows in (negative, positive))
    right = sum(not r["masked"] for r in kept_negative) + sum(r["masked"] for r in kept_positive)
    cases = len(kept_negative) + len(kept_positive)
    record(
        "masking_verdict",
        "The masking verdict flags every way of hiding gradients over every net, and no net alone.",
        right / cases,
        "share of controls judged rightly",
        n=cases,
        interval=wilson(right, cases),
        at_least=1.0,
        holds=len({r["net"] for r in kept_negative}) >= 6 and len({r["behind"] for r in kept_positive}) >= 6,
        details={
            "negative": {"nets": len({r["net"] for r in kept_negative}), "flagged": sum(r["masked"] for r in kept_negative)},
            "positive": {
                kind: {
                    "nets": sum(r["behind"] == kind for r in kept_positive),
                    "flagged": sum(r["masked"] for r in kept_positive if r["behind"] == kind),
                }
                for kind in POSITIVE
            },
            "left out, too few pictures right": sum(r is None for r in (*negative, *positive)),
            "ranges": nearest(kept_negative, kept_positive),
            "controls": kept_negative + kept_positive,
            f"own defences, on {OWN}": [r for r in own if r is not None],
        },
    )


if __name__ == "__main__":
    main()
