"""CIFAR-10 and CIFAR-100 (Krizhevsky, 2009): the published pickles, the binary versions, `.npz` arrays, and lossless mosaics."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from forearm.data.arrays import npz_form, stored_labels
from forearm.data.batches import Pictures
from forearm.data.forms import Arrays, Form, in_series, known_split, read_form
from forearm.data.photos import open_photo
from forearm.data.pickles import read_pickle
from forearm.errors import InputError

CLASSES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
FINE_CLASSES = (
    "apple", "aquarium_fish", "baby", "bear", "beaver", "bed", "bee", "beetle", "bicycle", "bottle", "bowl", "boy", "bridge", "bus",
    "butterfly", "camel", "can", "castle", "caterpillar", "cattle", "chair", "chimpanzee", "clock", "cloud", "cockroach", "couch",
    "crab", "crocodile", "cup", "dinosaur", "dolphin", "elephant", "flatfish", "forest", "fox", "girl", "hamster", "house", "kangaroo",
    "keyboard", "lamp", "lawn_mower", "leopard", "lion", "lizard", "lobster", "man", "maple_tree", "motorcycle", "mountain", "mouse",
    "mushroom", "oak_tree", "orange", "orchid", "otter", "palm_tree", "pear", "pickup_truck", "pine_tree", "plain", "plate", "poppy",
    "porcupine", "possum", "rabbit", "raccoon", "ray", "road", "rocket", "rose", "sea", "seal", "shark", "shrew", "skunk", "skyscraper",
    "snail", "snake", "spider", "squirrel", "streetcar", "sunflower", "sweet_pepper", "table", "tank", "telephone", "television",
    "tiger", "tractor", "train", "trout", "tulip", "turtle", "wardrobe", "whale", "willow_tree", "wolf", "woman", "worm",
)  # fmt: skip
SHAPE = (3, 32, 32)


def cifar10(folder: Path, split: str, *, first: int | None = None) -> Pictures:
    """The 50,000 `train` or 10,000 `test` pictures in the canonical order, `n 3 32 32`; the `first` so many."""
    known_split("cifar10", split)
    tiles = tuple(f"train_{i}.webp" for i in range(1, 6)) if split == "train" else ("test.webp",)
    batches = tuple(f"data_batch_{i}" for i in range(1, 6)) if split == "train" else ("test_batch",)
    binary = tuple(f"{name}.bin" for name in batches)
    forms = (
        Form((*tiles, "labels.npz"), f"{tiles[0]} and labels.npz (mosaics)", lambda paths, first: _mosaics(paths, first, split)),
        Form(batches, f"{batches[0]} (the Python version)", lambda paths, first: in_series(paths, first, lambda p: _pickled(p, "labels"))),
        Form(binary, f"{binary[0]} (the binary version)", lambda paths, first: in_series(paths, first, lambda p: _binary(p, 1, first))),
        npz_form("cifar10.npz", split),
    )
    places = ("cifar-10-batches-py", "cifar-10-batches-bin")
    return read_form(folder, f"CIFAR-10 {split}", forms, places=places, shape=SHAPE, classes=CLASSES, first=first)


def cifar100(folder: Path, split: str, *, first: int | None = None) -> Pictures:
    """The 50,000 `train` or 10,000 `test` pictures with their 100 fine labels, in the canonical order, `n 3 32 32`; the `first` so many."""
    known_split("cifar100", split)
    forms = (
        Form((split, "meta"), f"{split} and meta (the Python version)", lambda paths, _: _pickled(paths[0], "fine_labels")),
        Form((f"{split}.bin",), f"{split}.bin (the binary version)", lambda paths, first: _binary(paths[0], 2, first)),
        npz_form("cifar100.npz", split),
    )
    places = ("cifar-100-python", "cifar-100-binary")
    return read_form(folder, f"CIFAR-100 {split}", forms, places=places, shape=SHAPE, classes=FINE_CLASSES, first=first)


def _mosaics(paths: Sequence[Path], first: int | None, split: str) -> Arrays:
    """Mosaics of 100 x 100 tiles, row-major, and the labels of all of them."""
    *tiles, table = paths
    labels = stored_labels(table, split)
    pixels, _ = in_series(tiles, first, lambda path: (_mosaic(path), np.zeros(10000, np.int64)))
    return pixels, labels[: len(pixels)]


def _mosaic(path: Path) -> NDArray[np.uint8]:
    a = np.asarray(open_photo(path, "RGB"))
    if a.shape != (3200, 3200, 3):
        raise InputError(f"{path}: {a.shape[1]} x {a.shape[0]} pixels; 3200 x 3200, 100 x 100 tiles of 32 x 32")
    return a.reshape(100, 32, 100, 32, 3).transpose(0, 2, 4, 1, 3).reshape(10000, 3, 32, 32)


def _binary(path: Path, labels: int, first: int | None) -> Arrays:
    """Records of `labels` label bytes, of which the last is the finest, and 3,072 pixel bytes (channels first)."""
    length = labels + 3072
    if path.stat().st_size % length:
        raise InputError(f"{path}: {path.stat().st_size} bytes; records of {length}, for example 10,000 of them")
    records = np.fromfile(path, np.uint8, -1 if first is None else first * length).reshape(-1, length)
    return records[:, labels:].reshape(-1, *SHAPE), records[:, labels - 1]


def _pickled(path: Path, key: str) -> Arrays:
    """One pickled batch: `data` uint8 `n 3072` (channels first) and a list of labels."""
    batch = read_pickle(path)
    data, labels = batch.get("data"), batch.get(key)
    if not isinstance(data, np.ndarray) or data.dtype != np.uint8 or data.shape[1:] != (3072,) or not isinstance(labels, list):
        raise InputError(f"{path}: no data (uint8, n x 3072) with {key}; a batch of CIFAR's Python version")
    if not all(type(label) is int and 0 <= label < 2**31 for label in labels):
        raise InputError(f"{path}: {key} that are not whole numbers from 0; one a picture, for example 6")
    return data.reshape(-1, *SHAPE), np.array(labels, np.int64)
