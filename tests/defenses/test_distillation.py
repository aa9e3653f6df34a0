"""Defensive distillation: its loss against the equation, what its temperature does, and that it hides gradients from a cross-entropy alone."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from forearm.data.batches import Batch, Pictures, Shuffled
from forearm.defenses.training.distillation import distillation, softened
from forearm.defenses.training.loop import Plan, fit
from forearm.errors import SpecError


def net(seed: int) -> nn.Module:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return nn.Sequential(nn.Flatten(), nn.Linear(8, 16), nn.ReLU(), nn.Linear(16, 3))


def pictures(n: int = 96) -> Pictures:
    """Two by four pixels, of which two are bright: which two says the class."""
    y = torch.arange(n) % 3
    x = torch.randint(0, 120, (n, 1, 2, 4), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)
    for i in range(n):
        x[i, 0, :, int(y[i])] += 130
    return Pictures(x, y, ("a", "b", "c"))


def plain(images: Tensor, generator: torch.Generator) -> Tensor:
    return images.float() / 255.0


def given() -> Batch:
    return next(pictures().batches(5))


def test_the_losses_are_their_equations_counted_one_by_one() -> None:
    teacher, model, batch, t = net(0).eval().requires_grad_(False), net(1), given(), 7.0
    soft, hard = 0.0, 0.0
    for x, y in zip(batch.x, batch.y, strict=True):
        z, q = (model(x[None])[0] / t).exp(), (teacher(x[None])[0] / t).exp()
        p, q = z / z.sum(), q / q.sum()
        soft -= t * float((q * p.log()).sum()) / 5
        hard -= t * math.log(float(p[y])) / 5
    assert float(distillation(teacher, t)(model, batch)["loss"].detach()) == pytest.approx(soft, rel=1e-5)
    assert float(softened(t)(model, batch)["loss"].detach()) == pytest.approx(hard, rel=1e-5)
    assert float(softened(1.0)(model, batch)["loss"].detach()) == pytest.approx(float(F.cross_entropy(model(batch.x), batch.y)))
    assert soft != pytest.approx(hard, rel=1e-3)


def test_the_teacher_learns_nothing() -> None:
    teacher, model = net(0).eval().requires_grad_(False), net(1)
    distillation(teacher)(model, given())["loss"].backward()  # type: ignore[no-untyped-call]
    assert all(p.grad is None for p in teacher.parameters())
    assert all(p.grad is not None and float(p.grad.abs().sum()) > 0 for p in model.parameters())


def trained(temperature: float, folder: Path) -> nn.Module:
    plan, batches = Plan(40, 0.05, average=0.5, bf16=False), Shuffled(pictures(), 16, plain)
    first = fit(net(0), softened(temperature), batches, plan, folder=folder / "first").requires_grad_(False)
    return fit(net(1), distillation(first, temperature), batches, plan, folder=folder / "second")


def test_heat_makes_the_deployed_net_surer_of_itself(tmp_path: Path) -> None:
    """Right at either temperature; at a high one the logits are so far apart that the cross-entropy has hardly a gradient left, the margin has its own."""
    batch = next(pictures().batches(96))
    slopes, apart = {}, {}
    for temperature in (1.0, 20.0):
        model = trained(temperature, tmp_path / str(temperature))
        x = batch.x.clone().requires_grad_()
        logits = model(x)
        assert float((logits.argmax(1) == batch.y).float().mean()) > 0.95
        top = logits.topk(2, 1).values
        apart[temperature] = float((top[:, 0] - top[:, 1]).median().detach())
        (slope,) = torch.autograd.grad(F.cross_entropy(logits, batch.y, reduction="sum"), x)
        slopes[temperature] = float(slope.flatten(1).abs().amax(1).median())
    assert apart[20.0] > 4 * apart[1.0]
    assert slopes[20.0] < 1e-2 * slopes[1.0]


@pytest.mark.parametrize("temperature", [0.0, -1.0, math.inf, math.nan])
def test_other_temperatures_are_refused(temperature: float) -> None:
    with pytest.raises(SpecError, match=r"temperature=.*for example"):
        softened(temperature)
    with pytest.raises(SpecError, match=r"temperature=.*for example"):
        distillation(net(0), temperature)
