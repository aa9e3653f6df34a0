"""Several looks of one backbone at a picture: as it is, mirrored, and coarser. They disagree as cheap extra backbones would."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from forearm.core.gradients import Classifier
from forearm.core.noise import Noise
from forearm.core.threat import Threat
from forearm.core.view import resize
from forearm.defenses.preemptive.ensemble import Ensemble
from forearm.defenses.preemptive.single_step import s_pgd
from forearm.errors import SpecError


@dataclass(frozen=True, slots=True)
class Mirrored:
    """`model` looking at pictures with left and right exchanged."""

    model: Classifier

    def __call__(self, x: Tensor) -> Tensor:
        return self.model(x.flip(3))


@dataclass(frozen=True, slots=True)
class Coarse:
    """`model` looking at pictures that went through the smaller `size` and back: what is finer than that, it cannot see."""

    model: Classifier
    size: tuple[int, int]

    def __call__(self, x: Tensor) -> Tensor:
        return self.model(resize(resize(x, self.size), (x.shape[2], x.shape[3])))


def looks(
    model: Classifier,
    x: Tensor,
    y: Tensor,
    *,
    threat: Threat,
    noise: Noise,
    steps: int = 1,
    step: float | None = None,
    coarse: float = 0.75,
    mirror: bool = True,
    grid: tuple[int, int] | None = None,
) -> Tensor:
    """Pictures `x` (`n c h w`, [0, 1]) moved towards `y` along the mean of the normalised gradients of up to four looks of `model`.

        x_{k+1} = P( x_k - step eps d(G(x_k)) ),   G that of `Ensemble` over { f(x), f(mirror x), f(coarse x), f(mirror coarse x) }

    What one net's gradient has that other nets' have not is largely fine structure of its own grid. A mirrored look has that structure
    elsewhere, and a look through `coarse` times the picture's size (in (0, 1]; 1 leaves those looks out) has none of it; what is left is
    shared by more robust targets. On naturally trained targets it measured worse than MSPD.
    `grid`: the rows and columns that the model sees, where it sees the picture through a resize; then `coarse` is in
    units of these. `step` is in units of eps: 1 for a single step, 2 / steps for several where it is None. `model` may be an `Ensemble`.
    `noise` is not used. Cost: `steps` times 4 gradients (2 with one of the two kinds of look, 1 with neither) of each member.
    Source: this project; input diversity is that of Xie et al., CVPR 2019, for attacks. SpecError for `coarse` outside (0, 1].
    """
    if not 0.0 < coarse <= 1.0:
        raise SpecError(f"coarse: got {coarse}; a share of the picture's size above 0 and up to 1, for example 0.75")
    rows, columns = grid or (x.shape[2], x.shape[3])
    small = max(1, round(coarse * rows)), max(1, round(coarse * columns))
    seen: tuple[Classifier, ...] = (model,) if coarse == 1.0 else (model, Coarse(model, small))
    if mirror:
        seen = (*seen, *(Mirrored(look) for look in seen))
    size = step if step is not None else (1.0 if steps == 1 else 2.0 / steps)
    return s_pgd(Ensemble(seen), x, y, threat=threat, noise=noise, steps=steps, step=size)
