"""A threat: the set of changes an attacker may make, e.g. `Threat.parse("linf:8/255")`."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from forearm.core import losses
from forearm.core.noise import Noise
from forearm.core.norms import LINF, NORMS, Norm
from forearm.errors import SpecError


@dataclass(frozen=True, slots=True)
class Threat:
    """All changes of at most `eps` in `norm` that keep the picture in [0, 1]; `targeted`: towards a given class."""

    norm: Norm = LINF
    eps: float = 8 / 255
    targeted: bool = False

    @classmethod
    def parse(cls, text: str) -> Threat:
        """Read "linf:8/255", "l2:0.5", "l1:12" or "targeted:linf:8/255"."""
        parts = text.strip().lower().split(":")
        targeted = parts[0] == "targeted"
        try:
            name, number = parts[targeted:]
            above, slash, below = number.partition("/")
            eps = float(above) / float(below if slash else 1)
            norm = NORMS[name]
        except (ValueError, KeyError, ZeroDivisionError):
            raise SpecError(_complaint(text)) from None
        if not 0.0 <= eps < float("inf"):
            raise SpecError(_complaint(text))
        return cls(norm, eps, targeted)

    def __str__(self) -> str:
        """The text that `parse` reads as exactly this threat: "linf:8/255", "l2:0.5", "l1:80"."""
        return f"{'targeted:' if self.targeted else ''}{self.norm.name}:{_number(self)}"

    def project(self, x_adv: Tensor, x: Tensor) -> Tensor:
        """`x_adv` moved into the ball around `x`, then into [0, 1]; the second step can only shrink the change."""
        return (x + self.norm.project(x_adv - x, self.eps)).clamp(0.0, 1.0)

    def sample(self, x: Tensor, noise: Noise) -> Tensor:
        """A random point of the ball around `x`, clipped to [0, 1]."""
        return (x + self.norm.sample(x, self.eps, noise)).clamp(0.0, 1.0)

    def distance(self, x_adv: Tensor, x: Tensor) -> Tensor:
        """The size of the change, one number per example."""
        return self.norm.size(x_adv - x)

    def margin(self, logits: Tensor, y: Tensor) -> Tensor:
        """How far the attacker has won, in logits: above 0 the attack succeeded. `y`: the true class, or the target."""
        away = losses.margin(logits, y)
        return -away if self.targeted else away


def _number(threat: Threat) -> str:
    """The radius: levels of 1/255 for linf, and for other norms below 1 where no short decimal says it; else the number itself."""
    short = str(int(threat.eps)) if threat.eps.is_integer() else f"{threat.eps:.6g}"
    if threat.norm is not LINF and float(short) == threat.eps:
        return short
    level = round(threat.eps * 255)
    return f"{level}/255" if level / 255 == threat.eps and (threat.norm is LINF or level < 255) else repr(threat.eps)


def _complaint(text: str) -> str:
    return f'threat: got {text!r}; a norm ({", ".join(NORMS)}) and a radius of 0 or more, for example "linf:8/255"'
