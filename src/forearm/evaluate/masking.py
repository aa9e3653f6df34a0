"""Whether attacks that follow gradients say anything about a model: one verdict with its evidence.

Masked gradients make a model look robust to the attacks that follow them, and leave it as weak as it was (Athalye et
al., ICML 2018). The verdict does not measure robustness and does not know the defence: it says whether the robust
accuracy that such an attack reports may be believed.
"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import Any

from torch import Tensor, nn

from forearm.core.gradients import Classifier
from forearm.core.noise import Noise
from forearm.core.threat import Threat
from forearm.errors import InputError, SpecError
from forearm.evaluate import probes
from forearm.evaluate.contests import Arena, Contests, contests
from forearm.evaluate.probes import Asked

STEPS, FEW = 10, 3  # of the attack with gradients
QUERIES = 80  # of the black box
DIRECTIONS = 16  # of finite differences: the cosine of two unrelated vectors of 16 is 0 +- 0.25
REACH = 0.25 / 255  # of a difference: far above float32's rounding, and small against the bends of a plain network
SHIFT = 1e-6  # of the sign probe, at most: about 16 spacings of float32 at mid grey, 1/4000 of a grey level
DRAWS = 4  # of a random model

# The bounds. Masking that matters is not seen on one odd picture, nor is it always seen on all: a value that speaks of
# pictures is the quartile on the side of suspicion, so that what it says holds for a quarter of them.
MOST_ZERO = 0.25  # share of pictures without a gradient: 0 for a network, 1 where the gradient is cut or saturated
MOST_INFINITE = 0.0  # share of pictures: a network of finite weights has none
LEAST_COSINE = 0.5  # half way between the gradient (1) and an unrelated direction (0)
MOST_DECADES = 1.0  # a gradient ten times too long or too short; medians of networks are within 0.1
MOST_FLIPS = 0.1  # unrelated signs differ in half of the entries, those of a network in less than one of a hundred
LEAST_AGREEMENT = 0.9  # one draw then has a cosine of 0.95 to the expected gradient: averaging hardly helps
LEAST_UNBOUNDED = 0.85  # no network withstands a change of everything; two pictures of sixteen are left to chance
LEAD, LEAD_SHARE = 2.0, 0.1  # a weaker attack may win this many pictures more, or this share of them, by chance

# What decides. The rest is told beside it: a gradient of the wrong length misleads no attack that takes signs or unit
# directions, and on few pictures an honest attack may well lose one or two by another step size.
DECISIVE = frozenset(
    {
        "zero_gradient",
        "infinite_gradient",
        "differences",
        "sign_flips",
        "draws",
        "one_step",
        "black_box",
        "unbounded",
        "transfer",
        "averaging",
    }
)


@dataclass(frozen=True, slots=True)
class Evidence:
    """One probe's answer. value: None where the probe does not apply; bound: what `value` may not cross; says: one sentence."""

    name: str
    flagged: bool
    value: float | None
    bound: float | None
    says: str


