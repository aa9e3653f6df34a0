"""What MID's probes compute (`benchmarks/mid_probes.py`), against cases whose answer is known."""

from __future__ import annotations

import importlib.util
import math
from pathlib import Path
from types import ModuleType

import pytest
import torch
from torch import Tensor, nn

from forearm.defenses.training.mid import Weights
from forearm.models.autoencoder import frozen
from forearm.models.lenet import lenet_autoencoder


@pytest.fixture(scope="module")
def probes() -> ModuleType:
    path = Path(__file__).parents[2] / "benchmarks" / "mid_probes.py"
    spec = importlib.util.spec_from_file_location("mid_probes", path)
    assert spec is not None
    assert spec.loader is not None
    made = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(made)
    return made


def quadratic(at: dict[str, Tensor]) -> Tensor:
    """Curvatures 1, 3 and -7."""
    return 0.5 * (at["a"] ** 2 * torch.tensor([1.0, 3.0], dtype=torch.float64)).sum() - 3.5 * (at["b"] ** 2).sum()


def point() -> dict[str, Tensor]:
    return {
        "a": torch.tensor([0.3, -0.2], dtype=torch.float64).requires_grad_(),
        "b": torch.tensor([0.5], dtype=torch.float64).requires_grad_(),
    }


def test_the_largest_curvature_of_a_known_quadratic(probes: ModuleType) -> None:
    assert probes.sharpness(quadratic, point(), 60) == pytest.approx(-7.0, rel=1e-6)


def test_alignment_is_the_mean_cosine_of_pairs(probes: ModuleType) -> None:
    right, up, diagonal = torch.tensor([2.0, 0.0]), torch.tensor([0.0, 1.0]), torch.tensor([1.0, 1.0])
    assert probes.alignment([right, up, diagonal]) == pytest.approx((0.0 + 2 * math.sqrt(0.5)) / 3)


def test_the_expansion_errs_with_the_square_of_the_step(probes: ModuleType) -> None:
    def other(at: dict[str, Tensor]) -> Tensor:
        return at["a"].exp().sum() + at["b"].sin().sum()

    errors = probes.taylor_errors(quadratic, other, point(), [1e-3, 1e-2])
    assert errors[1] / errors[0] == pytest.approx(100.0, rel=0.05)


def test_noise_on_weights_has_the_size_that_is_asked_for(probes: ModuleType) -> None:
    at = point()
    noisy = probes.shaken(at, 0.1, seed=1)
    for name, value in at.items():
        assert float((noisy[name] - value.detach()).norm() / value.detach().norm()) == pytest.approx(0.1)
    assert not torch.equal(noisy["a"], probes.shaken(at, 0.1, seed=2)["a"])


def test_filters_keep_what_they_should(probes: ModuleType) -> None:
    along = torch.arange(28) / 28
    slow, quick = (0.2 * torch.sin(2 * math.pi * cycles * along).expand(1, 1, 28, 28) for cycles in (2, 9))
    x = 0.5 + slow + quick
    torch.testing.assert_close(probes.passed(x, 4, low=True), 0.5 + slow, atol=1e-5, rtol=0.0)
    torch.testing.assert_close(probes.passed(x, 4, low=False), 0.5 + quick, atol=1e-5, rtol=0.0)


def test_the_spectrum_of_a_net_that_looks_at_one_wave(probes: ModuleType) -> None:
    wave = torch.sin(2 * math.pi * 5 * torch.arange(28) / 28).expand(28, 28)
    net = nn.Sequential(nn.Flatten(), nn.Linear(784, 2))
    with torch.no_grad():
        net[1].weight.copy_(torch.stack([wave.flatten(), -wave.flatten()]))
    power = probes.spectrum(net, torch.rand(3, 1, 28, 28), torch.tensor([0, 1, 0]))
    assert power.argmax(1).tolist() == [5, 5, 5]
    torch.testing.assert_close(power[:, 5], torch.ones(3, dtype=torch.float64))


def test_neighbours_count_their_labels(probes: ModuleType) -> None:
    bank, labels = torch.tensor([[1.0, 0.0], [1.0, 0.1], [0.0, 1.0], [0.1, 1.0]]), torch.tensor([0, 1, 1, 1])
    shares = probes.neighbours(torch.tensor([[2.0, 0.1], [0.0, 3.0]]), bank, labels, torch.tensor([0, 1]), k=2)
    assert shares.tolist() == [0.5, 1.0]


def test_an_objective_is_differentiated_in_the_encoder_alone(probes: ModuleType) -> None:
    torch.manual_seed(0)
    teacher = frozen(lenet_autoencoder(width=2)).double()
    net = probes.free(lenet_autoencoder(width=2))
    x, y = torch.rand(4, 1, 28, 28, dtype=torch.float64), torch.arange(4)
    loss = probes.objective(teacher, net, x, x, y, Weights(pixels=1.0))
    at = probes.parameters(net)
    slope = probes.gradient(loss, at)
    down = probes.moved(at, slope, -1e-6 / float(slope.norm()))
    assert float((loss(at) - loss(down)).detach()) == pytest.approx(1e-6 * float(slope.norm()), rel=1e-2)
    assert all(p.grad is None for p in net.parameters())
