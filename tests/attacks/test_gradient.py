"""The direction of ascent where cross-entropy has none, and verdicts."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from forearm.attacks.fgsm import fgsm
from forearm.attacks.gradient import ascent_gradient, class_gradients, confirmed, cross_entropy, loss_named, margins
from forearm.attacks.pgd import pgd
from forearm.core import losses
from forearm.core.gradients import input_gradient
from forearm.core.losses import Loss
from forearm.core.noise import Noise
from forearm.core.threat import Threat
from forearm.errors import SpecError

W = torch.linspace(-1.0, 1.0, 48)
THREAT = Threat.parse("linf:0.1")


def saturated(x: Tensor) -> Tensor:
    """Logits 500 apart, more than float32's softmax can tell: the cross-entropy's gradient is exactly zero."""
    z = 1000.0 * (x.flatten(1) @ W) + 500.0
    return torch.stack([z, -z, torch.zeros_like(z)], 1)


def grey(n: int = 3) -> tuple[Tensor, Tensor]:
    return torch.full((n, 3, 4, 4), 0.5), torch.zeros(n, dtype=torch.long)


def test_a_vanished_gradient_is_that_of_the_margin() -> None:
    x, y = grey()
    plain, _ = input_gradient(saturated, x, y)
    assert not plain.any()
    gradient, _ = ascent_gradient(saturated, x, y, threat=THREAT)
    assert torch.equal(gradient.sign(), -W.sign().reshape(1, 3, 4, 4).expand_as(x))


def slope(loss: Loss, logits: Tensor, y: Tensor) -> Tensor:
    z = logits.clone().requires_grad_()
    return torch.autograd.grad(loss(z, y).sum(), z)[0]


def test_cross_entropy_has_its_value_and_its_gradient() -> None:
    logits = 4.0 * torch.randn(40, 6, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    y = torch.arange(40) % 6
    assert torch.allclose(cross_entropy(logits, y), F.cross_entropy(logits, y, reduction="none"), rtol=1e-12)
    assert torch.allclose(slope(cross_entropy, logits, y), slope(losses.cross_entropy, logits, y), rtol=1e-9, atol=1e-15)


@pytest.mark.parametrize("margin", [1.0, 12.0, 17.0, 30.0, 60.0])
def test_cross_entropy_keeps_its_direction_in_float32(margin: float) -> None:
    """Against the closed form, where the usual form has lost the part of z_y to rounding."""
    logits, y = torch.tensor([[margin, 0.0, -0.5, -2.0]]), torch.tensor([0])
    others = logits[:, 1:].double().exp()
    exact = torch.cat([-others.sum(1, keepdim=True), others], 1) / (others.sum() + logits[0, 0].double().exp())
    assert torch.allclose(slope(cross_entropy, logits, y).double(), exact, rtol=1e-5, atol=0.0)
    lost = (slope(losses.cross_entropy, logits, y).double() - exact).abs().max() / exact.abs().max()
    assert bool(lost > 1e-3) is (margin > 10.0)


@pytest.mark.parametrize("attack", [fgsm, pgd])
def test_a_saturated_model_falls_where_its_optimum_says_so(attack) -> None:  # type: ignore[no-untyped-def]
    x, y = grey()
    x_adv = attack(saturated, x, y, threat=THREAT, noise=Noise.of(3))
    assert 0.1 * float(W.abs().sum()) > 0.5 + float(W.sum() * 0.5)
    assert (saturated(x_adv).argmax(1) != y).all()


def test_only_the_vanished_examples_change_their_loss() -> None:
    x, _ = grey(2)
    y = torch.tensor([0, 2])  # the second is misclassified: its cross-entropy has a gradient
    plain, _ = input_gradient(saturated, x, y)
    gradient, _ = ascent_gradient(saturated, x, y, threat=THREAT)
    assert torch.equal(gradient[1], plain[1])
    assert gradient[0].any()


def test_a_targeted_threat_turns_the_direction() -> None:
    x, y = grey()
    away, _ = ascent_gradient(saturated, x, y, threat=THREAT)
    towards, _ = ascent_gradient(saturated, x, y, threat=Threat(THREAT.norm, THREAT.eps, targeted=True))
    assert torch.equal(away, -towards)


def test_what_is_not_finite_moves_nothing() -> None:
    x, y = grey()

    def broken(x: Tensor) -> Tensor:
        return saturated(x) / (x - x).flatten(1).sum(1, keepdim=True)

    gradient, _ = ascent_gradient(broken, x, y, threat=THREAT)
    assert gradient.isfinite().all()
    assert (margins(lambda x: torch.full((len(x), 3), float("nan")), x, y, THREAT) == float("-inf")).all()
    assert pgd(broken, x, y, threat=THREAT, noise=Noise.of(3)).isfinite().all()


def test_copies_average_a_random_model() -> None:
    x, y = grey(1)
    turns = iter([1.0, -3.0, 1.0, -3.0])

    def random(x: Tensor) -> Tensor:
        z = next(turns) * (x.flatten(1) @ W)
        return torch.stack([z, -z], 1)

    gradient, _ = ascent_gradient(random, x, y, threat=THREAT, loss=loss_named("margin"), copies=4)
    assert torch.allclose(gradient.flatten(), 2.0 * W)  # -2 W times the mean turn of -1


def test_class_gradients_are_rows_of_the_jacobian() -> None:
    x, _ = grey(2)
    rows, logits = class_gradients(saturated, x, torch.tensor([[0, 2], [1, 0]]))
    assert torch.allclose(rows[:, :, 0, 0, 0], 1000.0 * torch.tensor([[W[0], 0.0], [-W[0], W[0]]]))
    assert torch.equal(logits, saturated(x))


def test_a_twin_cannot_decide() -> None:
    x, y = grey(2)
    claims = torch.tensor([[0.0, 5.0, 0.0], [5.0, 0.0, 0.0]])
    taken = confirmed(saturated, saturated, claims, x, y, THREAT)
    assert taken[0] < -100  # the model's own
    assert taken[1] == -5.0  # a twin's failure is believed


def test_an_unknown_loss_is_refused() -> None:
    with pytest.raises(SpecError, match="one of ce, margin, dlr"):
        loss_named("hinge")
    two = torch.tensor([[1.0, 3.0]])
    assert loss_named("dlr")(two, torch.tensor([0])) == 2.0  # two classes: the margin
