"""`forearm train challenge` from settings to a network by name: runs that are broken off anywhere end with the same bytes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from typer.testing import CliRunner

from forearm.cli.train import app
from forearm.data import sets
from forearm.defenses.inference.conceal import conceal
from forearm.defenses.inference.resize_pad import resize_pad
from forearm.errors import ArtifactError, SpecError
from forearm.jobs.train import write_weights
from forearm.jobs.train_challenge import ChallengeSettings, stages, train_challenge
from forearm.models.load import load_model
from tests.models.tiny import network

RUN = CliRunner()
ARCH = "convnext_cifar(width=4, depths=(1, 1), drop_path=0.2, head='mlp(hidden=(6,))')"


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> str:
    """16 x 16 pictures of two classes that differ in brightness."""
    folder, random = tmp_path_factory.mktemp("shades"), np.random.default_rng(0)
    arrays = {}
    for split, n in (("train", 16), ("test", 8)):
        y = np.arange(n) % 2
        arrays |= {f"x_{split}": (random.integers(0, 120, (n, 16, 16, 3)) + 120 * y.reshape(-1, 1, 1, 1)).astype(np.uint8), f"y_{split}": y}
    np.savez(folder / "shades.npz", **arrays)
    return f"npz(path={str(folder / 'shades.npz')!r})"


def settings(data: str, overrides: dict[str, Any] | None = None) -> ChallengeSettings:
    values = {"data": data, "arch": ARCH, "augment": "crop_flip", "least": 12 / 16, "batch": 8, "epochs": 2, "placed_epochs": 2, "average": 0.5,
              "bf16": False, "device": "cpu"}  # fmt: skip
    return ChallengeSettings.read(None, values | (overrides or {}))


@pytest.fixture(scope="module")
def whole(data: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An undisturbed run."""
    out = tmp_path_factory.mktemp("whole") / "run"
    train_challenge(settings(data), out)
    return out


def files(out: Path) -> dict[str, bytes]:
    """What must not depend on how a run came about."""
    return {
        name: (out / name).read_bytes() for name in ("weights.safetensors", "first/weights.safetensors", "card.toml", "first/card.toml")
    }


def test_the_network_is_a_model_by_name_bare_and_behind_its_defences(whole: Path, data: str) -> None:
    model = load_model(whole)
    assert (model.card.recipe, model.card.threat, model.card.classes, model.size) == ("challenge", None, ("0", "1"), 16)
    assert "placed_epochs=2" in model.card.settings
    assert load_model(whole / "first").card.recipe == "first stage of challenge"
    x = sets.load(data, "test").images.float() / 255.0
    with torch.no_grad():
        assert model(x).shape == (8, 2)
        torch.testing.assert_close(conceal(model)(x), model(x), rtol=1e-4, atol=1e-5)
        assert resize_pad(model, least=12 / 16)(x).shape == (8, 2)


class Cut(Exception):
    """The run ends here."""


def test_a_run_that_is_broken_off_anywhere_ends_with_the_same_bytes(whole: Path, data: str, tmp_path: Path) -> None:
    out, given = tmp_path / "run", settings(data)
    state = torch.get_rng_state()

    def cut(stage: str, row: dict[str, float]) -> None:
        raise Cut

    for _ in range(3):  # after each epoch of the first stage, and one of the second
        with pytest.raises(Cut):
            train_challenge(given, out, report=cut)
    told: list[tuple[str, float]] = []
    train_challenge(given, out, report=lambda stage, row: told.append((stage, row["epoch"])))
    assert told == [("placed", 2.0)]
    assert files(out) == files(whole)
    assert torch.equal(torch.get_rng_state(), state)
    before = files(out)
    train_challenge(given, out)  # finished: nothing changes
    assert files(out) == before


def test_stop_after_counts_both_stages(whole: Path, data: str, tmp_path: Path) -> None:
    told: list[str] = []
    for epochs in (1, 2, 3):
        train_challenge(settings(data), tmp_path / "run", report=lambda stage, _: told.append(stage), stop_after=epochs)
    assert told == ["first", "first", "placed"]
    train_challenge(settings(data), tmp_path / "run")
    assert files(tmp_path / "run") == files(whole)


@pytest.mark.parametrize("changed", [{"seed": 1}, {"fgsm": 0.5}, {"through": "gcm"}, {"mixup": 0.0}, {"optimizer": "sgd"}])
def test_other_settings_give_other_weights(changed: dict[str, Any], whole: Path, data: str, tmp_path: Path) -> None:
    """The laws above compare something."""
    train_challenge(settings(data, changed), tmp_path / "run")
    assert (tmp_path / "run" / "weights.safetensors").read_bytes() != (whole / "weights.safetensors").read_bytes()
    assert (tmp_path / "run" / "first" / "weights.safetensors").read_bytes() != (whole / "first" / "weights.safetensors").read_bytes()


def test_a_folder_of_other_settings_is_refused_and_stages_are_decided_alone(whole: Path, data: str) -> None:
    before = files(whole)
    with pytest.raises(ArtifactError, match=r"run: begun with other settings than .*placed_rate"):
        train_challenge(settings(data, {"placed_rate": 0.1}), whole)
    with pytest.raises(ArtifactError, match="first: begun with other settings than cutmix"):
        train_challenge(settings(data, {"cutmix": 0.5}), whole)
    assert files(whole) == before
    first, other = stages(settings(data), whole), stages(settings(data, {"least": 13 / 16}), whole)
    assert first[0] == other[0]
    assert first[1].said != other[1].said


