"""A student before another classifier: its pictures are what the classifier sees, and nothing is hidden."""

from __future__ import annotations

import torch

from forearm.core.gradients import input_gradient
from forearm.core.losses import cross_entropy
from forearm.defenses.training.mid_regenerate import regenerate
from forearm.models.autoencoder import Autoencoder, frozen
from forearm.models.lenet import LeNet, lenet, lenet_autoencoder


def parts() -> tuple[LeNet, Autoencoder]:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model, student = lenet(side=8), lenet_autoencoder(side=8)
    frozen(model)
    frozen(student)
    return model, student


def test_the_model_sees_what_the_student_makes() -> None:
    model, student = parts()
    x = torch.rand(3, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    pure = regenerate(model, student=student)
    assert torch.equal(pure(x), model(student.regenerate(x)))
    assert not torch.equal(pure(x), model(x))
    assert pure.state_dict().keys() == model.state_dict().keys()
    assert not pure.training


def test_its_gradient_is_that_of_differences() -> None:
    model, student = (part.double() for part in parts())
    assert isinstance(student, Autoencoder)
    pure = regenerate(model, student=student)
    x = torch.rand(1, 1, 8, 8, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    y, width = torch.tensor([3]), 1e-7
    slope, _ = input_gradient(pure, x, y)
    direction = torch.randn(x.shape, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    ends = [float(cross_entropy(pure(x + sign * width * direction), y)) for sign in (1.0, -1.0)]
    expected = (ends[0] - ends[1]) / (2 * width)
    assert abs(expected) > 1e-6
    torch.testing.assert_close(float((slope * direction).sum()), expected, rtol=1e-4, atol=1e-9)
