"""The zoo by name: from a checkout, from `FOREARM_ZOO`, and what is said where it is not; public checkpoints by their name alone."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from safetensors.torch import load_file, save_file

from forearm.data import sets
from forearm.errors import ArtifactError
from forearm.models import zoo
from forearm.models.foreign import FOREIGN
from forearm.models.load import load_model, locate
from tests.models.tiny import ARCH, write_model

ROOT = Path(__file__).parents[2]
AT_HAND = [name for name, source in FOREIGN.items() if source.file]


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A zoo of one model, `cifar10_resnext`, and one that no table knows."""
    for name in ("cifar10_resnext", "mine"):
        write_model(tmp_path / "zoo" / name)
    monkeypatch.setenv("FOREARM_ZOO", str(tmp_path / "zoo"))
    return tmp_path / "zoo"


def test_a_model_of_the_zoo_by_name(folder: Path) -> None:
    assert zoo.zoo() == ("cifar10_resnext", "mine")
    for name in zoo.zoo():
        assert load_model(name).card.name == name
        assert locate(name).card_file == folder / name / "card.toml"
    (folder / "loose.toml").write_text("")
    (folder / "empty").mkdir()
    assert zoo.zoo() == ("cifar10_resnext", "mine")


def test_its_weights_are_checked(folder: Path) -> None:
    weights = folder / "cifar10_resnext" / "weights.safetensors"
    save_file({name: value + 1 for name, value in load_file(weights).items()}, weights)
    with pytest.raises(ArtifactError, match="expected"):
        load_model("cifar10_resnext")


def test_what_is_not_here_says_where_it_is(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(
        ArtifactError, match=r"cifar10_vit: a model of the zoo.*zoo/cifar10_vit.*FOREARM_ZOO.*recipes/cifar10_vit\.toml"
    ) as caught:
        load_model("cifar10_vit")
    assert "\n" not in str(caught.value)
    monkeypatch.delenv("FOREARM_ZOO")
    monkeypatch.setattr(zoo, "__file__", str(folder / "site-packages" / "forearm" / "models" / "zoo.py"))
    assert zoo.zoo_folder() is None
    assert zoo.zoo() == ()
    with pytest.raises(ArtifactError, match="no checkout"):
        load_model("cifar10_resnext")
    monkeypatch.setenv("FOREARM_ZOO", str(folder / "nowhere"))
    with pytest.raises(ArtifactError, match="FOREARM_ZOO: got"):
        load_model("cifar10_resnext")


def test_a_checkout_has_its_own(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("FOREARM_ZOO")
    monkeypatch.setattr(zoo, "__file__", str(folder.parent / "src" / "forearm" / "models" / "zoo.py"))
    assert zoo.zoo_folder() is None  # some folder called zoo, above no project
    (folder.parent / "pyproject.toml").write_text("")
    assert zoo.zoo_folder() == folder
    assert load_model("mine").card.arch == ARCH


def test_a_path_is_not_the_zoo(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_model(tmp_path / "cifar10_resnext", arch="resnet9(width=4)")
    monkeypatch.chdir(tmp_path)
    assert load_model("cifar10_resnext").card.arch == ARCH
    assert load_model("./cifar10_resnext").card.arch == "resnet9(width=4)"


@pytest.mark.parametrize("name", zoo.ZOO)
def test_every_name_has_its_recipe_and_every_folder_is_intact(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("FOREARM_ZOO", raising=False)
    assert (ROOT / "recipes" / f"{name}.toml").is_file()
    if not (ROOT / "zoo" / name).is_dir():
        pytest.skip(f"no zoo/{name} in this checkout")
    card = load_model(name).card
    assert card.name == name
    assert card.measured
    assert sum(file.stat().st_size for file in (ROOT / "zoo").rglob("*.safetensors")) < 120e6


def test_the_zoo_of_the_repository_has_no_other_names(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("FOREARM_ZOO", raising=False)
    assert set(zoo.zoo()) <= set(zoo.ZOO)


def test_the_data_folder_is_that_of_the_data_sets(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    assert zoo.data_folder() == sets.root()
    monkeypatch.setenv("FOREARM_DATA", str(tmp_path))
    assert zoo.data_folder() == sets.root() == tmp_path


@pytest.mark.parametrize("name", AT_HAND)
def test_a_public_checkpoint_by_its_name(name: str) -> None:
    file = sets.root() / FOREIGN[name].file
    if not file.is_file():
        pytest.skip(f"no {file}")
    alone, given = locate(name), locate(f"{name}={file}")
    assert alone == given
    assert alone.card.sha256 == FOREIGN[name].sha256


def test_another_file_in_its_place_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FOREARM_DATA", str(tmp_path))
    with pytest.raises(ArtifactError, match="resnet2b: no file") as caught:
        load_model("resnet2b")
    assert "resnet2b=PATH" in str(caught.value)
    card = write_model(tmp_path / "m")
    file = tmp_path / FOREIGN["resnet2b"].file
    file.parent.mkdir(parents=True)
    shutil.copy(tmp_path / "m" / "weights.safetensors", file)
    with pytest.raises(ArtifactError, match=f"sha256 {card.sha256}; expected {FOREIGN['resnet2b'].sha256}"):
        load_model("resnet2b")
