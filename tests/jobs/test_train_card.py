"""What training leaves behind is usable at once by name: weights, and a card that says how they came about."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from forearm.data import sets
from forearm.data.batches import Pictures
from forearm.jobs.train import TrainSettings, train
from forearm.models.load import load_model


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