@dataclass(frozen=True, slots=True)
class Masking:
    """The verdict on `n` pictures: masked where any evidence of `DECISIVE` is flagged.

    passes: forward and backward passes of one picture each, in all.
    """

    masked: bool
    evidence: tuple[Evidence, ...]
    n: int
    passes: int

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values."""
        return asdict(self) | {"evidence": [asdict(one) for one in self.evidence]}

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> Masking:
        """What `to_dict` gave."""
        return cls(values["masked"], tuple(Evidence(**one) for one in values["evidence"]), values["n"], values["passes"])


def masking(model: nn.Module, x: Tensor, y: Tensor, *, threat: Threat, noise: Noise, bare: Classifier | None = None) -> Masking:
    """The verdict on `model` from the pictures `x` (`n c h w` in [0, 1]) that it classifies as `y` (`n`).

    Pictures that it gets wrong are left out; 16 to 32 that it gets right are enough, and below that the attacks cannot
    lead by enough to be flagged. `threat`: untargeted, the radius of the attacks. `bare`: the model without its
    defence, for the attack that transfers from it. The same noise gives the same verdict, for a model that draws from
    torch's generators too; these are as before afterwards. A value is rounded to 4 decimals, so that the last bits of
    another machine do not show. SpecError for a targeted or empty threat, InputError where no picture is right.

    It cannot see: a defence that hides gradients only far from these pictures, or one that knows the probes. A model
    that draws noise which turns no gradient is not masked by it. Cost: about 120 to 330 passes a picture, 450 for a
    random model (with `bare`, which is about 20 of them). Source: Athalye et al., arXiv 1802.00420; Carlini et al., arXiv 1902.06705;
    Tramer et al., arXiv 2002.08347; Pintor et al., arXiv 2106.09947. They give signs, not bounds: those are ours.
    """
    if threat.targeted or threat.eps <= 0.0:
        raise SpecError(f"masking: got the threat {threat}; an untargeted one with a radius above 0, for example linf:8/255")
    asked, source = Asked(model), None if bare is None else Asked(bare)
    draws = DRAWS if probes.random(asked, x, noise=noise) else 1
    kept = probes.right(asked, x, y, noise=noise, draws=draws)
    if not kept.any():
        raise InputError(f"masking: the model gets none of the {len(x)} pictures right; some that it does, for example 16")
    x, y, noise = x[kept], y[kept], noise.at(kept)
    fought = contests(Arena(asked, x, y, noise, draws), threat=threat, steps=STEPS, few=FEW, queries=QUERIES, bare=source)
    evidence = (*_of_gradients(asked, x, y, noise), *of_contests(fought))
    masked = any(one.flagged for one in evidence if one.name in DECISIVE)
    return Masking(masked, evidence, len(x), asked.passes + (0 if source is None else source.passes))


def _of_gradients(model: Asked, x: Tensor, y: Tensor, noise: Noise) -> tuple[Evidence, ...]:
    """What the gradients show by themselves."""
    zero = _share(probes.vanished(model, x, y, noise=noise))
    infinite = _share(probes.infinite(model, x, y, noise=noise))
    cosines, scales = probes.slopes(model, x, y, noise=noise, directions=DIRECTIONS, reach=REACH)
    cosine, decades = _low(cosines), _high(scales.clamp_min(1e-30).log10().abs())
    flipped = _high(probes.flips(model, x, y, noise=noise, shift=SHIFT))
    agreed = _low(probes.agreement(model, x, y, noise=noise, draws=DRAWS))
    return (
        _above("zero_gradient", zero, MOST_ZERO, f"cross-entropy has no gradient on {zero:.0%} of the pictures"),
        _above("infinite_gradient", infinite, MOST_INFINITE, f"the gradient is not finite on {infinite:.0%} of the pictures"),
        _below(
            "differences", cosine, LEAST_COSINE, f"a quarter of the gradients have a cosine to finite differences of at most {cosine:.3f}"
        ),
        _above("scale", decades, MOST_DECADES, f"a quarter of the gradients are at least {decades:.1f} decades too long or too short"),
        _above(
            "sign_flips",
            flipped,
            MOST_FLIPS,
            f"a shift of at most {SHIFT:.0e} turns at least {flipped:.1%} of the signs on a quarter of the pictures",
        ),
        _below("draws", agreed, LEAST_AGREEMENT, f"a quarter of the gradients have a cosine between draws of at most {agreed:.3f}"),
    )


def of_contests(fought: Contests) -> tuple[Evidence, ...]:
    """What the attacks show against each other: a pure function of who won what."""
    broken, n = int(fought.unbounded.sum()), len(fought.unbounded)
    return (
        _lead("one_step", "one step", fought.one_step, "many", fought.many),
        _lead("black_box", "the black box", fought.black, "gradients", fought.many),
        _below("unbounded", broken / n, LEAST_UNBOUNDED, f"an attack without a bound wins {broken} of {n} pictures"),
        _lead("transfer", "the transfer from the bare model", fought.transferred, "gradients", fought.many),
        _lead("averaging", "gradients averaged over draws", fought.averaged, "single ones", fought.many),
        _lead("half_radius", "half the radius", fought.few_half, "the whole", fought.few),
        _lead("radius", "the radius", fought.few, "its double", fought.few_double),
        _lead("steps", "few steps", fought.few, "many", fought.many),
        _lead("restarts", "one start", fought.many if fought.twice is not None else None, "two", fought.twice),
    )


def _lead(name: str, weaker_name: str, weaker: Tensor | None, stronger_name: str, stronger: Tensor | None) -> Evidence:
    """By how many pictures an attack leads one that should win at least as many."""
    if weaker is None or stronger is None:
        return Evidence(name, False, None, None, f"{weaker_name} against {stronger_name}: does not apply")
    ours, theirs, n = int(weaker.sum()), int(stronger.sum()), len(weaker)
    says = f"{weaker_name} won {ours} of {n} pictures, {stronger_name} {theirs}"
    return _above(name, float(ours - theirs), max(LEAD, LEAD_SHARE * n), says)


def _above(name: str, value: float, bound: float, says: str) -> Evidence:
    return Evidence(name, round(value, 4) > bound, round(value, 4), bound, says)


def _below(name: str, value: float, bound: float, says: str) -> Evidence:
    return Evidence(name, round(value, 4) < bound, round(value, 4), bound, says)


def _share(which: Tensor) -> float:
    return float(which.double().mean())


def _low(values: Tensor) -> float:
    """The lower quartile: at least a quarter of the values are at most this."""
    return float(values.double().sort().values[math.ceil(len(values) / 4) - 1])


def _high(values: Tensor) -> float:
    return -_low(-values)
