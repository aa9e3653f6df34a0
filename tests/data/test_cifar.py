"""CIFAR in all its forms: the same pictures from each, and the published order where the real files are."""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image

from forearm.data import sets
from forearm.data.cifar import CLASSES, FINE_CLASSES, cifar10, cifar100
from forearm.errors import InputError, SpecError
from tests.data.pickled import batch

real = pytest.mark.skipif(not (sets.root() / "cifar10").is_dir(), reason="no cifar10 under FOREARM_DATA")


def drawn(n: int, seed: int = 0) -> tuple[NDArray[np.uint8], list[int]]:
    """n random pictures, channels first, and labels below 10."""
    numbers = np.random.default_rng(seed)
    return numbers.integers(0, 256, (n, 3, 32, 32), dtype=np.uint8), numbers.integers(0, 10, n).tolist()


def write_forms(top: Path, pixels: NDArray[np.uint8], labels: list[int]) -> list[Path]:
    """A test split of CIFAR-10 in each form but the mosaic, each in a folder of its own, some below their published folder."""
    python, below, binary, arrays = (top / name for name in ("python", "below", "binary", "arrays"))
    for folder in (python, below / "cifar-10-batches-py", binary / "cifar-10-batches-bin", arrays):
        folder.mkdir(parents=True)
    flat = pixels.reshape(len(labels), -1)
    (python / "test_batch").write_bytes(batch(flat, labels))
    (below / "cifar-10-batches-py" / "test_batch").write_bytes(batch(flat, labels))
    records = np.concatenate([np.array(labels, np.uint8)[:, None], flat], 1)
    records.tofile(binary / "cifar-10-batches-bin" / "test_batch.bin")
    np.savez(arrays / "cifar10.npz", x_test=pixels.transpose(0, 2, 3, 1), y_test=np.array(labels)[:, None])
    return [python, below, binary, arrays]


def test_every_form_gives_the_same_pictures(tmp_path: Path) -> None:
    pixels, labels = drawn(7)
    for folder in write_forms(tmp_path, pixels, labels):
        pictures = cifar10(folder, "test")
        assert torch.equal(pictures.images, torch.from_numpy(pixels))
        assert pictures.labels.tolist() == labels
        assert pictures.classes == CLASSES
        first = cifar10(folder, "test", first=3)
        assert torch.equal(first.images, pictures.images[:3])
        assert torch.equal(first.labels, pictures.labels[:3])
        assert cifar10(folder, "test", first=0).images.shape == (0, 3, 32, 32)


def test_training_batches_follow_each_other_and_only_the_needed_are_read(tmp_path: Path) -> None:
    parts = [drawn(4, seed) for seed in range(5)]
    for i, (pixels, labels) in enumerate(parts, 1):
        (tmp_path / f"data_batch_{i}").write_bytes(batch(pixels.reshape(4, -1), labels))
    whole = cifar10(tmp_path, "train")
    assert torch.equal(whole.images, torch.from_numpy(np.concatenate([pixels for pixels, _ in parts])))
    assert whole.labels.tolist() == [label for _, labels in parts for label in labels]
    (tmp_path / "data_batch_3").write_bytes(b"damaged")
    assert torch.equal(cifar10(tmp_path, "train", first=8).images, whole.images[:8])
    with pytest.raises(InputError, match=r"data_batch_3: refused as a pickle"):
        cifar10(tmp_path, "train", first=9)


def test_cifar100_has_its_fine_labels(tmp_path: Path) -> None:
    pixels, _ = drawn(5)
    fine, coarse = [99, 0, 42, 7, 19], [4, 3, 2, 1, 0]
    python, binary, arrays = tmp_path / "cifar-100-python", tmp_path / "binary", tmp_path / "arrays"
    for folder in (python, binary, arrays):
        folder.mkdir()
    content = batch(pixels.reshape(5, -1), fine, "fine_labels")
    (python / "train").write_bytes(content)
    (python / "meta").write_bytes(b"")
    np.concatenate([np.array([coarse, fine], np.uint8).T, pixels.reshape(5, -1)], 1).tofile(binary / "train.bin")
    np.savez(arrays / "cifar100.npz", x_train=pixels, y_train=fine)
    for folder in (tmp_path, python, binary, arrays):
        pictures = cifar100(folder, "train")
        assert pictures.labels.tolist() == fine
        assert torch.equal(pictures.images, torch.from_numpy(pixels))
        assert cifar100(folder, "train", first=2).labels.tolist() == fine[:2]
    assert len(FINE_CLASSES) == len(set(FINE_CLASSES)) == 100
    assert list(FINE_CLASSES) == sorted(FINE_CLASSES)  # the published numbering is alphabetical
    assert (FINE_CLASSES[0], FINE_CLASSES[19], FINE_CLASSES[99]) == ("apple", "cattle", "worm")


