"""Photos that are much larger than what the backbone sees: the change is found at a working size and carried to the photo's own."""

from __future__ import annotations

from torch import Tensor

from forearm.core.gradients import Classifier
from forearm.core.noise import Noise
from forearm.core.norms import LINF
from forearm.core.threat import Threat
from forearm.core.view import resize, view_size
from forearm.defenses.preemptive.protector import Protector

WORKING = 2  # the working size, in units of the view


def at_working_size(protector: Protector, model: Classifier, x: Tensor, y: Tensor, *, threat: Threat, noise: Noise, side: int) -> Tensor:
    """`protector(model, x, y)` for photos (`n c h w`, [0, 1]) of any size and a backbone whose view has the shorter edge `side`.

    A photo whose shorter edge is at most `WORKING * side` is protected at its own size. A larger one is resized to that, protected, and the
    change is resized bilinearly to the photo's own size and added: each pixel's change is a weighted mean of changes within eps, so it is
    within eps itself. What the resize drops the backbone cannot see: its gradient at the photo's own size is the same gradient interpolated.
    So time and memory stop growing with the photo, where MCGS at 12 megapixels would take minutes. For L1 and L2, whose size does not
    survive a resize, every photo is protected at its own size. Cost: the protector's at the working size.
    """
    size = view_size(x.shape[2], x.shape[3], WORKING * side)
    if threat.norm is not LINF or size[0] * size[1] >= x.shape[2] * x.shape[3]:
        return protector(model, x, y, threat=threat, noise=noise)
    working = resize(x, size)
    change = protector(model, working, y, threat=threat, noise=noise) - working
    return (x + resize(change, (x.shape[2], x.shape[3]))).clamp(0.0, 1.0)
