"""MNIST and Fashion-MNIST: idx files, gzipped or not, arrays, mosaics; and the published bytes where the real files are."""

from __future__ import annotations

import gzip
import hashlib
import struct
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image

from forearm.data import sets
from forearm.data.mnist import fashion_mnist, mnist, read_idx
from forearm.errors import InputError

real = pytest.mark.skipif(not (sets.root() / "mnist").is_dir(), reason="no mnist under FOREARM_DATA")
# md5 of the published idx files, inflated
PUBLISHED = {
    "test": ("2646ac647ad5339dbf082846283269ea", "27ae3e4e09519cfbb04c329615203637"),
    "train": ("6bbc9ace898e44ae57da46a324031adb", "a25bea736e30d166cdddb491f175f624"),
}


def idx(a: NDArray[np.uint8]) -> bytes:
    return bytes((0, 0, 8, a.ndim)) + struct.pack(f">{a.ndim}I", *a.shape) + a.tobytes()


def drawn(n: int) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    numbers = np.random.default_rng(0)
    return numbers.integers(0, 256, (n, 28, 28), dtype=np.uint8), numbers.integers(0, 10, n, dtype=np.uint8)


def write_idx(folder: Path, pixels: NDArray[np.uint8], labels: NDArray[np.uint8], packed: bool) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for name, a in (("t10k-images-idx3-ubyte", pixels), ("t10k-labels-idx1-ubyte", labels)):
        file = folder / (f"{name}.gz" if packed else name)
        file.write_bytes(gzip.compress(idx(a), 1) if packed else idx(a))


def test_every_form_gives_the_same_pictures(tmp_path: Path) -> None:
    pixels, labels = drawn(6)
    folders = [tmp_path / name for name in ("plain", "packed", "below", "arrays", "mosaic")]
    plain, packed, below, arrays, mosaic = folders
    write_idx(plain, pixels, labels, False)
    write_idx(packed, pixels, labels, True)
    write_idx(below / "MNIST" / "raw", pixels, labels, True)
    arrays.mkdir()
    np.savez(arrays / "mnist.npz", x_test=pixels, y_test=labels)
    mosaic.mkdir()
    Image.fromarray(pixels.reshape(2, 3, 28, 28).transpose(0, 2, 1, 3).reshape(56, 84)).save(mosaic / "test.png")
    np.savez(mosaic / "labels.npz", y_test=labels)
    for folder in folders:
        pictures = mnist(folder, "test")
        assert torch.equal(pictures.images[:, 0], torch.from_numpy(pixels))
        assert pictures.images.shape == (6, 1, 28, 28)
        assert pictures.labels.tolist() == labels.tolist()
        first = mnist(folder, "test", first=2)
        assert torch.equal(first.images, pictures.images[:2])
        assert torch.equal(first.labels, pictures.labels[:2])
        assert len(mnist(folder, "test", first=0)) == 0
    rgb = mnist(plain, "test", rgb=True)
    assert rgb.images.shape == (6, 3, 28, 28)
    assert all(torch.equal(rgb.images[:, c], torch.from_numpy(pixels)) for c in range(3))


def test_fashion_has_the_same_files_and_other_classes(tmp_path: Path) -> None:
    pixels, labels = drawn(3)
    write_idx(tmp_path / "FashionMNIST" / "raw", pixels, labels, True)
    pictures = fashion_mnist(tmp_path, "test")
    assert torch.equal(pictures.images[:, 0], torch.from_numpy(pixels))
    assert (pictures.classes[0], pictures.classes[9]) == ("T-shirt/top", "Ankle_boot")


@pytest.mark.parametrize(
    ("content", "why"),
    [
        (b"", "begins with"),
        (b"\x1f\x8b\x08\x00", "begins with"),
        (idx(np.zeros((2, 28), np.uint8)), "begins with 00000802"),
        (idx(np.zeros((2, 28, 28), np.uint8))[:-1], "too few"),
        (idx(np.zeros((2, 28, 28), np.uint8)) + b"\0", "more follow"),
        (bytes((0, 0, 8, 3)) + struct.pack(">3I", 2**32 - 1, 2**32 - 1, 2**32 - 1), "bytes of pixels; up to"),
        (bytes((0, 0, 13, 3)) + bytes(12), "begins with 00000d03"),
    ],
)
def test_other_files_are_refused_in_one_line(content: bytes, why: str, tmp_path: Path) -> None:
    (tmp_path / "t10k-images-idx3-ubyte").write_bytes(content)
    (tmp_path / "t10k-labels-idx1-ubyte").write_bytes(idx(np.zeros(2, np.uint8)))
    with pytest.raises(InputError, match=why) as caught:
        mnist(tmp_path, "test")
    assert "\n" not in str(caught.value)


def test_damaged_gzip_and_wrong_sizes_are_refused(tmp_path: Path) -> None:
    file = tmp_path / "a.gz"
    packed = gzip.compress(idx(np.arange(200, dtype=np.uint8)))
    for content in (packed[:-9], packed[:20] + b"\xff" + packed[21:], b"plain"):
        file.write_bytes(content)
        with pytest.raises(InputError, match="an idx file of uint8"):
            read_idx(file, 1)
    write_idx(tmp_path / "small", np.zeros((2, 27, 28), np.uint8), np.zeros(2, np.uint8), False)
    with pytest.raises(InputError, match=r"pictures of shape \(1, 27, 28\); \(1, 28, 28\)"):
        mnist(tmp_path / "small", "test")
    with pytest.raises(
        InputError, match=r"no MNIST train files; train-images-idx3-ubyte and .* \(also \.gz\), or train\.png and labels\.npz"
    ):
        mnist(tmp_path, "train")


@real
@pytest.mark.parametrize("split", ["test", "train"])
def test_mnist_is_the_published_one(split: str) -> None:
    """The idx files that these pictures and labels make have the published md5."""
    pictures = sets.load("mnist", split)
    for a, published in zip((pictures.images[:, 0], pictures.labels), PUBLISHED[split], strict=True):
        assert hashlib.md5(idx(a.numpy().astype(np.uint8))).hexdigest() == published
