"""What training leaves behind is usable at once by name: weights, and a card that says how they came about."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from forearm.data import sets
from forearm.data.batches import Pictures
from forearm.jobs.train import TrainSettings, train
from forearm.models.load import load_model


@pytest.fixture
def pictures(monkeypatch: pytest.MonkeyPatch) -> Pictures:
    """Two classes that a network of any kind tells apart: dark pictures and bright ones."""
    shade = torch.arange(24) % 2
    noise = torch.randint(0, 80, (24, 3, 16, 16), generator=torch.Generator().manual_seed(0))
    found = Pictures((noise + 120 * shade.reshape(-1, 1, 1, 1)).to(torch.uint8), shade, ("dark", "bright"))
    monkeypatch.setattr(sets, "load", lambda spec, split, folder: found)
    return found


def test_a_trained_model_loads_from_its_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    images = torch.randint(0, 256, (16, 3, 40, 40), dtype=torch.uint8)
    pictures = Pictures(images, torch.arange(16) % 2, ("cat 'n' \"dog\"", "other"))
    monkeypatch.setattr(sets, "load", lambda spec, split, folder: pictures)
    settings = TrainSettings(arch="resnet9(width=4)", batch=8, epochs=1, bf16=False, augment="crop_flip")
    trained = train("adversarial", settings, tmp_path / "run")
    model = load_model(tmp_path / "run")
    card = model.card
    assert (card.name, card.size, card.classes, card.threat) == ("run", 40, pictures.classes, "linf:8/255")
    assert "epochs=1" in card.settings
    x = images[:4].float() / 255.0
    with torch.no_grad():
        torch.testing.assert_close(model(x), trained(x), rtol=0.05, atol=0.05)
    train("standard", settings, tmp_path / "plain")
    assert load_model(tmp_path / "plain").card.threat is None


@pytest.mark.parametrize("arch", ["vit(width=8, depth=1, heads=2, size=16)", "preact_resnet(width=4, blocks=(1, 1))"])
@pytest.mark.parametrize("kind", ["trades", "adversarial"])
def test_a_small_run_learns_resumes_and_loads(kind: str, arch: str, pictures: Pictures, tmp_path: Path) -> None:
    settings = TrainSettings(
        arch=arch, batch=8, epochs=10, bf16=False, augment="crop_flip_colour", threat="linf:2/255", steps=1, step=1.0, average=0.5, optimizer="adamw",
        rate=0.02, weight_decay=0.05,
    )  # fmt: skip
    rows: list[dict[str, float]] = []
    trained = train(kind, settings, tmp_path / "whole", rows.append)
    assert rows[-1]["loss"] < 0.8 * rows[0]["loss"]
    assert ("divergence" in rows[0]) == (kind == "trades")
    train(kind, settings, tmp_path / "parts", stop_after=4)
    resumed = train(kind, settings, tmp_path / "parts").state_dict()
    assert all(torch.equal(resumed[name], value) for name, value in trained.state_dict().items())
    model = load_model(tmp_path / "whole")
    assert (model.card.recipe, model.card.threat) == (kind, "linf:2/255")
    assert "optimizer='adamw'" in model.card.settings
    x = pictures.images.float() / 255.0
    assert float((model(x).argmax(1) == pictures.labels).float().mean()) > 0.9


def test_the_settings_reach_the_recipe(pictures: Pictures, tmp_path: Path) -> None:
    """Each of them changes what is trained; the mutant that drops one trains the same weights."""
    base = TrainSettings(arch="preact_resnet(width=4, blocks=(1, 1))", batch=8, epochs=1, bf16=False, steps=1, average=0.0, rate=0.05)
    changes = {"beta": 1.0, "step": 1.0, "steps": 2, "threat": "linf:2/255", "optimizer": "adamw"}
    first = train("trades", base, tmp_path / "base").state_dict()["linear.weight"]
    assert torch.equal(first, train("trades", base.model_copy(), tmp_path / "again").state_dict()["linear.weight"])
    for name, value in changes.items():
        other = train("trades", base.model_copy(update={name: value}), tmp_path / name).state_dict()["linear.weight"]
        assert not torch.equal(first, other), name
    pgd = [
        train("adversarial", base.model_copy(update={"step": step}), tmp_path / f"pgd{step}").state_dict()["linear.weight"]
        for step in (0.25, 1.0)
    ]
    assert not torch.equal(*pgd)
