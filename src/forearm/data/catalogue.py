"""What is known of each data set: its splits, sizes, source and terms, and the published files with their checksums."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class File:
    """One published file: where it is (the first address that answers counts), its size in bytes and its md5, as published.

    `sha256` is known for some; `unpacked` bounds the bytes of what an archive holds (0: it is kept as it is).
    """

    name: str
    urls: tuple[str, ...]
    size: int
    md5: str
    sha256: str = ""
    unpacked: int = 0


@dataclass(frozen=True, slots=True)
class Entry:
    """One data set. `splits`: name -> number of pictures (0: as many as there are)."""

    title: str
    splits: dict[str, int]
    shape: str
    classes: int
    source: str
    licence: str
    files: tuple[File, ...] = field(default=())


def _idx(urls: tuple[str, ...], sums: tuple[tuple[str, int, str], ...]) -> tuple[File, ...]:
    return tuple(File(name, tuple(f"{url}{name}" for url in urls), size, md5) for name, size, md5 in sums)


CIFAR = "https://www.cs.toronto.edu/~kriz/"
HOUSES = "http://ufldl.stanford.edu/housenumbers/"
OWN = {"train": 0, "test": 0}

CATALOGUE: dict[str, Entry] = {
    "cifar10": Entry(
        "CIFAR-10", {"train": 50000, "test": 10000}, "3 x 32 x 32", 10,
        "https://www.cs.toronto.edu/~kriz/cifar.html", "none stated; cite Krizhevsky 2009",
        (File(
            "cifar-10-python.tar.gz", (f"{CIFAR}cifar-10-python.tar.gz",), 170498071, "c58f30108f718f92721af3b95e74349a",
            "6d958be074577803d12ecdefd02955f39262c83c16fe9348329d7fe0b5c001ce", 2**28,
        ),),
    ),
    "cifar10_c": Entry(
        "CIFAR-10-C, one corruption at one severity", {"test": 10000}, "3 x 32 x 32", 10,
        "made from cifar10; published: https://zenodo.org/records/2535967", "CC BY 4.0 as published",
    ),
    "cifar100": Entry(
        "CIFAR-100, fine labels", {"train": 50000, "test": 10000}, "3 x 32 x 32", 100,
        "https://www.cs.toronto.edu/~kriz/cifar.html", "none stated; cite Krizhevsky 2009",
        (File(
            "cifar-100-python.tar.gz", (f"{CIFAR}cifar-100-python.tar.gz",), 169001437, "eb9058c3a382ffc7106e4002c42a8d85",
            "85cd44d02ba6437773c5bbd22e183051d648de2e7d6b014e1ef29b855ba677a7", 2**28,
        ),),
    ),
    "mnist": Entry(
        "MNIST", {"train": 60000, "test": 10000}, "1 x 28 x 28", 10,
        "http://yann.lecun.com/exdb/mnist/", "CC BY-SA 3.0",
        _idx(
            ("https://ossci-datasets.s3.amazonaws.com/mnist/", "https://storage.googleapis.com/cvdf-datasets/mnist/"),
            (
                ("train-images-idx3-ubyte.gz", 9912422, "f68b3c2dcbeaaa9fbdd348bbdeb94873"),
                ("train-labels-idx1-ubyte.gz", 28881, "d53e105ee54ea40749a09fcbcd1e9432"),
                ("t10k-images-idx3-ubyte.gz", 1648877, "9fb629c4189551a2d022fa330f9573f3"),
                ("t10k-labels-idx1-ubyte.gz", 4542, "ec29112dd5afa0611ce80d1b7f02629c"),
            ),
        ),
    ),
    "fashion_mnist": Entry(
        "Fashion-MNIST", {"train": 60000, "test": 10000}, "1 x 28 x 28", 10,
        "https://github.com/zalandoresearch/fashion-mnist", "MIT",
        _idx(
            ("http://fashion-mnist.s3-website.eu-central-1.amazonaws.com/",),
            (
                ("train-images-idx3-ubyte.gz", 26421880, "8d4fb7e6c68d591d4c3dfef9ec88bf0d"),
                ("train-labels-idx1-ubyte.gz", 29515, "25c81989df183df01b3e8a0aad5dffbe"),
                ("t10k-images-idx3-ubyte.gz", 4422102, "bef4ecab320f06d8554ea6380940ec79"),
                ("t10k-labels-idx1-ubyte.gz", 5148, "bb300cfdad3c16e7a12a480ee83cd310"),
            ),
        ),
    ),
    "svhn": Entry(
        "SVHN, cropped digits", {"train": 73257, "test": 26032, "extra": 531131}, "3 x 32 x 32", 10,
        "http://ufldl.stanford.edu/housenumbers/", "non-commercial use only",
        (
            File("train_32x32.mat", (f"{HOUSES}train_32x32.mat",), 182040794, "e26dedcc434d2e4c54c9b2d4a06d8373"),
            File("test_32x32.mat", (f"{HOUSES}test_32x32.mat",), 64275384, "eb5a983be6a315427106f1b164d9cef3"),
        ),
    ),
    "tiny_imagenet": Entry(
        "Tiny ImageNet", {"train": 100000, "test": 10000}, "3 x 64 x 64", 200,
        "http://cs231n.stanford.edu/", "ImageNet's terms: non-commercial research",
        (File(
            "tiny-imagenet-200.zip", ("http://cs231n.stanford.edu/tiny-imagenet-200.zip",), 248100043,
            "90528d7ca1a48142e341f4ef8d21d0de", "", 2**29,
        ),),
    ),
    "imagenet": Entry(
        "ImageNet (ILSVRC 2012)", {"train": 1281167, "test": 50000}, "3 x side x side", 1000,
        "https://image-net.org/ (after registration)", "non-commercial research",
    ),
    "imagenette": Entry(
        "Imagenette", {"train": 12894, "test": 500}, "3 x side x side", 10,
        "https://github.com/fastai/imagenette", "ImageNet's terms: non-commercial research",
        (File(
            "imagenette2-320.tgz", ("https://s3.amazonaws.com/fast-ai-imageclas/imagenette2-320.tgz",), 341663724,
            "3df6f0d01a2c9592104656642f5e78a3", "", 2**29,
        ),),
    ),
    "folder": Entry("photos, one folder a class", OWN, "3 x side x side", 0, "your own: folder(path='photos')", "yours"),
    "csv": Entry("photos with a labels.csv", OWN, "3 x side x side", 0, "your own: csv(path='photos')", "yours"),
    "npz": Entry("arrays", OWN, "c x h x w", 0, "your own: npz(path='mine.npz')", "yours"),
}  # fmt: skip
