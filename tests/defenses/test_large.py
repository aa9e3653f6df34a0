"""Photos larger than the working size: within budget, at their own size, and doing to the view what the literal way does."""

from __future__ import annotations

import torch
from torch import Tensor

from forearm.core.noise import Noise
from forearm.core.threat import Threat
from forearm.core.view import View
from forearm.defenses.preemptive.large import at_working_size
from forearm.defenses.preemptive.mcgs import mcgs
from forearm.defenses.preemptive.single_step import s_fgsm

THREAT = Threat.parse("linf:4/255")
SIDE = 16


def net(x: Tensor) -> Tensor:
    """A smooth non-linear classifier of 16 x 16 pictures."""
    generator = torch.Generator().manual_seed(0)
    weight = torch.randn(4, 3 * SIDE * SIDE, generator=generator)
    return 2.0 * torch.tanh(x.flatten(1) @ weight.T / 8)


def photo(side: int) -> Tensor:
    return Noise.of(1, seed=1).uniform(torch.empty(1, 3, side, side))


def test_a_large_photo_stays_within_its_budget_at_its_own_size() -> None:
    x = photo(200)
    view = View(net, (SIDE, SIDE))
    released = at_working_size(mcgs, view, x, torch.tensor([2]), threat=THREAT, noise=Noise.of(1), side=SIDE)
    assert released.shape == x.shape
    assert float((released - x).abs().max()) <= THREAT.eps + 1e-6
    assert float((released - x).abs().mean()) > 0.5 * THREAT.eps


def test_it_does_to_the_view_nearly_what_the_literal_way_does() -> None:
    x, y = photo(200), torch.tensor([2])
    view = View(net, (SIDE, SIDE))
    before, literal, carried = (
        float(THREAT.margin(view(z), y))
        for z in (
            x,
            s_fgsm(view, x, y, threat=THREAT, noise=Noise.of(1)),
            at_working_size(s_fgsm, view, x, y, threat=THREAT, noise=Noise.of(1), side=SIDE),
        )
    )
    assert carried < before
    assert (before - carried) > 0.75 * (before - literal)


def test_small_photos_and_other_norms_go_the_literal_way() -> None:
    y, view = torch.tensor([2]), View(net, (SIDE, SIDE))
    for x, threat in ((photo(24), THREAT), (photo(100), Threat.parse("l2:1"))):
        literal = s_fgsm(view, x, y, threat=threat, noise=Noise.of(1))
        assert torch.equal(at_working_size(s_fgsm, view, x, y, threat=threat, noise=Noise.of(1), side=SIDE), literal)
