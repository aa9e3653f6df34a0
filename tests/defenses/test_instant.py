"""The instant release: what it makes of its network's answer, and the recipe that trains the network."""

from __future__ import annotations

from dataclasses import dataclass, field

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from forearm.core.noise import Noise
from forearm.core.quantize import release
from forearm.core.threat import Threat
from forearm.data.batches import Batch
from forearm.defenses.preemptive.instant import instant
from forearm.defenses.training import instant as training
from forearm.errors import SpecError
from forearm.models.instant import instant as network

THREAT = Threat.parse("linf:8/255")
EPS = THREAT.eps
Y = torch.tensor([1, 2])


@dataclass
class Fixed:
    """A network that always answers the same, and remembers what it was asked."""

    answer: Tensor
    side: int = 8
    asked: list[tuple[tuple[int, ...], Tensor | None, float]] = field(default_factory=list)

    def __call__(self, x: Tensor, y: Tensor | None, eps: float) -> Tensor:
        self.asked.append((tuple(x.shape), y, eps))
        return self.answer.expand(len(x), 3, *x.shape[2:])


def grey(*shape: int) -> Tensor:
    return torch.full(shape, 0.5)


def nothing(x: Tensor) -> Tensor:
    raise AssertionError("the backbone was asked")


def run(x: Tensor, writer: Fixed, threat: Threat = THREAT, own: bool = False) -> Tensor:
    return instant(nothing, x, Y[: len(x)], threat=threat, noise=Noise.of(len(x)), writer=writer, own=own)


def test_the_change_is_eps_times_the_answer() -> None:
    answer = torch.linspace(-1.0, 1.0, 192).reshape(1, 3, 8, 8)
    writer = Fixed(answer)
    change = run(grey(2, 3, 8, 8), writer) - 0.5
    assert torch.allclose(change, EPS * answer.expand(2, -1, -1, -1), atol=1e-7)
    shape, y, eps = writer.asked[0]
    assert shape == (2, 3, 8, 8)
    assert y is not None
    assert torch.equal(y, Y)
    assert eps == EPS
    assert float((run(torch.ones(2, 3, 8, 8), writer) - 1.0).max()) == 0.0  # the box


def test_a_network_that_answers_too_much_is_held_to_the_budget() -> None:
    x = torch.rand(2, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    x = (x * 255).round() / 255
    armed = release(run(x, Fixed(torch.tensor(3.0))), x, THREAT)
    assert int(((armed - x) * 255).round().abs().max()) == 8


def test_its_own_class_instead_of_the_label() -> None:
    writer = Fixed(torch.tensor(1.0))
    run(grey(2, 3, 8, 8), writer, own=True)
    assert writer.asked[0][1] is None


@pytest.mark.parametrize(
    ("shape", "seen"), [((1, 3, 16, 20), (8, 10)), ((1, 3, 4, 4), (8, 8)), ((1, 1, 8, 8), (8, 8)), ((1, 3, 1, 1), (8, 8))]
)
def test_pictures_of_other_sizes_go_through_the_networks_own(shape: tuple[int, ...], seen: tuple[int, int]) -> None:
    writer = Fixed(torch.tensor(0.5))
    change = run(grey(*shape), writer) - 0.5
    assert writer.asked[0][0] == (1, 3, *seen)
    assert change.shape == shape
    assert torch.allclose(change, torch.full(shape, 0.5 * EPS), atol=1e-7)


def test_greyscale_gets_the_mean_of_the_channels() -> None:
    answer = torch.tensor([1.0, 0.5, -0.9]).reshape(1, 3, 1, 1)
    change = run(grey(1, 1, 8, 8), Fixed(answer)) - 0.5
    assert torch.allclose(change, torch.full_like(change, 0.2 * EPS), atol=1e-7)


def test_other_norms_are_filled_to_their_size() -> None:
    threat = Threat.parse("l2:0.5")
    change = run(grey(2, 3, 8, 8), Fixed(torch.tensor(0.01)), threat) - 0.5
    assert torch.allclose(change.flatten(1).norm(dim=1), torch.full((2,), 0.5), atol=1e-5)


def test_a_name_is_no_network() -> None:
    with pytest.raises(SpecError, match="got the name 'cifar10_instant' for its network"):
        instant(nothing, grey(1, 3, 8, 8), Y[:1], threat=THREAT, noise=Noise.of(1))


# The recipe


def linear() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Flatten(), nn.Linear(3 * 64, 3)).requires_grad_(False)


def batch(n: int = 4) -> Batch:
    return Batch(0.3 + 0.4 * Noise.of(n, seed=2).uniform(torch.empty(n, 3, 8, 8)), torch.arange(n) % 3, torch.arange(n))


