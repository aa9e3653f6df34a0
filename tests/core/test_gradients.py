"""Input gradients and their stand-ins: right numbers, each example its own, and nothing else touched."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from forearm.core.gradients import Classifier, bpda, eot, expectation, finite_difference_gradient, input_gradient, straight_through
from forearm.core.losses import cross_entropy, margin
from forearm.core.noise import Noise
from forearm.errors import SpecError


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


# backward passes of another function


def test_bpda_has_one_functions_value_and_the_others_gradient() -> None:
    x = torch.linspace(0.0, 3.0, 60).reshape(2, 1, 5, 6)
    joined = bpda(torch.round, torch.sin)
    with torch.enable_grad():
        leaf = x.clone().requires_grad_()
        value = joined(leaf)
        (gradient,) = torch.autograd.grad(value.sum(), leaf)
    assert torch.equal(value, x.round())
    torch.testing.assert_close(gradient, x.cos())
    (flat,) = torch.autograd.grad(leaf.round().sum(), leaf)  # the mutant: the function's own gradient
    assert not torch.allclose(flat, x.cos())


def test_bpda_counts_no_gradient_of_a_function_that_hands_back_its_input() -> None:
    leaf = torch.rand(1, 3, 4, 4, generator=torch.Generator().manual_seed(0)).requires_grad_()
    (gradient,) = torch.autograd.grad(bpda(lambda v: v, torch.sin)(leaf).sum(), leaf)
    torch.testing.assert_close(gradient, leaf.detach().cos())


def test_bpda_keeps_the_value_to_the_bit() -> None:
    """The usual way to write it, g + (f - g), rounds twice."""
    x = torch.rand(1, 3, 40, 40, generator=torch.Generator().manual_seed(0)).requires_grad_()
    near = 1e3 * x
    assert torch.equal(bpda(torch.sin, lambda v: 1e3 * v)(x), x.sin())
    assert not torch.equal(near + (x.sin() - near).detach(), x.sin())


def test_bpda_asks_the_substitute_for_gradients_only() -> None:
    def refuses(x: Tensor) -> Tensor:
        raise AssertionError

    x = torch.rand(1, 3, 4, 4)
    with torch.no_grad():
        assert torch.equal(bpda(torch.round, refuses)(x), x.round())
    with pytest.raises(AssertionError):
        bpda(torch.round, refuses)(x)


def test_straight_through_gives_a_rounded_model_its_slope() -> None:
    model, (x, y) = net(), batch()
    rounded = straight_through(lambda v: (v * 15).round() / 15)
    gradient, logits = input_gradient(lambda v: model(rounded(v)), x, y)
    expected, wanted = input_gradient(model, (x * 15).round() / 15, y)
    assert torch.equal(logits, wanted)
    torch.testing.assert_close(gradient, expected)
    hidden, _ = input_gradient(lambda v: model((v * 15).round() / 15), x, y)  # the mutant
    assert not hidden.any()


# expectations


def nets() -> list[nn.Module]:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(4)
        return [nn.Sequential(nn.Flatten(), nn.Linear(108, 5)).double().requires_grad_(False) for _ in range(3)]


def mean_probability(models: list[nn.Module], weights: list[float]) -> Classifier:
    return lambda x: sum(w * m(x).softmax(1) for m, w in zip(models, weights, strict=True)).log()


def mean_logits(models: list[nn.Module], weights: list[float]) -> Classifier:
    return lambda x: sum(w * m(x) for m, w in zip(models, weights, strict=True))


def mean_losses(models: list[nn.Module], weights: list[float]) -> Classifier:
    return lambda x: sum(w * m(x).log_softmax(1) for m, w in zip(models, weights, strict=True))


@pytest.mark.parametrize("recompute", [False, True])
def test_an_expectation_is_the_log_of_the_mean_probability(recompute: bool) -> None:
    models, (x, y) = nets(), batch()
    weights = [0.5, 0.2, 0.3]
    gradient, logits = input_gradient(expectation(models, [5, 2, 3], recompute=recompute), x, y)
    slow, slow_logits = input_gradient(mean_probability(models, weights), x, y)
    torch.testing.assert_close(logits, slow_logits)
    torch.testing.assert_close(gradient, slow)
    for mutant in (mean_logits, mean_losses):
        other, other_logits = input_gradient(mutant(models, weights), x, y)
        assert not torch.allclose(other_logits, logits, rtol=1e-4)
        assert not torch.allclose(other, gradient, rtol=1e-4)


def test_the_expectation_of_one_model_has_its_margins() -> None:
    model, (x, y) = net(), batch()
    torch.testing.assert_close(margin(expectation([model])(x), y), margin(model(x), y))
    torch.testing.assert_close(expectation([model, model, model])(x), model(x).log_softmax(1))
    torch.testing.assert_close(expectation([net(), nets()[0]], [0.0, 2.0])(x), nets()[0](x).log_softmax(1))


def test_over_confident_models_do_not_overflow() -> None:
    models = nets()
    for model in models:
        model[1].weight.mul_(1e5)
    x, y = batch()
    gradient, logits = input_gradient(expectation(models), x, y, margin)
    assert bool(gradient.isfinite().all())
    assert bool(logits.isfinite().all())
    assert not mean_probability(models, [1 / 3] * 3)(x).isfinite().all()  # the mutant


class Counted(nn.Module):
    """A model that draws, and counts its passes."""

    def __init__(self) -> None:
        super().__init__()
        self.model, self.passes = nets()[0], 0

    def forward(self, x: Tensor) -> Tensor:
        self.passes += 1
        return self.model(x + 0.1 * torch.randn_like(x))


def seeded(function: Callable[[], tuple[Tensor, Tensor]]) -> tuple[Tensor, Tensor]:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(7)
        return function()


def test_eot_is_the_expectation_over_its_draws() -> None:
    (x, y), counted = batch(), Counted()
    for recompute in (False, True):
        gradient, logits = seeded(lambda recompute=recompute: input_gradient(eot(counted, 5, recompute=recompute), x, y))
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(7)
            shifts = [0.1 * torch.randn_like(x) for _ in range(5)]
        drawn: list[Classifier] = [lambda v, s=s: counted.model(v + s) for s in shifts]
        expected, wanted = input_gradient(expectation(drawn), x, y)
        torch.testing.assert_close(logits, wanted)
        torch.testing.assert_close(gradient, expected)
        other, _ = input_gradient(expectation(drawn[:4]), x, y)
        assert not torch.allclose(other, gradient)


def test_recomputing_costs_one_more_pass_of_each() -> None:
    (x, y), counted = batch(), Counted()
    for recompute, passes in ((False, 5), (True, 10)):
        counted.passes = 0
        seeded(lambda recompute=recompute: input_gradient(eot(counted, 5, recompute=recompute), x, y))
        assert counted.passes == passes
    counted.passes = 0
    with torch.no_grad():
        eot(counted, 5)(x)
    assert counted.passes == 5


@pytest.mark.parametrize("weights", [[1.0], [1.0, -1.0, 1.0], [0.0, 0.0, 0.0], [math.inf, 1.0, 1.0], [math.nan, 1.0, 1.0]])
def test_weights_that_do_not_fit_are_refused(weights: list[float]) -> None:
    with pytest.raises(SpecError, match=r"expectation: got 3 models .* for example"):
        expectation(nets(), weights)


def test_no_models_and_no_copies_are_refused() -> None:
    with pytest.raises(SpecError, match=r"expectation: got 0 models"):
        expectation([])
    with pytest.raises(SpecError, match=r"eot: got copies=0; .* for example"):
        eot(net(), 0)


# differences


def linear() -> tuple[Classifier, Tensor]:
    weight = torch.randn(5, 12, generator=torch.Generator().manual_seed(9), dtype=torch.float64)
    return lambda v: v.flatten(1) @ weight.T, weight


def softmax_slope(x: Tensor, y: Tensor) -> Tensor:
    """The gradient of the cross-entropy of the linear model, W^T (softmax(W x) - e_y)."""
    _, weight = linear()
    share = (x.flatten(1) @ weight.T).softmax(1) - nn.functional.one_hot(y, 5)
    return (share @ weight).reshape(x.shape)


def small() -> tuple[Tensor, Tensor]:
    return torch.rand(4, 3, 2, 2, generator=torch.Generator().manual_seed(5), dtype=torch.float64), torch.tensor([0, 4, 2, 2])


def test_central_differences_are_the_closed_form() -> None:
    (model, _), (x, y) = linear(), small()
    exact = softmax_slope(x, y)
    torch.testing.assert_close(finite_difference_gradient(model, x, y), exact, rtol=0, atol=1e-5)
    torch.testing.assert_close(finite_difference_gradient(model, x, y, step=1e-5), exact, rtol=0, atol=1e-9)
    forward = torch.zeros_like(x)  # the mutant: differences to one side, whose error is of the first order
    for i in range(12):
        v = torch.eye(12, dtype=torch.float64)[i].reshape(1, 3, 2, 2)
        forward += (cross_entropy(model(x + 1e-3 * v), y) - cross_entropy(model(x), y)).reshape(-1, 1, 1, 1) / 1e-3 * v
    assert not torch.allclose(forward, exact, rtol=0, atol=1e-5)


def test_directions_give_the_projection_of_the_gradient() -> None:
    (model, _), (x, y) = linear(), small()
    exact = softmax_slope(x, y).flatten(1)
    made = finite_difference_gradient(model, x, y, step=1e-4, directions=5, noise=Noise.of(4, seed=1)).flatten(1)
    rows = Noise.of(4, seed=1).normal(torch.empty(4, 5, 12, dtype=torch.float64))
    projected = (rows.transpose(1, 2) @ torch.linalg.solve(rows @ rows.transpose(1, 2), rows @ exact[:, :, None])).squeeze(2)
    torch.testing.assert_close(made, projected, rtol=0, atol=1e-7)
    gaussian = (rows * (rows @ exact[:, :, None])).mean(1)  # the mutant: directions that are not orthonormal
    assert not torch.allclose(gaussian, projected, rtol=0.05, atol=1e-3)
    whole = finite_difference_gradient(model, x, y, step=1e-4, directions=12, noise=Noise.of(4, seed=1))
    torch.testing.assert_close(whole.flatten(1), exact, rtol=0, atol=1e-7)


def test_the_projection_has_its_share_of_the_gradient() -> None:
    (model, _), n = linear(), 300
    x = torch.rand(n, 3, 2, 2, generator=torch.Generator().manual_seed(6), dtype=torch.float64)
    y = torch.arange(n) % 5
    made = finite_difference_gradient(model, x, y, directions=3, noise=Noise.of(n))
    share = (made.flatten(1).square().sum(1) / softmax_slope(x, y).flatten(1).square().sum(1)).mean()
    assert abs(float(share) - 3 / 12) < 0.03


def test_differences_ignore_their_batch_and_touch_nothing() -> None:
    model, (x, y) = net(), batch()
    kept, state = x.clone(), torch.get_rng_state()
    together = finite_difference_gradient(model, x, y, margin, directions=4, noise=Noise.of(3))
    for i in range(3):
        alone = finite_difference_gradient(model, x[i : i + 1], y[i : i + 1], margin, directions=4, noise=Noise.of(1, first=i))
        torch.testing.assert_close(alone[0], together[i])
    assert torch.equal(x, kept)
    assert not together.requires_grad
    assert all(p.grad is None for p in model.parameters())
    assert torch.equal(torch.get_rng_state(), state)


def test_float32_differences_are_good_to_a_thousandth() -> None:
    model, (x, y) = net(), batch()
    exact, _ = input_gradient(model, x, y)
    made = finite_difference_gradient(model.float(), x.float(), y)
    assert float((made - exact).norm() / exact.norm()) < 5e-3


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"step": 0.0}, "got step=0.0"),
        ({"step": math.nan}, "got step=nan"),
        ({"directions": 0, "noise": Noise.of(3)}, "directions=0"),
        ({"directions": 109, "noise": Noise.of(3)}, "1 to 108"),
        ({"directions": 3}, "without noise"),
    ],
)
def test_wrong_differences_are_refused(options: dict[str, object], message: str) -> None:
    x, y = batch()
    with pytest.raises(SpecError, match=f"finite differences: .*{message}.*for example"):
        finite_difference_gradient(net(), x, y, **options)