def test_each_stage_can_be_left_out(whole: Path, data: str, tmp_path: Path) -> None:
    train_challenge(settings(data, {"placed_epochs": 0}), tmp_path / "plain")
    assert (tmp_path / "plain" / "weights.safetensors").read_bytes() == (whole / "first" / "weights.safetensors").read_bytes()
    assert load_model(tmp_path / "plain").card.recipe == "challenge"
    assert not (tmp_path / "plain" / "first").exists()
    train_challenge(settings(data, {"epochs": 0}), tmp_path / "placed")
    assert not (tmp_path / "placed" / "first").exists()
    assert load_model(tmp_path / "placed").card.recipe == "challenge"


def test_rates(data: str) -> None:
    """From scratch one rate; with a pretrained trunk a tenth for the backbone; in steps the second stage begins where the first did."""
    scratch, trunk = settings(data), settings(data, {"trunk": "w.safetensors"})
    assert [stage.plan.backbone for stage in stages(scratch, Path("x"))] == [1.0, 1.0]
    assert [stage.plan.backbone for stage in stages(trunk, Path("x"))] == [0.1, 0.1]
    assert stages(settings(data, {"trunk": "w.safetensors", "backbone": 0.5}), Path("x"))[0].plan.backbone == 0.5
    assert [stage.plan.rate for stage in stages(scratch, Path("x"))] == [1e-3, 1e-3]
    assert [stage.plan.rate for stage in stages(settings(data, {"schedule": "one_cycle"}), Path("x"))] == pytest.approx([1e-3, 1e-4])
    assert [stage.plan.rate for stage in stages(settings(data, {"placed_rate": 0.5}), Path("x"))] == [1e-3, 0.5]
    plan = stages(ChallengeSettings.read(None, {}), Path("x"))[0].plan
    assert (plan.optimizer, plan.schedule, plan.rate, plan.weight_decay) == ("adamax", "step(every=70, factor=0.5)", 1e-3, 1e-3)


def test_a_pretrained_trunk_is_where_it_begins(data: str, tmp_path: Path) -> None:
    donor = network(ARCH, seed=3)
    write_weights(donor, tmp_path / "w.safetensors")
    tiny = {"rate": 1e-12, "epochs": 1, "placed_epochs": 0, "weight_decay": 0.0}
    made = train_challenge(settings(data, tiny | {"trunk": tmp_path / "w.safetensors"}), tmp_path / "run").state_dict()
    own = train_challenge(settings(data, tiny), tmp_path / "own").state_dict()
    for name, value in donor.state_dict().items():
        there, here = made[f"network.{name}"], own[f"network.{name}"]
        if not name.startswith("head."):
            torch.testing.assert_close(there, value.half().float(), rtol=2e-3, atol=1e-6)
            assert not torch.equal(there, here)
        else:
            torch.testing.assert_close(there, here, rtol=2e-3, atol=1e-6)


@pytest.mark.parametrize(
    ("values", "says"),
    [
        ({"through": "both"}, "through='both'"), ({"optimizer": "adam"}, "optimizer"), ({"schedule": "stairs"}, "stairs"), ({"epoch": 1}, "epoch"),
        ({"epochs": 0, "placed_epochs": 0}, "one of them above 0"), ({"least": 1.5}, "least"), ({"mixup": -1.0}, "mixup"),
    ],
)  # fmt: skip
def test_wrong_settings_are_refused_in_one_line(values: dict[str, Any], says: str) -> None:
    with pytest.raises(SpecError, match=says) as error:
        ChallengeSettings.read(None, values)
    assert "\n" not in str(error.value)


def test_the_command_trains_and_names_the_weights(data: str, tmp_path: Path) -> None:
    recipe, given = tmp_path / "r.toml", settings(data)
    lines = [f"{name} = {json.dumps(value)}" for name, value in given.model_dump(mode="json", exclude_defaults=True).items()]
    recipe.write_text("\n".join(lines))
    words = ["challenge", str(recipe), "-o", str(tmp_path / "run"), "--epochs", "1", "--placed-epochs", "1", "--fgsm", "0"]
    done = RUN.invoke(app, words)
    assert done.exit_code == 0, done.output
    assert done.stdout.strip() == str(tmp_path / "run" / "weights.safetensors")
    assert "first  epoch 1/1" in done.stderr
    assert "placed  epoch 1/1" in done.stderr
    assert "mixup" in done.stderr
    assert "fgsm=0.0" in load_model(tmp_path / "run").card.settings


def test_the_recipes_of_the_repository() -> None:
    """Each can be read, its augmentation and its network exist, and the small one is small."""
    folder = Path(__file__).parents[2] / "recipes"
    read = {path.stem: ChallengeSettings.read(path, {}) for path in sorted(folder.rglob("*challenge*.toml"))}
    assert {"cifar10_challenge", "cifar10_challenge_small"} <= set(read)
    assert any(one.arch.startswith("convnext(") and one.augment == "challenge224" for one in read.values())
    assert all(len(stages(one, Path("x"))) == 2 for one in read.values())


@pytest.mark.slow
def test_the_small_recipe_learns(tmp_path: Path) -> None:
    """Half of its first epoch's pictures are enough to be far above chance, with all that disturbs it."""
    if not (sets.root() / "cifar10").is_dir():
        pytest.skip("CIFAR-10 is not at hand")
    recipe = Path(__file__).parents[2] / "recipes" / "cifar10_challenge_small.toml"
    model = train_challenge(ChallengeSettings.read(recipe, {"examples": 6400, "epochs": 2, "placed_epochs": 1, "average": 0.9}), tmp_path)
    shown = sets.load("cifar10", "test", first=500)
    with torch.no_grad():
        right = (model(shown.images.float() / 255.0).argmax(1) == shown.labels).float().mean()
    assert float(right) > 0.25
