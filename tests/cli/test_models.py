"""`forearm models` from the command line."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from typer.testing import CliRunner

from forearm.cli.models import app
from forearm.data import sets
from forearm.data.batches import Pictures
from forearm.errors import SpecError
from forearm.models.card import card_from, read_card
from forearm.models.classes import CIFAR10
from forearm.models.load import embedded
from forearm.models.zoo import zoo
from tests.models.tiny import write_model

RUN = CliRunner()


def test_list_names_embedded_models_and_kinds() -> None:
    result = RUN.invoke(app, ["list"])
    assert result.exit_code == 0
    for word in ("resnet20_a", "robustbench:Wong2020Fast", *embedded()):
        assert word in result.stdout
    listed = json.loads(RUN.invoke(app, ["list", "--json"]).stdout)
    assert tuple(card["name"] for card in listed["embedded"]) == embedded()
    assert "mobilenet_v2" in listed["kinds"]


def test_show_prints_the_card(tmp_path: Path) -> None:
    card = write_model(tmp_path)
    assert card_from(RUN.invoke(app, ["show", str(tmp_path)]).stdout, "stdout") == card
    assert json.loads(RUN.invoke(app, ["show", str(tmp_path), "--json"]).stdout)["sha256"] == card.sha256


def test_verify_fails_on_changed_weights(tmp_path: Path) -> None:
    card = write_model(tmp_path)
    good = RUN.invoke(app, ["verify", str(tmp_path)])
    assert good.exit_code == 0
    assert card.sha256[:16] in good.stdout
    with (tmp_path / "weights.safetensors").open("ab") as file:
        file.write(b"\0")
    bad = RUN.invoke(app, ["verify", str(tmp_path)])
    assert bad.exit_code == 1
    assert "sha256" in bad.stderr


def test_verify_without_a_name_checks_all_embedded_models() -> None:
    result = RUN.invoke(app, ["verify"])
    assert result.exit_code == 0
    assert result.stdout.count("ok ") == len(embedded()) + len(zoo())


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    write_model(tmp_path / "cifar10_resnext")
    monkeypatch.setenv("FOREARM_ZOO", str(tmp_path))
    return tmp_path


def test_the_zoo_is_listed_verified_and_measured_by_name(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    listed = RUN.invoke(app, ["list"]).stdout
    assert "\ncifar10_resnext  32 px" in listed
    assert "not here: cifar10_denoiser, cifar10_mid, cifar10_vit" in listed
    assert [card["name"] for card in json.loads(RUN.invoke(app, ["list", "--json"]).stdout)["zoo"]] == ["cifar10_resnext"]
    assert "ok      cifar10_resnext" in RUN.invoke(app, ["verify"]).stdout
    pictures = Pictures(torch.zeros(4, 3, 32, 32, dtype=torch.uint8), torch.zeros(4, dtype=torch.int64), CIFAR10)
    monkeypatch.setattr(sets, "load", lambda spec, split, folder: pictures)
    assert RUN.invoke(app, ["measure", "cifar10_resnext", "--steps", "1", "--write"]).exit_code == 0
    card = read_card(folder / "cifar10_resnext" / "card.toml")
    assert card.measured[0].command == "forearm models measure cifar10_resnext --steps 1"
    with (folder / "cifar10_resnext" / "weights.safetensors").open("ab") as file:
        file.write(b"\0")
    bad = RUN.invoke(app, ["verify"])
    assert bad.exit_code == 1
    assert "sha256" in bad.stderr


def test_measure_prints_and_writes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_model(tmp_path)
    pictures = Pictures(torch.zeros(4, 3, 32, 32, dtype=torch.uint8), torch.zeros(4, dtype=torch.int64), CIFAR10)
    monkeypatch.setattr(sets, "load", lambda spec, split, folder: pictures)
    result = RUN.invoke(app, ["measure", str(tmp_path), "--steps", "1", "--examples", "3", "--json", "--write"])
    assert result.exit_code == 0
    measured = json.loads(result.stdout)["measured"]
    assert [figure["n"] for figure in measured] == [3, 3]
    assert [figure.what for figure in read_card(tmp_path / "card.toml").measured] == [figure["what"] for figure in measured]
    plain = RUN.invoke(app, ["measure", str(tmp_path), "--steps", "1", "--examples", "3"])
    assert "n = 3" in plain.stdout


def test_an_unknown_name_is_a_spec_error() -> None:
    assert isinstance(RUN.invoke(app, ["show", "nothing_like_it"]).exception, SpecError)
