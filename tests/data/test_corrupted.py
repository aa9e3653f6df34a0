"""Corrupted sets: made ones are a function of (seed, operation, position), published ones are read as they are."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from forearm.core.noise import Noise
from forearm.core.quantize import levels
from forearm.data.augment import augment, crop_flip
from forearm.data.batches import Pictures
from forearm.data.corrupted import BLOCK, corrupted
from forearm.data.corruptions.table import CORRUPTIONS
from forearm.data.sets import load
from forearm.errors import InputError, SpecError
from forearm.registry import resolve

N = 40


def pictures(n: int = N, side: int = 32) -> Pictures:
    generator = torch.Generator().manual_seed(5)
    images = torch.randint(0, 256, (n, 3, side, side), generator=generator).to(torch.uint8)
    return Pictures(images, torch.arange(n) % 10, tuple("0123456789"))


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """A CIFAR-10 of 40 test pictures, as arrays."""
    (tmp_path / "cifar10").mkdir()
    held = pictures()
    x, y = held.images.numpy(), held.labels.numpy()
    np.savez(tmp_path / "cifar10" / "cifar10.npz", x_test=x, y_test=y, x_train=x, y_train=y)
    return tmp_path


def published(place: Path, name: str = "fog", n: int = 6) -> tuple[np.ndarray, np.ndarray]:
    """Five severities of n pictures, in the form of CIFAR-10-C."""
    (place / "cifar10_c").mkdir(exist_ok=True)
    x = np.random.default_rng(0).integers(0, 256, (5 * n, 32, 32, 3), dtype=np.uint8)
    y = np.tile(np.arange(n, dtype=np.uint8) % 10, 5)
    np.save(place / "cifar10_c" / f"{name}.npy", x)
    np.save(place / "cifar10_c" / "labels.npy", y)
    return x, y


def read(place: Path, options: str = "", first: int | None = None) -> Pictures:
    return load(f"cifar10_c({options})", "test", place / "cifar10_c", first=first)


@pytest.mark.parametrize("name", CORRUPTIONS)
def test_a_picture_depends_on_its_position_alone(name: str) -> None:
    held = pictures(12)
    whole, part = corrupted(held, name, 4, seed=7), corrupted(held.first(5), name, 4, seed=7)
    assert whole.images.dtype == torch.uint8
    assert torch.equal(whole.images[:5], part.images)
    assert torch.equal(whole.labels, held.labels)
    assert not torch.equal(whole.images, held.images)


def test_blocks_leave_no_trace() -> None:
    held = pictures(BLOCK + 9, 8)
    made = corrupted(held, "gaussian_noise", 2, seed=3)
    noise = Noise.of(len(held), seed=3).stream("gaussian_noise")
    wanted = resolve(CORRUPTIONS, "gaussian_noise")(held.images.float() / 255, noise=noise, severity=2)
    assert torch.equal(made.images, levels(wanted))
    assert not torch.equal(made.images, corrupted(held, "gaussian_noise", 2, seed=4).images)


def test_names_and_severities_that_do_not_exist_are_refused(place: Path) -> None:
    for name, severity, why in (("fogg", 3, "did you mean 'fog'"), ("fog", 6, "severity"), ("fog", 0, "severity")):
        with pytest.raises(SpecError, match=why):
            corrupted(pictures(0), name, severity)
        with pytest.raises(SpecError, match=why):
            read(place, f"corruption='{name}', severity={severity}")
    for options, why in (("source='guessed'", "one of either"), ("kind='fog'", "corruption")):
        with pytest.raises(SpecError, match=why):
            read(place, options)
    with pytest.raises(SpecError, match="split"):
        load("cifar10_c", "train", place / "cifar10_c")


def test_a_made_set_needs_cifar10_beside_it(place: Path, tmp_path: Path) -> None:
    made = read(place, "corruption='rain', severity=5, seed=2", 9)
    held = load("cifar10", "test", place / "cifar10", first=9)
    assert torch.equal(made.images, corrupted(held, "rain", 5, seed=2).images)
    assert made.classes == held.classes
    assert len(read(place)) == N
    assert torch.equal(read(place).images, read(place, "corruption='gaussian_noise', severity=3, seed=0").images)
    with pytest.raises(InputError, match="no such folder"):
        load("cifar10_c", "test", tmp_path / "elsewhere" / "cifar10_c")


def test_it_is_found_where_data_sets_lie(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FOREARM_DATA", str(place))
    assert torch.equal(load("cifar10_c(corruption='snow')", "test", first=3).images, read(place, "corruption='snow'", 3).images)


@pytest.mark.parametrize("folder", ["cifar10_c", "cifar10_c/CIFAR-10-C"])
def test_published_arrays_are_read_by_severity(place: Path, folder: str) -> None:
    x, y = published(place)
    if folder != "cifar10_c":
        (place / folder).mkdir()
        for name in ("fog.npy", "labels.npy"):
            (place / "cifar10_c" / name).rename(place / folder / name)
    for severity in range(1, 6):
        for source in ("either", "published"):
            got = read(place, f"corruption='fog', severity={severity}, source='{source}'")
            some = slice(6 * (severity - 1), 6 * severity)
            assert torch.equal(got.images, torch.from_numpy(x[some]).permute(0, 3, 1, 2))
            assert got.labels.tolist() == y[some].tolist()
    assert torch.equal(read(place, "corruption='fog', severity=5", 2).images, torch.from_numpy(x[24:26]).permute(0, 3, 1, 2))
    assert len(read(place, "corruption='fog'", 0)) == 0
    assert len(read(place, "corruption='fog', source='made'")) == N
    assert len(read(place, "corruption='frost'")) == N  # no such file: made


def test_what_is_not_published_is_told(place: Path) -> None:
    with pytest.raises(InputError, match=r"no rain\.npy \(CIFAR-10-C has"):
        read(place, "corruption='rain', source='published'")
    with pytest.raises(InputError, match=r"no fog\.npy; the arrays"):
        read(place, "corruption='fog', source='published'")


@pytest.mark.parametrize("broken", ["text", "pickle", "short", "labels", "classes", "shape", "type"])
def test_broken_arrays_are_told(place: Path, broken: str) -> None:
    x, y = published(place)
    file, table = place / "cifar10_c" / "fog.npy", place / "cifar10_c" / "labels.npy"
    if broken == "text":
        file.write_text("not an array")
    elif broken == "pickle":
        np.save(file, np.array([{"a": 1}], dtype=object), allow_pickle=True)
    elif broken == "short":
        file.write_bytes(file.read_bytes()[:500])
    elif broken == "labels":
        table.unlink()
    elif broken == "classes":
        np.save(table, y + 20)
    elif broken == "shape":
        np.save(file, x[:29])
    else:
        np.save(file, x.astype(np.float32))
    with pytest.raises(InputError, match="cifar10_c"):
        read(place, "corruption='fog'")


def test_the_challenge_is_an_augmentation() -> None:
    images = pictures(64).images
    plain = crop_flip(images, torch.Generator().manual_seed(1))
    made = augment("challenge")(images, torch.Generator().manual_seed(1))
    same = (made == plain).flatten(1).all(1).double().mean()
    assert 0.05 < float(same) < 0.4  # 0.95^32 = 0.19 of the pictures draw no operation
