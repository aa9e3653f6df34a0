"""`train` from settings to a card: beginning from other weights, and what is refused."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from forearm.errors import ArtifactError, SpecError
from forearm.jobs.train import TrainSettings, take_trunk, write_weights
from forearm.jobs.train_mid import MidSettings
from forearm.models.preact_resnet import preact_resnet
from tests.models.tiny import network


def test_a_trunk_fills_what_both_have_but_the_last_layer(tmp_path: Path) -> None:
    donor = network(seed=1)
    write_weights(donor, tmp_path / "w.safetensors")
    model = preact_resnet(classes=10, width=4, blocks=(1, 1), stem="deep4")
    last = model.linear.weight.clone()
    take_trunk(model, tmp_path / "w.safetensors")
    assert torch.equal(model.layer1[0].conv1.weight, donor.get_submodule("layer1")[0].conv1.weight.half().float())
    assert torch.equal(model.linear.weight, last)


def test_weights_of_another_network_are_refused(tmp_path: Path) -> None:
    write_weights(network("resnet9(width=6)"), tmp_path / "w.safetensors")
    with pytest.raises(ArtifactError, match="shares no convolution"):
        take_trunk(network(), tmp_path / "w.safetensors")
    with pytest.raises(ArtifactError, match="no readable weights"):
        take_trunk(network(), tmp_path / "nowhere.safetensors")


def test_recipes_of_the_repository_can_be_read() -> None:
    recipes = sorted((Path(__file__).parents[2] / "recipes").rglob("*.toml"))
    assert len(recipes) >= 5
    for recipe in recipes:
        (MidSettings if "_mid" in recipe.stem else TrainSettings).read(recipe, {})


@pytest.mark.parametrize(("text", "says"), [("epochs = 0", "epochs"), ("epoch = 3", "epoch"), ("epochs", "TOML")])
def test_a_wrong_recipe_is_refused_in_one_line(text: str, says: str, tmp_path: Path) -> None:
    (tmp_path / "r.toml").write_text(text)
    with pytest.raises(SpecError, match=says) as error:
        TrainSettings.read(tmp_path / "r.toml", {})
    assert "\n" not in str(error.value)


def test_the_command_line_overrides_the_recipe(tmp_path: Path) -> None:
    (tmp_path / "r.toml").write_text("epochs = 5\nrate = 0.1\n")
    settings = TrainSettings.read(tmp_path / "r.toml", {"epochs": 7, "rate": None})
    assert (settings.epochs, settings.rate) == (7, 0.1)
