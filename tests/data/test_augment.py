"""Every augmentation: in [0, 1], a function of its generator alone, and doing what its name says."""

from __future__ import annotations

import pytest
import torch

from forearm.data.augment import AUGMENTS, augment, colour_jitter, crop_flip, cutout, flip, resized_crop
from forearm.errors import SpecError


def images(n: int = 6, side: int = 160) -> torch.Tensor:
    return torch.randint(0, 256, (n, 3, side, side), generator=torch.Generator().manual_seed(0)).to(torch.uint8)


def seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@pytest.mark.parametrize("name", AUGMENTS)
def test_range_and_determinism(name: str) -> None:
    state = torch.get_rng_state()
    first, again, other = (augment(name)(images(), seeded(seed)) for seed in (1, 1, 2))
    assert first.dtype == torch.float32
    assert 0.0 <= float(first.min()) <= float(first.max()) <= 1.0
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    assert torch.equal(torch.get_rng_state(), state)


def test_crop_flip_moves_whole_pixels() -> None:
    side = 32
    ramp = torch.arange(side, dtype=torch.uint8).reshape(1, 1, 1, side).expand(64, 3, side, side)
    out = crop_flip(ramp, seeded(0)) * 255
    steps = (out[:, :, :, 9:-9] - out[:, :, :, 8:-10]).round()
    assert set(steps.unique().tolist()) == {-1.0, 1.0}
    assert (out - out.round()).abs().max() < 1e-3


def test_flip_mirrors_about_half() -> None:
    x = torch.rand(1000, 1, 1, 2)
    share = (flip(x, seeded(0)) != x).any(3).float().mean()
    assert 0.4 < float(share) < 0.6


def test_cutout_greys_one_square() -> None:
    out = cutout(torch.zeros(5, 3, 32, 32), seeded(0), 8)
    assert torch.equal((out == 0.5).sum((1, 2, 3)), torch.full((5,), 3 * 64))


def test_crop_flip_colour_is_its_parts_in_order() -> None:
    out = augment("crop_flip_colour")(images(64, 32), seeded(3))
    own = seeded(3)
    assert torch.equal(out, cutout(colour_jitter(crop_flip(images(64, 32), own), own), own))
    assert not torch.equal(out, augment("crop_flip_cutout")(images(64, 32), seeded(3)))


def test_a_resized_crop_keeps_straight_lines() -> None:
    """A ramp from left to right stays one: rows equal, steps of one sign and of the size that a part of at least 35 % area has."""
    ramp = torch.arange(0, 160, dtype=torch.uint8).reshape(1, 1, 1, 160).expand(40, 3, 160, 160)
    out = resized_crop(ramp, seeded(0), 64) * 255
    assert (out - out[:, :, :1]).abs().max() < 1e-2
    steps = out[:, 0, 0, 10:-10].diff(dim=1)
    slope = steps.mean(1)
    assert (steps - slope[:, None]).abs().max() < 1e-2
    assert {-1.0, 1.0} == set(slope.sign().tolist())
    assert 1.2 < float(slope.abs().min()) <= float(slope.abs().max()) <= 160 / 64 + 1e-2


def test_an_unknown_name_is_refused() -> None:
    with pytest.raises(SpecError, match="crop_flip"):
        augment("crop")