class Answering(nn.Module):
    """A writer whose answer is a parameter."""

    def __init__(self, answer: Tensor) -> None:
        super().__init__()
        self.answer = nn.Parameter(answer)
        self.logits = nn.Parameter(torch.zeros(len(answer), 3))

    def encode(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        return x, x, x

    def judge(self, features: tuple[Tensor, Tensor, Tensor]) -> Tensor:
        return self.logits

    def decode(self, features: tuple[Tensor, Tensor, Tensor], y: Tensor, eps: Tensor) -> Tensor:
        return self.answer


def gradient_of(model: nn.Module, z: Tensor, y: Tensor) -> Tensor:
    z = z.clone().requires_grad_()
    (g,) = torch.autograd.grad(F.cross_entropy(model(z), y, reduction="sum"), z)
    return g


def test_the_slope_by_hand() -> None:
    """Without noise: <g / |g|_1, u> with g at x + eps u, and -1 where u is the sign of -g. The model sees a mirrored picture as it sees the picture."""
    model, b = linear(), batch()
    with torch.no_grad():
        weight = model[1].weight.reshape(3, 3, 8, 8)
        weight.copy_(weight + weight.flip(3))
    step = training.instant(model, low=EPS, high=EPS, spread=0.0, coarse=1.0, own=0.0)
    u = Noise.of(4, seed=5).uniform(b.x, -1.0, 1.0)
    g = gradient_of(model, b.x + EPS * u, b.y)
    wanted = (g / g.abs().sum((1, 2, 3), keepdim=True) * u).sum((1, 2, 3)).mean()
    values = step(Answering(u), b)
    assert abs(float(values["slope"].detach() - wanted)) < 1e-6
    assert torch.equal(values["loss"], values["slope"])
    assert abs(float(step(Answering(-g.sign()), b)["slope"].detach()) + 1.0) < 0.01
    assert abs(float(step(Answering(g.sign()), b)["slope"].detach()) - 1.0) < 0.01


def test_looks_are_drawn_for_each_batch() -> None:
    model, seen = linear(), set()
    step = training.instant(model, low=EPS, high=EPS, spread=0.0, coarse=0.5, own=0.0)
    for first in range(12):
        b = batch()
        b = Batch(b.x, b.y, torch.arange(first, first + 4))
        seen.add(round(float(step(Answering(torch.linspace(-0.9, 0.9, b.x.numel()).reshape(b.x.shape)), b)["slope"].detach()), 5))
    assert len(seen) == 4


def test_a_step_depends_on_its_batch_alone() -> None:
    b, torch_state = batch(), torch.get_rng_state()
    step = training.instant(linear())
    first, second = (step(Answering(torch.zeros_like(b.x)), b) for _ in range(2))
    assert float(first["sure"]) == float(second["sure"])
    assert torch.equal(torch.get_rng_state(), torch_state)
    other = step(Answering(torch.zeros_like(b.x)), Batch(b.x, b.y, b.ids.flip(0)))
    assert float(other["sure"]) != float(first["sure"])


def test_gradients_reach_the_network_and_not_the_backbone() -> None:
    b, backbone = batch(), linear()
    model = Answering(torch.zeros_like(b.x))
    training.instant(backbone, own=0.5)(model, b)["loss"].backward()
    assert model.answer.grad is not None
    assert torch.allclose(model.answer.grad.abs().sum((1, 2, 3)), torch.full((4,), 0.25), atol=1e-5)  # every picture counts alike
    assert model.logits.grad is not None
    assert float(model.logits.grad.abs().sum()) > 0
    assert all(p.grad is None for p in backbone.parameters())


def test_a_network_learns_to_lower_the_backbones_loss() -> None:
    """And the mutant, whose slope is turned round, does not."""
    backbone, b = linear(), batch(6)

    def margin_won(turned: float) -> float:
        torch.manual_seed(1)
        model = network(classes=3, width=4)
        optimizer = torch.optim.SGD(model.parameters(), lr=0.3, momentum=0.9)
        step = training.instant(backbone, low=EPS, high=EPS, own=0.0, coarse=1.0)
        for k in range(25):
            optimizer.zero_grad()
            (turned * step(model, Batch(b.x, b.y, b.ids + 6 * k))["loss"]).backward()
            optimizer.step()
        model.eval()
        with torch.no_grad():
            armed = b.x + EPS * model.direction(b.x, b.y, EPS)
            return float(F.cross_entropy(backbone(b.x), b.y) - F.cross_entropy(backbone(armed), b.y))

    assert margin_won(1.0) > 0.02
    assert margin_won(-1.0) < 0.0


def test_what_is_no_budget() -> None:
    with pytest.raises(SpecError, match="0 < low <= high"):
        training.instant(linear(), low=0.1, high=0.05)
