"""`forearm train instant` from settings to a network that arms pictures by name."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from forearm.data import sets
from forearm.data.batches import Pictures
from forearm.errors import SpecError
from forearm.jobs.armory import Armory
from forearm.jobs.train_instant import InstantSettings, train_instant
from forearm.models.classes import CIFAR10
from forearm.models.load import load_model
from forearm.models.weights import read_weights
from tests.models.tiny import write_model


@pytest.fixture
def data(monkeypatch: pytest.MonkeyPatch) -> Pictures:
    generator = torch.Generator().manual_seed(0)
    images = torch.randint(0, 256, (32, 3, 32, 32), dtype=torch.uint8, generator=generator)
    pictures = Pictures(images, torch.arange(32) % 10, CIFAR10)
    monkeypatch.setattr(sets, "load", lambda spec, split, folder=None, first=None: pictures)
    return pictures


def settings(pair: dict[str, str], **changed: object) -> InstantSettings:
    values = {"backbone": pair["backbone"], "arch": "instant(width=4)", "batch": 8, "epochs": 2, "bf16": False}
    return InstantSettings.model_validate(values | changed)


def armory(run: Path, pair: dict[str, str], **changed: object) -> Armory:
    options = {"defense": f"instant(writer={str(run)!r})", "threshold": 0.0, "threat": "linf:6/255"} | pair | changed
    return Armory.open(**options)  # type: ignore[arg-type]


def test_what_training_leaves_behind(data: Pictures, pair: dict[str, str], tmp_path: Path) -> None:
    rows: list[dict[str, float]] = []
    before = torch.get_rng_state()
    train_instant(settings(pair), tmp_path / "run", rows.append)
    assert torch.equal(torch.get_rng_state(), before)
    assert [row["epoch"] for row in rows] == [1, 2]
    assert {"slope", "sure", "accuracy"} <= set(rows[0])
    card = load_model(tmp_path / "run").card
    assert (card.name, card.recipe, card.arch, card.size, card.classes) == ("run", "instant", "instant(width=4)", 32, CIFAR10)
    assert load_model(pair["backbone"]).card.sha256 in card.settings


def test_a_run_that_was_broken_off_ends_with_the_same_weights(data: Pictures, pair: dict[str, str], tmp_path: Path) -> None:
    train_instant(settings(pair), tmp_path / "whole")
    train_instant(settings(pair), tmp_path / "parts", stop_after=1)
    half = (tmp_path / "parts" / "weights.safetensors").read_bytes()
    train_instant(settings(pair), tmp_path / "parts")
    assert (tmp_path / "parts" / "weights.safetensors").read_bytes() == (tmp_path / "whole" / "weights.safetensors").read_bytes() != half


def test_the_seed_decides_the_weights(data: Pictures, pair: dict[str, str], tmp_path: Path) -> None:
    made = []
    for seed in (0, 1):
        train_instant(settings(pair, seed=seed, epochs=1), tmp_path / str(seed))
        made.append(read_weights(tmp_path / str(seed) / "weights.safetensors")[0]["stem.weight"])
    assert not torch.equal(made[0], made[1])


def test_what_cannot_be_trained(data: Pictures, pair: dict[str, str], tmp_path: Path) -> None:
    with pytest.raises(SpecError, match="a network that writes changes"):
        train_instant(settings(pair, arch="resnet9(width=4)"), tmp_path / "run")
    with pytest.raises(SpecError, match="spraed"):
        InstantSettings.read(None, {"spraed": 1.0})
    write_model(tmp_path / "other")
    text = (tmp_path / "other" / "card.toml").read_text().replace("truck", "lorry")
    (tmp_path / "other" / "card.toml").write_text(text)
    with pytest.raises(SpecError, match="knows other classes"):
        train_instant(settings({"backbone": str(tmp_path / "other")}), tmp_path / "run")


def test_the_recipe_can_be_read() -> None:
    recipe = Path(__file__).parents[2] / "recipes" / "cifar10_instant.toml"
    assert InstantSettings.read(recipe, {"epochs": 3}).epochs == 3


# Arming by the network's name


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("instant") / "run"
    write_model(folder, arch="instant(width=4)", threat=None)
    return folder


@pytest.mark.parametrize("shape", [(32, 32, 3), (40, 48, 3), (40, 48, 1), (1, 1, 3), (20, 64, 3)])
def test_a_picture_is_armed_within_its_budget(run: Path, pair: dict[str, str], shape: tuple[int, int, int]) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)
    arms = armory(run, pair)
    armed = arms.arm([pixels], [None])[0]
    change = np.abs(armed.pixels.astype(int) - pixels)
    assert armed.pixels.shape == shape
    assert 0 < change.max() <= 6
    assert np.array_equal(armory(run, pair, seed=5).arm([pixels, pixels], [armed.report.label] * 2)[1].pixels, armed.pixels)
    other = arms.arm([pixels], [(armed.report.label + 1) % 10])[0]
    assert shape == (1, 1, 3) or not np.array_equal(other.pixels, armed.pixels)


def test_settings_name_the_network_and_its_sum(run: Path, pair: dict[str, str]) -> None:
    known = armory(run, pair).settings(32, 32)
    assert (known["writer"], known["writer_sha256"]) == ("run", load_model(run).card.sha256)
    assert "writer" not in armory(run, pair, defense="s_fgsm").settings(32, 32)


def test_a_network_for_other_classes_is_refused(run: Path, pair: dict[str, str], tmp_path: Path) -> None:
    other = tmp_path / "other"
    write_model(other, arch="instant(width=4)", threat=None)
    (other / "card.toml").write_text((other / "card.toml").read_text().replace("truck", "lorry"))
    with pytest.raises(SpecError, match="other classes than the backbone"):
        armory(other, pair).settings(32, 32)
    with pytest.raises(SpecError, match="writes no change"):
        armory(Path(pair["backbone"]), pair).settings(32, 32)
