"""MCGS against its slow float64 reference on the same noise, for MSPD and for general cascades; wrong readings of the paper must differ."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch
from torch import Tensor, nn

from forearm.core.noise import Noise
from forearm.core.threat import Threat
from forearm.defenses.preemptive import mcgs as method
from tests.parity import mcgs_reference

EPS = 8 / 255
THREAT = Threat.parse("linf:8/255")


def small_net() -> nn.Module:
    torch.manual_seed(0)
    layers = nn.Conv2d(3, 6, 3, padding=1), nn.Tanh(), nn.Conv2d(6, 4, 3, stride=2), nn.Tanh(), nn.Flatten(), nn.Linear(48, 5)
    return nn.Sequential(*layers).double()


def pictures(n: int = 3) -> Tensor:
    return Noise.of(n, seed=11).uniform(torch.empty(n, 3, 9, 7, dtype=torch.float64))


def draws(noise: Noise, x: Tensor) -> Iterator[Tensor]:
    while True:
        yield noise.uniform(x[None], -EPS, EPS)[0]


CASES = {
    "mspd": {"copies": 4},
    "one copy": {"copies": 1},
    "F3-B2 small steps": {"copies": 3, "forward": 3, "backward": 2, "rate": 0.4, "step": 0.5},
    "two inner steps": {"copies": 2, "inner": 2, "step": 0.3},
    "forward only": {"copies": 3, "forward": 2, "backward": 0, "rate": 0.5},
    "backward only": {"copies": 3, "forward": 0, "backward": 2, "rate": 0.5},
}


def reference(model: nn.Module, x: Tensor, y: Tensor, seed: int, case: dict[str, float]) -> Tensor:
    names = {"copies": "n", "forward": "a", "backward": "b", "inner": "k", "rate": "rate"}
    words = {names[key]: value for key, value in case.items() if key in names}
    if "step" in case:
        words["alpha"] = case["step"] * EPS
    rows = []
    for i in range(len(x)):
        noise = Noise(seed, torch.tensor([i]))
        rows.append(mcgs_reference.mcgs(model, x[i], int(y[i]), EPS, draws(noise, x[i]), **words))
    return torch.stack(rows)


@pytest.mark.parametrize("name", CASES)
def test_parity_in_float64(name: str) -> None:
    model, x, y = small_net(), pictures(), torch.tensor([0, 3, 4])
    ours = method.mcgs(model, x, y, threat=THREAT, noise=Noise.of(3, seed=5), **CASES[name])
    assert (ours - reference(model, x, y, 5, CASES[name])).abs().max() < 1e-6


def mean_of_gradients(model: nn.Module, x: Tensor, y: Tensor) -> Tensor:
    """A wrong reading: one step along the sign of the mean gradient, instead of the mean of the end points."""
    noise = Noise.of(3, seed=5)
    release = x
    for _ in ("forward", "backward"):
        total = torch.zeros_like(x)
        for _ in range(4):
            total += method.input_gradient(model, (release + noise.uniform(x, -EPS, EPS)).clamp(0, 1), y)[0]
        release = THREAT.project(release - EPS * total.sign(), x)
    return release


def ball_around_the_original(model: nn.Module, x: Tensor, y: Tensor) -> Tensor:
    """A wrong reading: the backward epoch starts from the picture, not from what the forward epoch made of it."""
    noise = Noise.of(3, seed=5)
    forward = method.smooth_gradient(model, x, y, -1.0, threat=THREAT, noise=noise, copies=4)
    backward = method.smooth_gradient(model, x, y, 1.0, threat=THREAT, noise=noise, copies=4)
    return THREAT.project(forward - (backward - x), x)


@pytest.mark.parametrize("mutant", [mean_of_gradients, ball_around_the_original])
def test_a_wrong_reading_is_told_apart(mutant) -> None:  # type: ignore[no-untyped-def]
    model, x, y = small_net(), pictures(), torch.tensor([0, 3, 4])
    assert (mutant(model, x, y) - reference(model, x, y, 5, CASES["mspd"])).abs().max() > 1e-3


def test_copies_in_parts_give_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    model, x, y = small_net(), pictures(), torch.tensor([0, 3, 4])
    whole = method.mcgs(model, x, y, threat=THREAT, noise=Noise.of(3, seed=5), copies=5)
    monkeypatch.setattr(method, "PIXELS_AT_ONCE", 2 * x.numel())
    assert torch.allclose(method.mcgs(model, x, y, threat=THREAT, noise=Noise.of(3, seed=5), copies=5), whole, atol=1e-12)


def test_a_picture_does_not_depend_on_its_batch() -> None:
    model, x, y = small_net(), pictures(), torch.tensor([0, 3, 4])
    whole = method.mcgs(model, x, y, threat=THREAT, noise=Noise.of(3, seed=5))
    alone = method.mcgs(model, x[2:], y[2:], threat=THREAT, noise=Noise(5, torch.tensor([2])))
    assert torch.allclose(whole[2:], alone, atol=1e-12)