def test_what_is_not_cifar_is_refused_in_one_line(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"no CIFAR-100 test files; test and meta .*, or test\.bin .*, or cifar100\.npz"):
        cifar100(tmp_path, "test")
    with pytest.raises(SpecError, match="got the split 'val'; one of train, test"):
        cifar10(tmp_path, "val")
    with pytest.raises(SpecError, match="first: got -1"):
        cifar10(tmp_path, "test", first=-1)
    (tmp_path / "test_batch.bin").write_bytes(bytes(3073 * 2 + 1))
    with pytest.raises(InputError, match="6147 bytes; records of 3073"):
        cifar10(tmp_path, "test")
    (tmp_path / "test_batch.bin").write_bytes(bytes([10]) + bytes(3072))
    with pytest.raises(InputError, match="labels from 10 to 10; 0 to 9"):
        cifar10(tmp_path, "test")
    pixels, labels = drawn(2)
    (tmp_path / "test_batch").write_bytes(batch(pixels.reshape(2, -1), [*labels, 1]))
    with pytest.raises(InputError, match=r"2 pictures, labels of shape \(3,\)"):
        cifar10(tmp_path, "test")
    (tmp_path / "test_batch").write_bytes(batch(pixels.reshape(2, -1), labels, "fine_labels"))
    with pytest.raises(InputError, match="with labels; a batch of CIFAR's Python version"):
        cifar10(tmp_path, "test")


def test_damaged_mosaics_are_told(tmp_path: Path) -> None:
    (tmp_path / "test.webp").write_bytes(b"damaged")
    (tmp_path / "labels.npz").write_bytes(b"damaged")
    with pytest.raises(InputError, match=r"labels\.npz: no labels to read"):
        cifar10(tmp_path, "test")
    np.savez(tmp_path / "labels.npz", y_train=[1])
    with pytest.raises(InputError, match=r"labels\.npz: no labels to read .*y_train and y_test"):
        cifar10(tmp_path, "test")
    np.savez(tmp_path / "labels.npz", y_test=[1])
    with pytest.raises(InputError, match=r"test\.webp: not a readable photo"):
        cifar10(tmp_path, "test")
    Image.new("RGB", (32, 32)).save(tmp_path / "test.webp")
    with pytest.raises(InputError, match="32 x 32 pixels; 3200 x 3200"):
        cifar10(tmp_path, "test")


@real
def test_the_real_test_set_through_pickles_and_records(tmp_path: Path) -> None:
    """The published pictures, written in the other published forms and read back, have the published bytes."""
    known = sets.load("cifar10", "test", first=300)
    pixels, labels = known.images.numpy(), known.labels.tolist()
    for folder in write_forms(tmp_path, pixels, labels):
        assert torch.equal(cifar10(folder, "test").images, known.images)
        assert torch.equal(cifar10(folder, "test").labels, known.labels)


@real
def test_the_first_training_pictures_are_a_frog_and_two_trucks() -> None:
    first = sets.load("cifar10", "train", first=4)
    assert [CLASSES[k] for k in first.labels] == ["frog", "truck", "truck", "deer"]


@real
@pytest.mark.slow
def test_the_real_training_set_is_the_published_one() -> None:
    pictures = sets.load("cifar10", "train")
    pixels = pictures.images.permute(0, 2, 3, 1).contiguous().numpy()
    assert hashlib.sha256(pixels.tobytes()).hexdigest() == "47af8b02cfcfb6cdf3dbbd1969ad7f1b70f4413f6f80f437b020ee4e5bc8304a"
    assert torch.equal(pictures.labels.bincount(), torch.full((10,), 5000))
    assert torch.equal(sets.load("cifar10", "train", first=10_001).images, pictures.images[:10_001])
