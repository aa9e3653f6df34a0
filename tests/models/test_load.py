"""`load_model`: every form of name, what comes back, and what is refused."""

from __future__ import annotations

from importlib import resources
from importlib.util import find_spec
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from forearm.errors import ArtifactError, SpecError
from forearm.models.card import read_card, write_card
from forearm.models.load import ALIASES, Model, embedded, load_model, locate
from forearm.models.weights import file_sum
from tests.models.test_weights import site  # noqa: F401  (a fixture)
from tests.models.tiny import ARCH, network, write_model

X = torch.rand(3, 3, 32, 32, generator=torch.Generator().manual_seed(1))


def same(model: Model) -> bool:
    """Whether `model` is the tiny network, up to the rounding of its weights to fp16."""
    with torch.no_grad():
        return torch.allclose(model(X), network()(X), rtol=0.02, atol=0.02)


@pytest.mark.parametrize("form", ["{}", "{}/card.toml", "{}/weights.safetensors", ARCH + "={}/weights.safetensors"])
def test_every_local_form_is_the_same_model(tmp_path: Path, form: str) -> None:
    write_model(tmp_path / "m")
    model = load_model(form.format(tmp_path / "m"))
    assert same(model)
    assert not same(Model(network(seed=1), model.card))
    assert (len(model.classes), model.size) == (10, 32)


def test_a_model_is_frozen_float32_and_in_eval_mode(tmp_path: Path) -> None:
    write_model(tmp_path)
    before = torch.random.get_rng_state()
    model = load_model(tmp_path)
    assert torch.equal(torch.random.get_rng_state(), before)
    assert not any(part.training for part in model.modules())
    assert not any(p.requires_grad or p.dtype != torch.float32 for p in model.parameters())
    (gradient,) = torch.autograd.grad(model(x := X.clone().requires_grad_()).sum(), x)
    assert float(gradient.abs().sum()) > 0
    assert (model.card.name, model.classes[3]) == (tmp_path.name, "cat")


def test_an_address_of_a_card(site: tuple[str, Path]) -> None:  # noqa: F811
    address, folder = site
    write_model(folder)
    assert same(load_model(f"{address}/card.toml#sha256={file_sum(folder / 'card.toml')}"))
    sha256 = file_sum(folder / "weights.safetensors")
    assert same(load_model(f"{ARCH}={address}/weights.safetensors#sha256={sha256}"))
    with pytest.raises(SpecError, match="address of a card"):
        load_model(f"{address}/weights.safetensors#sha256={sha256}")


def test_changed_weights_are_refused(tmp_path: Path) -> None:
    write_model(tmp_path)
    path = tmp_path / "weights.safetensors"
    assert same(load_model(tmp_path, sha256=file_sum(path)))
    for form in (str(tmp_path), f"{ARCH}={path}"):
        with pytest.raises(ArtifactError, match=f"expected {'0' * 64}"):
            load_model(form, sha256="0" * 64)
    save_file(load_file(path) | {"linear.bias": torch.zeros(10).half()}, path)
    with pytest.raises(ArtifactError, match="sha256") as caught:
        load_model(tmp_path)
    assert "\n" not in str(caught.value)


def test_another_shape_is_named(tmp_path: Path) -> None:
    write_model(tmp_path)
    with pytest.raises(ArtifactError, match=r"'conv1.weight' is \(4, 3, 3, 3\); the architecture's is \(8, 3, 3, 3\)"):
        load_model(f"preact_resnet(width=8, blocks=(1, 1))={tmp_path / 'weights.safetensors'}")


def test_a_card_with_an_unknown_architecture(tmp_path: Path) -> None:
    card = write_model(tmp_path)
    write_card(card.model_copy(update={"arch": "preact_resnett"}), tmp_path / "card.toml")
    with pytest.raises(ArtifactError, match="did you mean 'preact_resnet'"):
        load_model(tmp_path)


@pytest.mark.parametrize(
    ("name", "error", "says"),
    [
        ("no_such_model", SpecError, "embedded are"),
        ("no/such/file.safetensors", ArtifactError, "no such file"),
        ("resnet20_a=no/such.th", ArtifactError, "no readable file"),
        ("robustbench:Wong2020=x.pt", SpecError, "robustbench: got 'Wong2020'"),
        ("resnet21=x.pt", SpecError, "model: got 'resnet21'"),
        ("https://host.invalid/m.pt#sha256=" + "0" * 64, SpecError, "address of a card"),
        ("resnet9=https://host.invalid/m.pt", ArtifactError, "no sha256"),
        ("timm:resnet18", ArtifactError, r"forearm\[zoo\]"),
    ],
)
def test_what_cannot_be_loaded_says_why(name: str, error: type[Exception], says: str) -> None:
    if name.startswith("timm:") and find_spec("timm") is not None:
        pytest.skip("timm is installed")
    with pytest.raises(error, match=says) as caught:
        load_model(name)
    assert "\n" not in str(caught.value)


def test_weights_without_a_card_ask_for_an_architecture(tmp_path: Path) -> None:
    write_model(tmp_path)
    (tmp_path / "card.toml").unlink()
    with pytest.raises(ArtifactError, match=r"no card\.toml beside it"):
        load_model(tmp_path / "weights.safetensors")


@pytest.mark.parametrize("name", embedded() or [pytest.param("", marks=pytest.mark.skip("no embedded models yet"))])
def test_every_embedded_model_is_intact(name: str) -> None:
    located = locate(name)
    assert located.card.name == name
    assert file_sum(located.weights) == located.card.sha256
    model = load_model(name)
    with torch.no_grad():
        logits = model(torch.full((1, 3, model.size, model.size), 0.5))
    assert logits.shape == (1, len(model.classes))
    assert bool(logits.isfinite().all())


def test_every_embedded_card_has_weights_and_every_weight_file_a_card() -> None:
    folder = resources.files("forearm") / "weights"
    files = {p.name for p in folder.iterdir() if p.name.endswith(".safetensors")} if folder.is_dir() else set()
    assert files == {locate(name).card.weights for name in embedded()}


def test_aliases_lead_to_embedded_cards() -> None:
    for alias, name in ALIASES.items():
        assert locate(alias).card.name == name
        assert locate(alias).card.role == alias


def test_an_embedded_name_is_looked_up_in_the_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cards = tmp_path / "models" / "cards"
    card = write_model(tmp_path / "weights", weights="mine.safetensors")
    cards.mkdir(parents=True)
    write_card(card.model_copy(update={"name": "mine"}), cards / "mine.toml")
    monkeypatch.setattr(resources, "files", lambda package: tmp_path / str(package).removeprefix("forearm").strip("."))
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine").mkdir()
    assert embedded() == ("mine",)
    assert same(load_model("mine"))
    assert read_card(cards / "mine.toml").name == "mine"
    with pytest.raises(ArtifactError, match="no readable card"):
        load_model("./mine")
