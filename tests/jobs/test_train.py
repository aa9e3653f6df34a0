"""`train` from settings to a card: beginning from other weights, and what is refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from forearm.errors import ArtifactError, SpecError
from forearm.jobs.train import TrainSettings, recipe_step, take_trunk, write_weights
from forearm.jobs.train_challenge import ChallengeSettings
from forearm.jobs.train_instant import InstantSettings
from forearm.jobs.train_mid import MidSettings
from forearm.models.preact_resnet import preact_resnet
from tests.models.tiny import network

# Recipes with settings of their own, by the word in the file's name.
OWN: dict[str, Any] = {"challenge": ChallengeSettings, "instant": InstantSettings, "mid": MidSettings}


def test_a_trunk_fills_what_both_have_but_the_last_layer(tmp_path: Path) -> None:
    donor = network(seed=1)
    write_weights(donor, tmp_path / "w.safetensors")
    model = preact_resnet(classes=10, width=4, blocks=(1, 1), stem="deep4")
    last = model.linear.weight.clone()
    take_trunk(model, tmp_path / "w.safetensors")
    assert torch.equal(model.layer1[0].conv1.weight, donor.get_submodule("layer1")[0].conv1.weight.half().float())
    assert torch.equal(model.linear.weight, last)


@pytest.mark.parametrize("arch", ["wide_resnet(depth=10, widen=1)", "vit(width=8, depth=1, heads=2)"])
def test_a_trunk_leaves_the_last_layer_of_every_architecture(arch: str, tmp_path: Path) -> None:
    write_weights(network(arch, seed=1), tmp_path / "w.safetensors")
    model = network(arch)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    take_trunk(model, tmp_path / "w.safetensors")
    kept = {
        name.partition(".")[0]
        for name, value in model.state_dict().items()
        if torch.equal(value, before[name]) and value.is_floating_point()
    }
    assert kept == {"head" if arch.startswith("vit") else "fc"}


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
        kind = next((kind for kind in OWN if kind in recipe.stem.split("_")), None)
        (OWN[kind] if kind else TrainSettings).read(recipe, {})


@pytest.mark.parametrize("settings", [TrainSettings, *OWN.values()])
@pytest.mark.parametrize(
    ("text", "says"),
    [(b"batch = 0", "batch"), (b"epoch = 3", "epoch"), (b"epochs", "TOML"), (b"\xff\xfe", "TOML"), (b"preset = []", "preset")],
)
def test_a_wrong_recipe_is_refused_in_one_line(settings: type[Any], text: bytes, says: str, tmp_path: Path) -> None:
    (tmp_path / "r.toml").write_bytes(text)
    with pytest.raises(SpecError, match=says) as error:
        settings.read(tmp_path / "r.toml", {})
    assert "\n" not in str(error.value)


def test_an_unknown_recipe_or_optimizer_is_refused(tmp_path: Path) -> None:
    with pytest.raises(SpecError, match="one of standard, adversarial, trades"):
        recipe_step("other", TrainSettings())
    with pytest.raises(SpecError, match="beta"):
        TrainSettings.read(None, {"beta": -1.0})


def test_the_command_line_overrides_the_recipe(tmp_path: Path) -> None:
    (tmp_path / "r.toml").write_text("epochs = 5\nrate = 0.1\n")
    settings = TrainSettings.read(tmp_path / "r.toml", {"epochs": 7, "rate": None})
    assert (settings.epochs, settings.rate) == (7, 0.1)
