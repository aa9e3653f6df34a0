"""A student before another classifier: its pictures are what the classifier sees, and nothing is hidden."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

from forearm.core.gradients import input_gradient
from forearm.core.losses import cross_entropy
from forearm.core.precision import verdict
from forearm.defenses.inference.regenerate import regenerate
from forearm.errors import InputError, SpecError
from forearm.evaluate.chosen import Sources
from forearm.evaluate.defense import defense, students
from forearm.evaluate.matrix import cells, matrix_from
from forearm.jobs.audit import audit
from forearm.jobs.measure import check
from forearm.jobs.train import write_weights
from forearm.models.autoencoder import Autoencoder, frozen
from forearm.models.card import Card, write_card
from forearm.models.lenet import LeNet, lenet, lenet_autoencoder
from forearm.models.load import load_model
from forearm.models.weights import file_sum


def parts() -> tuple[LeNet, Autoencoder]:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model, student = lenet(side=8), lenet_autoencoder(side=8)
    frozen(model)
    frozen(student)
    return model, student


def test_the_model_sees_what_the_student_makes() -> None:
    model, student = parts()
    x = torch.rand(3, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    pure = regenerate(model, student=student)
    assert torch.equal(pure(x), model(student.regenerate(x)))
    assert not torch.equal(pure(x), model(x))
    assert pure.state_dict().keys() == model.state_dict().keys()
    assert not pure.training


def test_its_gradient_is_that_of_differences() -> None:
    model, student = (part.double() for part in parts())
    assert isinstance(student, Autoencoder)
    pure = regenerate(model, student=student)
    x = torch.rand(1, 1, 8, 8, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    y, width = torch.tensor([3]), 1e-7
    slope, _ = input_gradient(pure, x, y)
    direction = torch.randn(x.shape, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    ends = [float(cross_entropy(pure(x + sign * width * direction), y)) for sign in (1.0, -1.0)]
    expected = (ends[0] - ends[1]) / (2 * width)
    assert abs(expected) > 1e-6
    torch.testing.assert_close(float((slope * direction).sum()), expected, rtol=1e-4, atol=1e-9)


# --- by name


def stored(folder: Path, network: torch.nn.Module, arch: str) -> Path:
    """A model of greyscale pictures of 8 x 8 in two classes, as training leaves it."""
    folder.mkdir(parents=True, exist_ok=True)
    write_weights(network, folder / "weights.safetensors")
    total = file_sum(folder / "weights.safetensors")
    card = Card(name=folder.name, arch=arch, weights="weights.safetensors", sha256=total, classes=("a", "b"), size=8, data="npz")
    write_card(card, folder / "card.toml")
    return folder


@pytest.fixture(scope="module")
def named(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A target and a student in folders."""
    place = tmp_path_factory.mktemp("models")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(1)
        target, student = lenet(classes=2, side=8), lenet_autoencoder(classes=2, side=8)
    return stored(place / "target", target, "lenet(side=8)"), stored(place / "student", student, "lenet_autoencoder(side=8)")


def test_a_spec_names_its_student(named: tuple[Path, Path]) -> None:
    target, student = named
    x = torch.rand(2, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    bare, network = load_model(target), load_model(student).network
    assert isinstance(network, Autoencoder)
    spec = f"regenerate(student={str(student)!r})"
    guard = defense(spec)
    assert students(f"{spec}+gaussian") == (str(student),)
    assert guard.unmask is not None
    assert torch.equal(guard.harden(bare)(x), bare(network.regenerate(x)))
    assert torch.equal(guard.unmask(bare)(x), guard.harden(bare)(x))
    moved = guard.harden(load_model(target)).double()
    torch.testing.assert_close(moved(x.double()).float(), bare(network.regenerate(x)))


@pytest.mark.parametrize("spec", ["regenerate", "regenerate(student='')", "regenerate(student=3)"])
def test_a_spec_without_a_student_is_refused(spec: str, named: tuple[Path, Path]) -> None:
    with pytest.raises(SpecError, match=r"no student.*for example"):
        students(spec)
    with pytest.raises(SpecError, match=r"no student.*for example"):
        defense(spec)
    with pytest.raises(SpecError, match="makes no pictures"):
        defense(f"regenerate(student={str(named[0])!r})")


def test_a_network_without_a_decoder_is_refused() -> None:
    model, _ = parts()
    with pytest.raises(SpecError, match="got student="):
        regenerate(model)
    with pytest.raises(SpecError, match="got student="):
        regenerate(model, student=model)  # type: ignore[arg-type]


def test_a_matrix_of_greyscale_models_and_students(named: tuple[Path, Path], tmp_path: Path) -> None:
    """What the rows say is what the parts say by themselves; another student is another cell."""
    target, student = named[0], tmp_path / "student"
    shutil.copytree(named[1], student)
    random = np.random.default_rng(0)
    x, y = random.integers(0, 256, (6, 8, 8)).astype(np.uint8), np.arange(6) % 2
    np.savez(tmp_path / "grey.npz", x_train=x, y_train=y, x_test=x, y_test=y)
    text = f"""
        dataset = "npz(path='{tmp_path / "grey.npz"}')"
        masking = false
        [[grid]]
        models = ['{target}']
        defenses = ["none", "regenerate(student='{student}')"]
        attacks = ["fgsm"]
        threats = ["linf:8/255"]
        [[grid]]
        models = ['{student}']
        attacks = ["pgd(steps=2)", "ffa(steps=2)"]
        threats = ["linf:8/255"]
    """
    matrix = matrix_from(text, "here")
    rows = audit(matrix, store=tmp_path / "store")
    pictures, labels = torch.from_numpy(x)[:, None].float() / 255.0, torch.from_numpy(y)
    network = load_model(student).network
    assert isinstance(network, Autoencoder)
    wanted = {"none": load_model(target), "student": regenerate(load_model(target), student=network)}
    for name, model in wanted.items():
        found = rows.filter((rows["model"] == str(target)) & rows["defense"].str.contains(name))
        for _, one in found.group_by("informed"):
            assert one.sort("id")["clean"].to_list() == verdict(model, pictures, labels)[0].tolist()
    assert len(rows) == 6 * (1 + 2 + 2)
    before = [cell.key for cell in cells(matrix, Sources())]
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(9)
        stored(student, lenet_autoencoder(classes=2, side=8), "lenet_autoencoder(side=8)")
    after = [cell.key for cell in cells(matrix, Sources())]
    assert [a == b for a, b in zip(before, after, strict=True)] == [True, False, False, False, False]


def test_greyscale_models_are_checked_and_see_pictures_of_any_size(named: tuple[Path, Path], tmp_path: Path) -> None:
    assert check(str(named[0])).size == 8
    x = np.zeros((2, 12, 12), np.uint8)
    np.savez(tmp_path / "large.npz", x_train=x, y_train=[0, 1], x_test=x, y_test=[0, 1])
    np.savez(tmp_path / "colour.npz", x_train=x[..., None].repeat(3, 3), y_train=[0, 1], x_test=x[..., None].repeat(3, 3), y_test=[0, 1])
    text = "dataset = \"npz(path='{}')\"\nmasking = false\n[[grid]]\nmodels = ['{}']\nattacks = ['fgsm']\nthreats = ['linf:0.1']"
    assert len(audit(matrix_from(text.format(tmp_path / "large.npz", named[0]), "here"), store=tmp_path / "a")) == 2
    with pytest.raises(InputError, match="3 channels for a model of 1"):
        audit(matrix_from(text.format(tmp_path / "colour.npz", named[0]), "here"), store=tmp_path / "b")
