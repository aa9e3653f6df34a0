"""The readers on the real files where they are, and on generated files of the same format."""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from forearm.data import sets
from forearm.data.batches import Pictures, Shuffled
from forearm.data.cifar import CLASSES, cifar10
from forearm.data.folder import labelled_folder
from forearm.errors import InputError, SpecError

real = pytest.mark.skipif(not (sets.root() / "cifar10").is_dir(), reason="the real data sets are not here (FOREARM_DATA)")


@real
def test_cifar10_is_the_published_one() -> None:
    pictures = sets.load("cifar10", "test")
    pixels = pictures.images.permute(0, 2, 3, 1).contiguous().numpy()
    assert hashlib.sha256(pixels.tobytes()).hexdigest() == "f9b1e2130bab680db56eb06d886f7f1ad0f1183907ceff4659d1735c890f5b04"
    assert [CLASSES[k] for k in pictures.labels[:4]] == ["cat", "ship", "ship", "airplane"]
    assert torch.equal(pictures.labels.bincount(), torch.full((10,), 1000))


@real
def test_imagenette_keeps_the_validation_photos_for_testing() -> None:
    test = sets.load("imagenette(side=32)", "test")
    assert len(test) == 500
    assert torch.equal(test.labels.bincount(), torch.full((10,), 50))
    assert test.classes[0] == "tench"


def test_binary_batches_and_mosaics_give_the_same(tmp_path: Path) -> None:
    """Both forms of the test set, generated: 10,000 random tiles."""
    pixels = np.random.default_rng(0).integers(0, 256, (10000, 32, 32, 3), dtype=np.uint8)
    labels = np.arange(10000, dtype=np.uint8) % 10
    old, new = tmp_path / "old", tmp_path / "new"
    old.mkdir()
    new.mkdir()
    records = np.concatenate([labels[:, None], pixels.transpose(0, 3, 1, 2).reshape(10000, -1)], 1)
    records.tofile(old / "test_batch.bin")
    mosaic = pixels.reshape(100, 100, 32, 32, 3).transpose(0, 2, 1, 3, 4).reshape(3200, 3200, 3)
    Image.fromarray(mosaic).save(new / "test.webp", lossless=True, method=0, quality=0)
    np.savez(new / "labels.npz", y_test=labels)
    a, b = cifar10(old, "test"), cifar10(new, "test")
    assert torch.equal(a.images, b.images)
    assert torch.equal(a.labels, b.labels)
    assert torch.equal(a.images[7], torch.from_numpy(pixels[7].transpose(2, 0, 1)))


def test_a_folder_without_data_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"labels\.npz"):
        cifar10(tmp_path, "test")
    with pytest.raises(InputError, match=r"labels\.csv"):
        labelled_folder(tmp_path, 32)
    with pytest.raises(SpecError, match="did you mean 'cifar10'"):
        sets.load("cifar", "test", tmp_path)
    with pytest.raises(InputError, match="FOREARM_DATA"):
        sets.load("cifar10", "test", tmp_path / "nowhere")


def test_a_labelled_folder(tmp_path: Path) -> None:
    for name, colour in (("a.png", (250, 0, 0)), ("b.png", (0, 250, 0))):
        Image.new("RGB", (40, 20), colour).save(tmp_path / name)
    (tmp_path / "labels.csv").write_text("file,index,name\na.png,7,red\nb.png,3,green\n")
    pictures = labelled_folder(tmp_path, 16)
    assert pictures.classes == ("green", "red")
    assert pictures.labels.tolist() == [1, 0]
    assert pictures.images.shape == (2, 3, 16, 16)
    assert pictures.images[0, 0].float().mean() == 250
    (tmp_path / "b.png").write_bytes(b"damaged")
    assert torch.equal(labelled_folder(tmp_path, 16, first=1).images, pictures.images[:1])
    with pytest.raises(InputError, match=r"b\.png: not a readable photo"):
        labelled_folder(tmp_path, 16)
    assert labelled_folder(tmp_path, 16, lambda row: row["name"] == "red").labels.tolist() == [1]


def test_an_epoch_is_a_function_of_its_number_alone() -> None:
    pictures = Pictures(torch.arange(10 * 3 * 32 * 32).reshape(10, 3, 32, 32).to(torch.uint8), torch.arange(10), ())
    batches = Shuffled(pictures, 4, lambda images, generator: images.float() + torch.rand(1, generator=generator))
    first, again, other = (list(batches.epoch(e)) for e in (3, 3, 4))
    assert len(first) == len(batches) == 2
    assert all(torch.equal(a.x, b.x) for a, b in zip(first, again, strict=True))
    assert not all(torch.equal(a.x, b.x) for a, b in zip(first, other, strict=True))
