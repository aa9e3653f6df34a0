"""Input gradients: right numbers, each example its own, and nothing else touched."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from forearm.core.gradients import input_gradient
from forearm.core.losses import margin


def net() -> nn.Module:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return nn.Sequential(nn.Conv2d(3, 4, 3), nn.Tanh(), nn.Flatten(), nn.Linear(4 * 4 * 4, 5)).double().eval()


def batch() -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(1)
    return torch.rand(3, 3, 6, 6, generator=generator).double(), torch.tensor([0, 3, 4])


def test_it_is_the_slope_of_each_examples_loss() -> None:
    model, (x, y) = net(), batch()
    gradient, logits = input_gradient(model, x, y)
    direction = torch.randn(x.shape, generator=torch.Generator().manual_seed(2)).double()
    h = 1e-5
    up = nn.functional.cross_entropy(model(x + h * direction), y, reduction="none")
    down = nn.functional.cross_entropy(model(x - h * direction), y, reduction="none")
    torch.testing.assert_close((gradient * direction).flatten(1).sum(1), (up - down).detach() / (2 * h), rtol=1e-6, atol=1e-9)
    torch.testing.assert_close(logits, model(x).detach())


def test_neighbours_do_not_matter() -> None:
    model, (x, y) = net(), batch()
    together, _ = input_gradient(model, x, y)
    alone = torch.cat([input_gradient(model, x[i : i + 1], y[i : i + 1])[0] for i in range(3)])
    torch.testing.assert_close(together, alone)
    mean = together / len(x)  # the mutant: the mean of the losses
    assert not torch.allclose(mean, alone)


def test_a_linear_model_has_its_weights_as_gradient_of_the_margin() -> None:
    weight = torch.randn(2, 12, generator=torch.Generator().manual_seed(4))
    x, y = torch.rand(5, 3, 2, 2, generator=torch.Generator().manual_seed(5)), torch.tensor([0, 1, 0, 1, 1])
    gradient, _ = input_gradient(lambda v: v.flatten(1) @ weight.T, x, y, margin)
    expected = torch.stack([weight[1 - k] - weight[k] for k in y.tolist()]).reshape(x.shape)
    torch.testing.assert_close(gradient, expected)


def test_parameters_pictures_and_generators_are_left_alone() -> None:
    model, (x, y) = net(), batch()
    kept, before, state = x.clone(), [p.clone() for p in model.parameters()], torch.get_rng_state()
    with torch.no_grad():
        gradient, logits = input_gradient(model, x, y)
        assert not torch.is_grad_enabled()
    assert all(p.grad is None for p in model.parameters())
    assert all(torch.equal(p, q) for p, q in zip(model.parameters(), before, strict=True))
    assert x.grad is None
    assert not x.requires_grad
    assert torch.equal(x, kept)
    assert not gradient.requires_grad
    assert not logits.requires_grad
    assert torch.equal(torch.get_rng_state(), state)


def test_logits_are_at_least_float32() -> None:
    x, y = batch()
    assert input_gradient(lambda v: v.flatten(1)[:, :5].bfloat16(), x, y)[1].dtype == torch.float32
    assert input_gradient(lambda v: v.flatten(1)[:, :5].float(), x, y)[1].dtype == torch.float32
    assert input_gradient(lambda v: v.flatten(1)[:, :5], x, y)[1].dtype == torch.float64
