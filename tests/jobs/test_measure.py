"""Measuring: counts against a loop that knows nothing of it, intervals, cards, and what is refused."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from PIL import Image

from forearm.core.noise import Noise
from forearm.core.threat import Threat
from forearm.data import sets
from forearm.data.batches import Pictures
from forearm.errors import ArtifactError, BudgetError, InputError, SpecError
from forearm.jobs import measure as job
from forearm.models.card import read_card, write_card
from forearm.models.classes import CIFAR10
from forearm.models.load import load_model
from tests.models.tiny import write_model

THREAT = Threat.parse("linf:8/255")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    write_model(tmp_path / "m")
    return tmp_path / "m"


def labelled_by(folder: Path, n: int, wrong: int) -> Pictures:
    """Random pictures with the model's own labels, the first `wrong` of them changed."""
    images = torch.randint(0, 256, (n, 3, 32, 32), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    labels = load_model(folder)(images.float() / 255.0).argmax(1)
    labels[:wrong] = (labels[:wrong] + 1) % 10
    return Pictures(images, labels, CIFAR10)


def test_clean_accuracy_is_the_share_of_right_labels(folder: Path) -> None:
    seen: list[tuple[int, int]] = []
    pictures = labelled_by(folder, 25, 6)
    counts = job.accuracies(load_model(folder), pictures, None, batch=10, report=lambda done, total: seen.append((done, total)))
    assert counts == (19, 0)
    assert seen == [(10, 25), (20, 25), (25, 25)]


def test_robust_pictures_are_right_and_fall_with_eps(tmp_path: Path) -> None:
    write_model(tmp_path, "resnet2b")
    model, pictures = load_model(tmp_path), labelled_by(tmp_path, 24, 3)
    counts = [job.accuracies(model, pictures, Threat.parse(f"linf:{eps}"), steps=5) for eps in ("0", "0.5/255", "0.1")]
    assert counts[0] == (21, 21)
    assert 21 > counts[1][1] > counts[2][1] == 0
    alone = job.accuracies(model, pictures, Threat.parse("linf:0.5/255"), steps=5, batch=1)
    assert abs(alone[1] - counts[1][1]) <= 1  # the same noise; sums of another order may turn a sign


def test_an_attack_outside_its_ball_is_an_error(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def too_far(model: object, x: torch.Tensor, y: torch.Tensor, *, threat: Threat, noise: Noise, **_: object) -> torch.Tensor:
        return (x + 2 * threat.eps).clamp(0.0, 1.0)

    monkeypatch.setattr(job, "pgd", too_far)
    with pytest.raises(BudgetError, match="measure: pgd went"):
        job.accuracies(load_model(folder), labelled_by(folder, 4, 0), THREAT)


def test_figures_go_into_the_card(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pictures = labelled_by(folder, 30, 10)
    monkeypatch.setattr(sets, "load", lambda spec, split, where: pictures if split == "test" else None)
    _, figures = job.measure(str(folder), examples=20, steps=2)
    assert [figure.what for figure in figures] == ["clean accuracy, cifar10 test", "PGD-2 accuracy at linf:8/255, cifar10 test"]
    assert (figures[0].value, figures[0].n) == (0.5, 20)
    assert figures[0].interval == pytest.approx((0.299, 0.701), abs=1e-3)
    assert figures[0].command == f"forearm models measure {folder} --examples 20 --steps 2"
    assert job.add_to_card(str(folder), figures) == folder / "card.toml"
    job.add_to_card(str(folder), figures)
    assert read_card(folder / "card.toml").measured == figures
    assert load_model(folder).card.measured == figures


def test_a_public_checkpoint_has_no_card_to_write_to(folder: Path) -> None:
    with pytest.raises(ArtifactError, match="no card to write to"):
        job.add_to_card(f"preact_resnet(width=4, blocks=(1, 1))={folder / 'weights.safetensors'}", ())


def test_photos_are_taken_at_the_size_of_the_card(folder: Path, tmp_path: Path) -> None:
    card = read_card(folder / "card.toml").model_copy(update={"data": "imagenette(side=160)", "size": 24, "classes": ("a", "b")})
    place = tmp_path / "photos"
    place.mkdir()
    lines = ["file,index,wnid,name,split,origin"]
    for i, name in enumerate(("a", "b")):
        Image.new("RGB", (40, 30), (i * 90, 20, 30)).save(place / f"{i}.png")
        lines.append(f"{i}.png,{i * 7},n{i},{name},val,ilsvrc_val")
    (place / "labels.csv").write_text("\n".join(lines) + "\n")
    pictures = job.pictures_for(card, place)
    assert tuple(pictures.images.shape) == (2, 3, 24, 24)
    with pytest.raises(InputError, match="3 classes, the data set 'imagenette' has 2"):
        job.pictures_for(card.model_copy(update={"classes": ("a", "b", "c")}), place)
    with pytest.raises(SpecError, match="names no data set"):
        job.pictures_for(card.model_copy(update={"data": ""}), place)


def test_check_sees_broken_logits(folder: Path) -> None:
    assert job.check(str(folder)).name == "m"
    card = read_card(folder / "card.toml")
    state = folder / "weights.safetensors"
    from safetensors.torch import load_file, save_file

    from forearm.models.weights import file_sum

    save_file(load_file(state) | {"linear.bias": torch.full((10,), float("nan"))}, state)
    write_card(card.model_copy(update={"sha256": file_sum(state)}), folder / "card.toml")
    with pytest.raises(ArtifactError, match="finite"):
        job.check(str(folder))
