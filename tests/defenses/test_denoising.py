"""A denoiser learns to take noise away, resumes to the same weights, and stands before another model by name."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from typer.testing import CliRunner

from forearm.cli.train import app
from forearm.core.gradients import input_gradient
from forearm.data.augment import augment
from forearm.data.batches import Batch, Pictures, Shuffled
from forearm.defenses.training.denoising import denoising, noisy
from forearm.defenses.training.loop import Plan, Step, fit
from forearm.errors import SpecError
from forearm.evaluate.defense import defense
from forearm.jobs.train import TrainSettings, train
from forearm.models.autoencoder import Autoencoder
from forearm.models.denoiser import denoiser
from forearm.models.load import load_model
from tests.models.tiny import write_model

RUN = CliRunner()


def pictures(n: int = 64, side: int = 16) -> Pictures:
    """Smooth ones: gratings of drawn colours and directions."""
    generator = torch.Generator().manual_seed(0)
    at = torch.linspace(0.0, 3.0, side)
    across, down = (torch.rand(n, 3, 1, 1, generator=generator) * 2.0 for _ in range(2))
    x = 0.5 + 0.4 * torch.sin(across * at + down * at[:, None] + 6.0 * torch.rand(n, 3, 1, 1, generator=generator))
    return Pictures((x * 255.0).round().to(torch.uint8), torch.arange(n) % 2, ("a", "b"))


def net(width: int = 8) -> Autoencoder:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(1)
        return denoiser(classes=2, width=width)


def batch(n: int = 6) -> Batch:
    return next(pictures().batches(n))


def run(folder: Path, step: Step, epochs: int, stop_after: int | None = None) -> nn.Module:
    plan = Plan(epochs, rate=5e-3, average=0.5, bf16=False, optimizer="adamw", weight_decay=0.0)
    return fit(net(), step, Shuffled(pictures(), 8, augment("crop_flip")), plan, folder=folder, stop_after=stop_after)


def test_the_loss_is_what_is_written() -> None:
    model, one = net(), batch()
    state = torch.get_rng_state()
    values = denoising(0.2, 3)(model, one)
    seen = noisy(one, 0.2, 3)
    code = model.encoder(seen)
    torch.testing.assert_close(values["mse"], (model.decoder(code) - one.x).square().mean())
    torch.testing.assert_close(values["loss"], values["mse"] + F.cross_entropy(model(seen), one.y))
    assert torch.equal(torch.get_rng_state(), state)


def test_the_features_do_not_learn_from_the_head() -> None:
    model, one = net(), batch()
    denoising()(model, one)["loss"].backward()
    learnt = [p.grad.clone() for p in model.encoder.parameters() if p.grad is not None]
    assert model.head.linear.weight.grad is not None  # type: ignore[union-attr]
    model.zero_grad()
    denoising()(model, one)["mse"].backward()
    alone = [p.grad for p in model.encoder.parameters()]
    assert len(learnt) == len(alone)
    for mine, theirs in zip(learnt, alone, strict=True):
        torch.testing.assert_close(mine, theirs)
    model.zero_grad()
    F.cross_entropy(model(one.x), one.y).backward()  # the mutant: a head that is heard
    assert not all(torch.allclose(p.grad, mine) for p, mine in zip(model.encoder.parameters(), learnt, strict=True) if p.grad is not None)


def test_the_noise_has_its_spread_and_is_new_in_every_epoch() -> None:
    grey = Pictures(torch.full((400, 3, 12, 12), 128, dtype=torch.uint8), torch.zeros(400, dtype=torch.int64), ("a",))
    one = next(grey.batches(400))
    change = noisy(one, 0.1, 0) - one.x
    spread = change.flatten(1).std(1)
    assert float(spread.min()) < 0.005
    assert 0.09 < float(spread.max()) < 0.11
    assert float(spread.mean()) == pytest.approx(0.05, abs=0.005)
    assert torch.equal(noisy(one, 0.1, 0), noisy(one, 0.1, 0))
    turned = Batch(one.x, one.y, one.ids.flip(0))
    for other in (noisy(one, 0.1, 1), noisy(turned, 0.1, 0), noisy(turned, 0.1, 0).flip(0)):
        assert not torch.equal(other, noisy(one, 0.1, 0))


def test_a_resumed_run_gives_the_same_weights(tmp_path: Path) -> None:
    whole = run(tmp_path / "whole", denoising(0.2), 3).state_dict()
    run(tmp_path / "parts", denoising(0.2), 3, stop_after=1)
    parts = run(tmp_path / "parts", denoising(0.2), 3).state_dict()
    assert all(torch.equal(value, parts[name]) for name, value in whole.items())
    other = run(tmp_path / "other", denoising(0.2, 1), 3).state_dict()  # other noise
    assert not all(torch.equal(value, other[name]) for name, value in whole.items())


def test_it_takes_noise_away() -> None:
    model, step, shown = net(), denoising(0.3), pictures()
    one = batch(32)
    worn = (one.x + 0.2 * torch.randn(one.x.shape, generator=torch.Generator().manual_seed(9))).clamp(0.0, 1.0)

    def error() -> float:
        with torch.no_grad():
            return float(F.mse_loss(model.regenerate(worn), one.x))

    noise = float(F.mse_loss(worn, one.x))
    assert error() > noise  # one that learnt nothing
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
    for epoch in range(60):
        for given in Shuffled(shown, 16, augment("crop_flip")).epoch(epoch):
            optimizer.zero_grad()
            step(model, given)["loss"].backward()
            optimizer.step()
    assert error() < 0.4 * noise


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> str:
    """CIFAR-like pictures for the command."""
    folder, x = tmp_path_factory.mktemp("gratings"), pictures(16, 32)
    pixels, y = x.images.permute(0, 2, 3, 1).numpy(), x.labels.numpy().astype(np.int64)
    np.savez(folder / "x.npz", x_train=pixels, y_train=y, x_test=pixels, y_test=y)
    return f"npz(path={str(folder / 'x.npz')!r})"


def settings(data: str, **changed: Any) -> TrainSettings:
    values = {"data": data, "arch": "denoiser(width=4)", "batch": 8, "epochs": 1, "rate": 1e-3, "optimizer": "adamw", "device": "cpu"}
    return TrainSettings.read(None, values | changed)


def test_it_stands_before_a_model_by_name(data: str, tmp_path: Path) -> None:
    done = RUN.invoke(app, ["denoising", "-o", str(tmp_path / "pure"), "--data", data, "--arch", "denoiser(width=4)", "--epochs", "1",
                            "--batch", "8", "--rate", "0.001", "--level", "0.2", "--device", "cpu"])  # fmt: skip
    assert done.exit_code == 0, done.output
    student = load_model(tmp_path / "pure")
    assert (student.card.recipe, student.card.threat, student.size) == ("denoising", None, 32)
    assert "level=0.2" in student.card.settings
    write_model(tmp_path / "net")
    bare, guard = load_model(tmp_path / "net"), defense(f"regenerate(student={str(tmp_path / 'pure')!r})")
    x = pictures(4, 32).images.float() / 255.0
    made: Tensor = student.network.regenerate(x)  # type: ignore[operator]
    assert made.shape == x.shape
    assert torch.equal(guard.harden(bare)(x), bare(made))
    assert guard.unmask is not None
    assert bool(input_gradient(guard.unmask(bare), x, torch.arange(4))[0].any())


def test_what_cannot_be_trained_is_refused_before_it_begins(data: str, tmp_path: Path) -> None:
    with pytest.raises(SpecError, match=r"makes no pictures; an autoencoder, for example 'denoiser"):
        train("denoising", settings(data, arch="preact_resnet(width=4)"), tmp_path)
    assert not list(tmp_path.iterdir())
    for level in (0.0, 1.5, True, "a"):
        with pytest.raises(SpecError, match=r"denoising: got level=.*for example 0\.1"):
            denoising(level)  # type: ignore[arg-type]


def test_its_size() -> None:
    assert sum(p.numel() for p in denoiser().parameters()) == 104_973
    assert denoiser()(torch.rand(1, 3, 20, 14)).shape == (1, 10)
    assert denoiser().regenerate(torch.rand(1, 3, 20, 14)).shape == (1, 3, 20, 14)


def test_the_recipe_of_the_repository() -> None:
    recipe = TrainSettings.read(Path(__file__).parents[2] / "recipes" / "cifar10_denoiser.toml", {})
    assert recipe.arch.startswith("denoiser(")
    assert recipe.plan().optimizer == "adamw"
