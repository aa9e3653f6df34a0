"""The instant release: a network that was trained for it writes the protective change in one pass, without any gradient."""

from __future__ import annotations

from typing import Protocol

from torch import Tensor

from forearm.core.gradients import Classifier
from forearm.core.noise import Noise
from forearm.core.norms import LINF
from forearm.core.threat import Threat
from forearm.core.view import resize, view_size
from forearm.errors import SpecError

DEFAULT = "cifar10_instant"  # the network of a spec that names none


class Writer(Protocol):
    """A trained network: RGB pictures whose shorter edge is about `side`, classes (None: its own) and eps -> the change in units of eps."""

    @property
    def side(self) -> int: ...

    def __call__(self, x: Tensor, y: Tensor | None, eps: float) -> Tensor: ...


def instant(
    model: Classifier, x: Tensor, y: Tensor, *, threat: Threat, noise: Noise, writer: Writer | str = DEFAULT, own: bool = False
) -> Tensor:
    """Pictures `x` (`n c h w`, [0, 1]) hardened towards the classes `y` by one pass of `writer`: x + eps u, u = g(x, y, eps) in [-1, 1].

    `writer` is g, trained by `defenses.training.instant` against a backbone for linf; in a spec it is the network's name ("instant(writer='...')"),
    and who runs the spec loads it. It sees a picture with the shorter edge at its own `side`, and its change is resized bilinearly to the picture's
    size (a mean of changes within eps); greyscale gets the mean over the channels. For other norms u is scaled to the size eps and projected. With
    `own` the network decides the class itself and `y` is not used. `model` and `noise` are not used: the release depends on no generator, and an
    attacker needs no backbone to repeat it, only g. SpecError where `writer` is still a name. Cost: one pass of g, no gradient.
    Source: this project, after MSPD (arXiv 2407.15524).
    """
    if isinstance(writer, str):
        raise SpecError(f"instant: got the name {writer!r} for its network; the network itself, for example load_writer({writer!r})")
    height, width = x.shape[2], x.shape[3]
    seen = resize(x, view_size(height, width, writer.side)).expand(-1, 3, -1, -1)
    u = resize(writer(seen, None if own else y, threat.eps).to(x), (height, width))
    u = u if x.shape[1] == 3 else u.mean(1, keepdim=True)
    change = threat.eps * (u if threat.norm is LINF else threat.norm.steepest(u))
    return threat.project(x + change, x)
