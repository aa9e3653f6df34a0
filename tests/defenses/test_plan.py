"""What a plan may say beyond the usual: another optimizer, a schedule in steps, a rate of its own for the backbone; and what it must not change."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from forearm.data.augment import augment
from forearm.data.batches import Pictures, Shuffled
from forearm.defenses.training.adversarial import standard
from forearm.defenses.training.loop import OPTIMIZERS, Plan, fit, rate_share, step_down
from forearm.errors import ArtifactError, SpecError

PLAN = Plan(3, rate=0.01, average=0.5, bf16=False)


class Small(nn.Module):
    """Two parts, one of them a head."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.body = nn.Conv2d(3, 4, 3, 2)
        self.head = nn.Linear(4, 2)

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.head(self.body(x).relu().mean((2, 3)))
        return logits


def run(folder: Path, plan: Plan, stop_after: int | None = None, model: nn.Module | None = None) -> nn.Module:
    """8 pictures in 2 steps an epoch; the model itself, which `fit` trains in place."""
    images = torch.randint(0, 256, (8, 3, 12, 12), generator=torch.Generator().manual_seed(0)).to(torch.uint8)
    model = model or Small()
    batches = Shuffled(Pictures(images, torch.arange(8) % 2, ("a", "b")), 4, augment("crop_flip"))
    fit(model, standard(), batches, plan, folder=folder, stop_after=stop_after)
    return model


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_every_optimizer_learns_and_resumes(optimizer: str, tmp_path: Path) -> None:
    plan = replace(PLAN, optimizer=optimizer, schedule="step(every=2)", backbone=0.5)
    whole = run(tmp_path / "whole", plan).state_dict()
    run(tmp_path / "parts", plan, stop_after=1)
    parts = run(tmp_path / "parts", plan).state_dict()
    assert all(torch.equal(whole[name], parts[name]) for name in whole)
    assert not torch.equal(whole["body.weight"], Small().body.weight)


def test_optimizers_differ(tmp_path: Path) -> None:
    weights = [run(tmp_path / name, replace(PLAN, optimizer=name)).state_dict()["body.weight"] for name in OPTIMIZERS]
    assert not any(torch.equal(a, b) for i, a in enumerate(weights) for b in weights[:i])


def test_a_checkpoint_of_a_usual_plan_holds_what_it_always_did(tmp_path: Path) -> None:
    """Runs that were begun before there was anything to choose go on, and write the same bytes."""
    run(tmp_path / "usual", PLAN, stop_after=1)
    state = torch.load(tmp_path / "usual" / "checkpoint.pt", weights_only=True)
    assert list(state["plan"]) == ["epochs", "rate", "momentum", "weight_decay", "warm", "average", "bf16"]
    assert {key for group in state["optimizer"]["param_groups"] for key in group}.isdisjoint({"share"})
    run(tmp_path / "adamax", replace(PLAN, optimizer="adamax"), stop_after=1)
    assert torch.load(tmp_path / "adamax" / "checkpoint.pt", weights_only=True)["plan"]["optimizer"] == "adamax"
    with pytest.raises(ArtifactError, match="another plan"):
        run(tmp_path / "usual", replace(PLAN, schedule="step"))


def test_steps_down() -> None:
    """As torch's StepLR."""
    weight = nn.Parameter(torch.zeros(1))
    optimizer = torch.optim.SGD([weight], lr=1.0)
    there = torch.optim.lr_scheduler.StepLR(optimizer, step_size=3, gamma=0.25)
    for epoch in range(10):
        assert step_down(epoch, every=3, factor=0.25) == pytest.approx(optimizer.param_groups[0]["lr"])
        assert rate_share(replace(PLAN, schedule="step(every=3, factor=0.25)"), epoch, 1, 100) == step_down(epoch, 3, 0.25)
        optimizer.step()
        there.step()
    assert step_down(140) == 0.25
    assert rate_share(PLAN, 0, 25, 100) == 1.0  # the usual one, at the end of its rise


def moved(folder: Path, plan: Plan) -> dict[str, float]:
    """How far the largest weight of each part has gone after one epoch of a single step."""
    images = torch.randint(0, 256, (8, 3, 12, 12), generator=torch.Generator().manual_seed(0)).to(torch.uint8)
    model, before = Small(), Small().state_dict()
    fit(
        model,
        standard(),
        Shuffled(Pictures(images, torch.arange(8) % 2, ("a", "b")), 8, augment("crop_flip")),
        plan,
        folder=folder,
        stop_after=1,
    )
    return {name: float((value - before[name]).abs().max()) for name, value in model.state_dict().items()}


def test_the_backbone_has_a_rate_of_its_own(tmp_path: Path) -> None:
    """Adamax's first step is the rate, in every weight that has a gradient."""
    plan = replace(PLAN, optimizer="adamax", schedule="step", weight_decay=0.0)
    same, slow = moved(tmp_path / "same", plan), moved(tmp_path / "slow", replace(plan, backbone=0.1))
    assert same["head.weight"] == pytest.approx(0.01, rel=1e-3)
    assert same["body.weight"] == pytest.approx(0.01, rel=1e-3)
    assert slow["head.weight"] == pytest.approx(0.01, rel=1e-3)
    assert slow["body.weight"] == pytest.approx(0.001, rel=1e-3)


@pytest.mark.parametrize(
    ("changed", "says"),
    [({"optimizer": "adam"}, "optimizer: got 'adam'"), ({"schedule": "stairs"}, "got 'stairs'"), ({"schedule": "step(each=2)"}, "'each'")],
)
def test_wrong_plans_are_refused(changed: dict[str, str], says: str, tmp_path: Path) -> None:
    with pytest.raises(SpecError, match=says):
        run(tmp_path, replace(PLAN, **changed))  # type: ignore[arg-type]


def test_a_network_without_a_head_has_no_backbone(tmp_path: Path) -> None:
    plain = nn.Sequential(nn.Conv2d(3, 2, 12), nn.Flatten())
    with pytest.raises(SpecError, match="without a part named head"):
        run(tmp_path, replace(PLAN, backbone=0.1), model=plain)
