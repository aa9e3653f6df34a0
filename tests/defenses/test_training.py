"""The loop resumes to the same weights; the recipes' attacks stay where they should and touch nothing but the pictures."""

from __future__ import annotations

import csv
from itertools import pairwise
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from forearm.core.threat import Threat
from forearm.data.augment import augment
from forearm.data.batches import Batch, Pictures, Shuffled
from forearm.defenses.training.adversarial import adversarial, frozen_statistics, nfgsm, pgd, standard
from forearm.defenses.training.loop import Plan, Step, fit, one_cycle
from forearm.errors import ArtifactError, SpecError
from forearm.models.preact_resnet import preact_resnet

THREAT = Threat.parse("linf:8/255")


def pictures(n: int = 24) -> Pictures:
    """Two classes that differ in brightness."""
    generator = torch.Generator().manual_seed(0)
    labels = torch.arange(n) % 2
    images = torch.randint(0, 120, (n, 3, 32, 32), generator=generator) + 120 * labels.reshape(-1, 1, 1, 1)
    return Pictures(images.to(torch.uint8), labels, ("dark", "bright"))


def net() -> nn.Module:
    torch.manual_seed(0)
    return preact_resnet(classes=2, width=4, blocks=(1, 1))


def run(folder: Path, step: Step, epochs: int = 3, stop_after: int | None = None, bf16: bool = False) -> nn.Module:
    batches = Shuffled(pictures(), 8, augment("crop_flip"))
    return fit(net(), step, batches, Plan(epochs, rate=0.05, average=0.5, bf16=bf16), folder=folder, stop_after=stop_after)


@pytest.mark.parametrize("bf16", [False, True])
@pytest.mark.parametrize("step", [standard(0.1), adversarial(THREAT), adversarial(THREAT, steps=2)], ids=["standard", "nfgsm", "pgd"])
def test_a_resumed_run_gives_the_same_weights(step: Step, bf16: bool, tmp_path: Path) -> None:
    whole = run(tmp_path / "whole", step, bf16=bf16).state_dict()
    run(tmp_path / "parts", step, stop_after=1, bf16=bf16)
    parts = run(tmp_path / "parts", step, bf16=bf16).state_dict()
    assert all(torch.equal(whole[name], parts[name]) for name in whole)
    rows = list(csv.DictReader((tmp_path / "parts" / "log.csv").open()))
    assert [float(row["epoch"]) for row in rows] == [1, 2, 3]
    assert float(rows[-1]["loss"]) < float(rows[0]["loss"])


def test_clean_pictures_have_their_weight() -> None:
    """The loss lies between those of the attacked and of the clean pictures, in proportion. The mutants: the weights turned, or none."""
    batch, model = next(iter(Shuffled(pictures(), 8, augment("crop_flip")).epoch(0))), net().eval()
    attacked, mixed, clean = (
        float(step(model, batch)["loss"].detach())
        for step in (adversarial(THREAT, steps=2), adversarial(THREAT, steps=2, clean=0.25), standard())
    )
    assert mixed == pytest.approx(0.75 * attacked + 0.25 * clean, rel=1e-5)
    assert abs(attacked - clean) > 1e-3
    assert mixed != pytest.approx(0.25 * attacked + 0.75 * clean, rel=1e-4)


@pytest.mark.parametrize("clean", [-0.1, 1.0, float("nan")])
def test_a_share_of_clean_pictures_that_is_none(clean: float) -> None:
    with pytest.raises(SpecError, match=r"adversarial: got clean=.*; from 0 to below 1"):
        adversarial(THREAT, clean=clean)


def test_a_run_that_forgot_its_optimizer_would_be_told(tmp_path: Path) -> None:
    """The mutant of the law above: a checkpoint whose momentum is lost gives other weights."""
    whole = run(tmp_path / "whole", standard()).state_dict()
    run(tmp_path / "parts", standard(), stop_after=1)
    state = torch.load(tmp_path / "parts" / "checkpoint.pt", weights_only=True)
    state["optimizer"]["state"] = {}
    torch.save(state, tmp_path / "parts" / "checkpoint.pt")
    parts = run(tmp_path / "parts", standard()).state_dict()
    assert not all(torch.equal(whole[name], parts[name]) for name in whole)


def test_another_plan_or_network_is_refused(tmp_path: Path) -> None:
    run(tmp_path, standard(), stop_after=1)
    with pytest.raises(ArtifactError, match="another plan"):
        run(tmp_path, standard(), epochs=4)
    with pytest.raises(ArtifactError, match="another network"):
        fit(preact_resnet(classes=2, width=6, blocks=(1, 1)), standard(), Shuffled(pictures(), 8, augment("crop_flip")),
            Plan(3, rate=0.05, average=0.5, bf16=False), folder=tmp_path)  # fmt: skip


def test_a_loss_that_is_not_a_number_ends_the_run(tmp_path: Path) -> None:
    def broken(model: nn.Module, batch: Batch) -> dict[str, Tensor]:
        return {"loss": model(batch.x).sum() * float("nan")}

    with pytest.raises(ArtifactError, match="lower rate"):
        run(tmp_path, broken)
    assert not (tmp_path / "checkpoint.pt").exists()


def batch() -> Batch:
    p = pictures(8)
    return Batch(p.images.float() / 255, p.labels, torch.arange(8))


def test_training_attacks_stay_in_their_reach_and_touch_nothing() -> None:
    model, b = net().train(), batch()
    statistics = {name: value.clone() for name, value in model.state_dict().items() if "running" in name}
    state = torch.get_rng_state()
    strong, weak = nfgsm(model, b, THREAT), pgd(model, b, THREAT, steps=3)
    assert (strong - b.x).abs().max() <= 3 * THREAT.eps + 1e-6
    assert (strong - b.x).abs().max() > 2 * THREAT.eps
    assert (weak - b.x).abs().max() <= THREAT.eps + 1e-6
    assert torch.equal(torch.get_rng_state(), state)
    assert all(p.grad is None for p in model.parameters())
    assert all(torch.equal(model.state_dict()[name], value) for name, value in statistics.items())
    assert all(m.momentum == 0.1 for m in model.modules() if isinstance(m, nn.BatchNorm2d))
    model(b.x)
    assert any(not torch.equal(model.state_dict()[name], value) for name, value in statistics.items())


def test_frozen_statistics_come_back_after_an_error() -> None:
    model = net().train()
    with pytest.raises(RuntimeError), frozen_statistics(model):
        raise RuntimeError
    assert all(m.momentum == 0.1 for m in model.modules() if isinstance(m, nn.BatchNorm2d))


def test_the_rate_rises_then_falls_to_nothing() -> None:
    rates = [one_cycle(i / 100, 0.25) for i in range(101)]
    assert max(rates) == rates[25] == 1.0
    assert rates[100] == pytest.approx(0.0)
    assert all(a <= b for a, b in pairwise(rates[2:26]))
    assert all(a >= b for a, b in pairwise(rates[25:]))
