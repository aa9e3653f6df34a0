"""The closed-form facts of MSPD, and the laws of every preemptive defence."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import pytest
import torch
from torch import Tensor

from forearm.core.gradients import input_gradient
from forearm.core.noise import Noise
from forearm.core.threat import Threat
from forearm.defenses.preemptive import mcgs as method
from forearm.defenses.preemptive.protector import PREEMPTIVE
from forearm.defenses.preemptive.reversion import revert
from forearm.registry import accepts, bind

THREAT = Threat.parse("linf:8/255")
EPS = THREAT.eps
SHAPE = (2, 3, 40, 40)
QUICK = {"bilevel": "bilevel(steps=5, inner=3)", "polish": "polish(steps=3)"}  # settings that keep a run short
Y = torch.tensor([1, 1])


def linear(x: Tensor) -> Tensor:
    """Two logits whose difference has a gradient of constant sign in every pixel: class 1 grows with the first half of the columns."""
    sign = torch.where(torch.arange(x.shape[3]) < x.shape[3] // 2, 1.0, -1.0).to(x)
    score = (x * sign).mean((1, 2, 3))
    return torch.stack([-score, score], 1)


def grey() -> Tensor:
    return torch.full(SHAPE, 0.5, dtype=torch.float64)


def test_forward_epoch_moves_three_quarters_of_eps() -> None:
    """Mean .75 eps, standard deviation .072 eps at 20 copies: half of the copies end at the border, the others uniformly before it."""
    moved = method.mcgs(linear, grey(), Y, threat=THREAT, noise=Noise.of(2), forward=1, backward=0, copies=20) - grey()
    size = moved.abs() / EPS
    assert abs(float(size.mean()) - 0.75) < 0.005
    assert abs(float(size.std()) - 0.0722) < 0.003


@pytest.mark.parametrize(("copies", "share"), [(1, 0.875), (2, 0.926), (5, 0.989), (10, 0.999), (20, 1.0)])
def test_share_of_pixels_at_full_budget(copies: int, share: float) -> None:
    change = method.mcgs(linear, grey(), Y, threat=THREAT, noise=Noise.of(2, seed=copies), copies=copies) - grey()
    full = ((change.abs() - EPS).abs() < 1e-12).double().mean()
    assert abs(float(full) - share) < 0.01


def test_pixels_on_which_the_epochs_disagree_return() -> None:
    """A model whose gradient turns round between the epochs: what went forward comes back to about zero."""
    calls: list[int] = []

    def turning(x: Tensor) -> Tensor:
        calls.append(1)
        return linear(x) if len(calls) == 1 else -linear(x)

    change = method.mcgs(turning, grey(), Y, threat=THREAT, noise=Noise.of(2)) - grey()
    assert float(change.abs().mean()) < 0.1 * EPS


def test_reversion_is_exact_on_a_linear_model() -> None:
    x = 0.2 + 0.6 * Noise.of(2, seed=3).uniform(grey())
    x[..., :20] += 0.05  # class 1 wins
    released = method.mcgs(linear, x, Y, threat=THREAT, noise=Noise.of(2))
    back = revert(linear, released, protector=method.mcgs, threat=THREAT, noise=Noise.of(2))
    assert float((back - x).abs().max()) < 1e-12
    other = revert(linear, released, protector=method.mcgs, threat=Threat.parse("linf:4/255"), noise=Noise.of(2))
    assert float((other - x).abs().max()) > 0.4 * EPS  # another budget does not undo it


def test_psnr_of_a_full_budget_is_30_decibel() -> None:
    from forearm.core.quality import psnr

    x = grey()
    assert abs(float(psnr(x + EPS, x)[0]) - 30.07) < 0.01


def test_the_grid_repeats_noise_over_its_cells() -> None:
    cells = method._cells(grey(), THREAT, Noise.of(2), (4, 5))
    assert cells.shape == SHAPE
    assert torch.equal(cells[:, :, :10, :8], cells[:, :, :1, :1].expand(2, 3, 10, 8))
    assert float(cells.std()) > 0.4 * EPS


def noisy_net(x: Tensor) -> Tensor:
    torch.manual_seed(0)
    weight = torch.randn(4, x[0].numel(), dtype=torch.float64).to(x)
    return torch.tanh(x.flatten(1) @ weight.T * 0.3) * 3.0


class Steepest:
    """What `instant` needs in the place of a trained network: the change that lowers the loss of `noisy_net` most."""

    side = 8

    def __call__(self, x: Tensor, y: Tensor | None, eps: float) -> Tensor:
        return -input_gradient(noisy_net, x, noisy_net(x).argmax(1) if y is None else y)[0].sign()


def named(name: str) -> Callable[..., Tensor]:
    found = bind(PREEMPTIVE, QUICK.get(name, name))
    return partial(found, writer=Steepest()) if accepts(found, "writer") else found


def within(protector: Callable[..., Tensor], threat: Threat) -> bool:
    x = Noise.of(3, seed=1).uniform(torch.empty(3, 3, 8, 8))
    released = protector(noisy_net, x, torch.tensor([0, 1, 2]), threat=threat, noise=Noise.of(3))
    inside = bool((threat.distance(released, x) <= threat.eps * (1 + 1e-5)).all())
    return inside and bool((released >= 0).all()) and bool((released <= 1).all()) and released.shape == x.shape


@pytest.mark.parametrize("threat", ["linf:8/255", "linf:0", "l2:0.5"])
@pytest.mark.parametrize("name", PREEMPTIVE)
def test_every_release_is_within_its_budget(name: str, threat: str) -> None:
    assert within(named(name), Threat.parse(threat))


def test_the_budget_law_has_teeth() -> None:
    def greedy(model, x, y, *, threat, noise):  # type: ignore[no-untyped-def]
        return method.mcgs(model, x, y, threat=Threat(threat.norm, threat.eps * 1.01), noise=noise)

    assert not within(greedy, THREAT)


@pytest.mark.parametrize("name", sorted(set(PREEMPTIVE) - {"none"}))
def test_every_defence_raises_the_margin_of_its_label(name: str) -> None:
    x, y = Noise.of(3, seed=1).uniform(torch.empty(3, 3, 8, 8)), torch.tensor([0, 1, 2])
    released = named(name)(noisy_net, x, y, threat=THREAT, noise=Noise.of(3))
    assert bool((THREAT.margin(noisy_net(released), y) < THREAT.margin(noisy_net(x), y)).all())
