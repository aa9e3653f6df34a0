"""Attacks against each other on one model: what a weaker attack wins and a stronger one does not.

A stronger attack (more steps, more reach, gradients beside answers) can do all that a weaker one does. Where it wins
less, it was not the model that stopped it but its gradients.
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from forearm.attacks.table import ATTACKS
from forearm.core.gradients import Classifier
from forearm.core.noise import Noise
from forearm.core.norms import LINF
from forearm.core.threat import Threat
from forearm.evaluate.probes import Asked, drawn, right
from forearm.registry import bind

_PGD = "pgd(steps={steps}, restarts={restarts}, copies={copies}, stop={stop})"
WHITE = {"linf": _PGD, "l2": _PGD, "l1": "apgd(steps={steps}, restarts={restarts}, copies={copies})"}  # PGD's L1 step moves one pixel
BLACK = {"linf": "square(queries={queries})", "l2": "square(queries={queries})", "l1": "spsa(steps=8, probes={probes})"}
EOT = 4  # gradients averaged at each step where the model is random


@dataclass(frozen=True, slots=True)
class Contests:
    """Which pictures the model loses to each attack (`n`, bool). None: the attack does not apply, and was not run."""

    one_step: Tensor
    many: Tensor  # steps: the attack that others are held against
    few: Tensor  # steps
    few_half: Tensor  # as few steps in half the radius
    few_double: Tensor
    black: Tensor  # answers alone
    unbounded: Tensor
    transferred: Tensor | None  # from the bare model
    twice: Tensor | None  # restarts, for a random model: others cannot lose by one
    averaged: Tensor | None  # over draws, for a random model


@dataclass(frozen=True, slots=True)
class Arena:
    """What all attacks of one verdict share. draws: how many the judge averages; 1 for a model that draws nothing."""

    model: Asked
    x: Tensor
    y: Tensor
    noise: Noise
    draws: int

    def lost(self, spec: str, threat: Threat, source: Classifier | None = None) -> Tensor:
        """Which pictures the model loses to the attack `spec`, whose gradients are those of `source` or its own."""
        attack = bind(ATTACKS, spec)
        with drawn(self.noise, "attack", self.x.device):
            x_adv = attack(source or self.model, self.x, self.y, threat=threat, noise=self.noise.stream("attack"))
        return ~right(self.model, x_adv, self.y, noise=self.noise, draws=self.draws)


def contests(arena: Arena, *, threat: Threat, steps: int, few: int, queries: int, bare: Classifier | None) -> Contests:
    """All attacks, each with the same noise.

    The attack with gradients is PGD (L1: APGD) from a random point of the ball; one step is FGSM's, from the picture;
    the black box is Square (L1: SPSA); unbounded is an ascent of 2 `steps` from the picture in the whole of [0, 1].
    Cost: 6 `steps` + 6 `few` + `queries` + 10 passes at most, 10 `steps` more for a random model and 2 `steps` for a
    bare one; a picture leaves most attacks once they have won it. Source: Athalye et al., arXiv 1802.00420, section
    3.1; Carlini et al., arXiv 1902.06705, section 5; Tramer et al., arXiv 2002.08347; Pintor et al., arXiv 2106.09947.
    """
    kind, random = threat.norm.name, arena.draws > 1

    def white(steps: int = steps, restarts: int = 1, copies: int = 1) -> str:
        return WHITE[kind].format(steps=steps, restarts=restarts, copies=copies, stop=not random)

    def within(times: float) -> Threat:
        return Threat(threat.norm, threat.eps * times)

    return Contests(
        one_step=arena.lost("fgsm", threat),
        many=arena.lost(white(), threat),
        few=arena.lost(white(few), threat),
        few_half=arena.lost(white(few), within(0.5)),
        few_double=arena.lost(white(few), within(2.0)),
        black=arena.lost(BLACK[kind].format(queries=queries, probes=max(2, queries // 8)), threat),
        unbounded=arena.lost(f"bim(steps={2 * steps}, stop={not random})", Threat(LINF, 1.0)),
        transferred=None if bare is None else arena.lost(white(), threat, bare),
        twice=arena.lost(white(restarts=2), threat) if random else None,
        averaged=arena.lost(white(copies=EOT), threat) if random else None,
    )
