"""What `mspd_lemmas.py` measures: agreement of gradients, losses along the cascade, variance over seeds, error of reversion. One cell is 50 pictures."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor

import forearm
from forearm.core.gradients import input_gradient
from forearm.core.losses import cross_entropy
from forearm.core.noise import Noise
from forearm.core.quantize import levels, to_8bit
from forearm.core.threat import Threat
from forearm.defenses.preemptive.mcgs import mcgs
from forearm.defenses.preemptive.reversion import revert
from mspd_cells import BACKBONE, TARGETS, THREAT, Cell, Row, Stand

ALL = (*TARGETS, "cifar10_wide", "cifar10_resnext", "cifar10_vit", "cifar10_labeller", "resnet20_a", "resnet56_a")
EPOCHS = (0, 1, 2, 4)
COPIES, SEEDS, FEW = (1, 2, 5, 10, 20), 6, 20  # the variance's N, its seeds, and on how many pictures of a unit


def agreement(stand: Stand, start: int) -> Cell:
    """Each net's input gradient beside the backbone's at the bare picture, and its verdicts on bare and armed pictures."""
    x, said = stand.x[stand.span(start)], stand.said[stand.span(start)]
    own = input_gradient(stand.sources[BACKBONE].twin, x, said)[0].flatten(1)
    cosine, signs = {}, {}
    for name, net in stand.targets.items():
        other = input_gradient(net.twin, x, said)[0].flatten(1)
        cosine[name] = torch.nn.functional.cosine_similarity(own, other, dim=1).tolist()
        signs[name] = (own.sign() == other.sign()).float().mean(1).tolist()
    bare, armed = (stand.judged(start, shown)["verdicts"] for shown in (x, stand.release("mspd", start)))
    return {"cosine": cosine, "signs": signs, "bare": bare, "armed": armed}


def losses(stand: Stand, start: int) -> Cell:
    """The cross-entropy of the true class after F_a-B_b, bare and under PGD-10, on the backbone and the first held-out targets: by "a,b" and net."""
    span, ids = stand.span(start), stand.ids(start)
    x, y, said = stand.x[span], stand.y[span], stand.said[span]
    attack = forearm.attack("pgd(steps=10)")
    found: dict[str, dict[str, dict[str, list[float]]]] = {"plain": {}, "attacked": {}}
    for a in EPOCHS:
        for b in EPOCHS:
            twin = stand.sources[BACKBONE].twin
            shown = to_8bit(mcgs(twin, x, said, threat=THREAT, noise=Noise(0, ids), copies=4, forward=a, backward=b, rate=0.5, step=0.5))
            for name in TARGETS:
                net = stand.targets[name]
                x_adv = attack(net.model, shown, y, threat=THREAT, noise=Noise(1, ids), twin=net.twin)
                with torch.no_grad():
                    for which, part in (("plain", shown), ("attacked", x_adv)):
                        found[which].setdefault(f"{a},{b}", {})[name] = cross_entropy(net.model(part), y).tolist()
    return found


def variance(stand: Stand, start: int) -> Cell:
    """Over seeds, the variance of the change in units of eps^2, the mean over a picture's values: after the forward epoch and of the release, by N."""
    x, said, ids = (part[stand.span(start)][:FEW] for part in (stand.x, stand.said, torch.arange(len(stand.x))))
    twin, found = stand.sources[BACKBONE].twin, {}
    for name, backward in (("forward epoch", 0), ("release", 1)):
        for copies in COPIES:
            each = [mcgs(twin, x, said, threat=THREAT, noise=Noise(seed, ids), copies=copies, backward=backward) for seed in range(SEEDS)]
            spread = torch.stack(each).double().div(THREAT.eps).var(0)
            found[f"{name}, {copies}"] = spread.flatten(1).mean(1).tolist()
    return {"variance": found}


def mismatches(stand: Stand) -> dict[str, Callable[[Tensor, Tensor], Tensor]]:
    """What an attacker may take for the settings: releases and ids -> what he reverts them to."""
    classes = int(stand.y.max()) + 1

    def back(p: Tensor, ids: Tensor, net: str = BACKBONE, seed: int = 0, copies: int = 20, eps: int = 8, turn: int = 0) -> Tensor:
        twin, threat = stand.sources[net].twin, Threat.parse(f"linf:{eps}/255")

        def protector(model: Any, x: Tensor, y: Tensor, *, threat: Threat, noise: Noise) -> Tensor:
            return mcgs(model, x, (y + turn) % classes, threat=threat, noise=noise, copies=copies)

        return to_8bit(revert(twin, p, protector=protector, threat=threat, noise=Noise(seed, ids)))

    made = {"nothing": partial(back), "seed": partial(back, seed=1), "label": partial(back, turn=1)}
    made |= {f"N = {n}": partial(back, copies=n) for n in (1, 2, 5, 10)}
    made |= {f"eps = {eps}": partial(back, eps=eps) for eps in (2, 4, 6, 10, 12, 16)}
    return made | {name: partial(back, net=name) for name in stand.sources if name != BACKBONE}


def mismatch(stand: Stand, start: int) -> Cell:
    """How far the reverted picture is from the original, mean |difference| in levels, by what the attacker has wrong."""
    x, ids = stand.x[stand.span(start)][:FEW], stand.ids(start)[:FEW]
    released = stand.release("mspd", start)[:FEW]
    pictures = {"not reverted": released} | {name: back(released, ids) for name, back in mismatches(stand).items()}
    return {"error": {k: (levels(p).int() - levels(x).int()).abs().flatten(1).float().mean(1).tolist() for k, p in pictures.items()}}


ROWS = {
    "agreement": Row("agreement", agreement),
    "variance": Row("variance", variance),
    "mismatch": Row("mismatch", mismatch),
    "losses": Row("losses", losses),
}
