"""JPEG with a gradient: against libjpeg, and its derivative against what straight-through rounding leaves of it."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from forearm.core import channel
from forearm.core.differentiable import SUBSAMPLINGS, jpeg, shared_colours
from forearm.core.noise import Noise
from forearm.core.quantize import to_8bit
from forearm.errors import InputError, SpecError

LUMA = torch.tensor([0.299, 0.587, 0.114], dtype=torch.float64).reshape(1, 3, 1, 1)


def pictures(n: int = 2, channels: int = 3, height: int = 43, width: int = 53) -> Tensor:
    """Smooth shapes with some grain, on the 8-bit grid."""
    generator = torch.Generator().manual_seed(4)
    coarse = torch.rand(n, channels, 6, 7, generator=generator)
    grain = 0.02 * torch.randn(n, channels, height, width, generator=generator)
    return to_8bit((F.interpolate(coarse, (height, width), mode="bicubic") + grain).clamp(0, 1))


def off(x: Tensor, made: Tensor, quality: int, subsampling: str) -> float:
    """Mean difference from libjpeg's pixels, in levels."""
    real = channel.jpeg(x, noise=Noise.of(len(x)), quality=quality, subsampling=subsampling)
    return float((255.0 * (made - real)).abs().mean())


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("subsampling", SUBSAMPLINGS)
@pytest.mark.parametrize("quality", [10, 30, 50, 75, 90, 100])
def test_its_pixels_are_libjpegs(quality: int, subsampling: str, channels: int) -> None:
    x = pictures(channels=channels)
    assert off(x, jpeg(x, quality, subsampling), quality, subsampling) < 0.7


def test_the_comparison_sees_another_quality_and_other_colours() -> None:
    x = pictures()
    right = off(x, jpeg(x, 75, "4:2:0"), 75, "4:2:0")
    for quality, subsampling in ((72, "4:2:0"), (78, "4:2:0"), (75, "4:4:4"), (75, "4:2:2")):
        assert off(x, jpeg(x, quality, subsampling), 75, "4:2:0") > 2.0 * right


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("subsampling", SUBSAMPLINGS)
def test_its_gradient_is_that_of_shared_colours(subsampling: str, channels: int) -> None:
    x = pictures(channels=channels).double().requires_grad_()
    weight = torch.randn(x.shape, generator=torch.Generator().manual_seed(1), dtype=x.dtype)
    (found,) = torch.autograd.grad((jpeg(x, 60, subsampling) * weight).sum(), x)
    (expected,) = torch.autograd.grad((shared_colours(x, subsampling) * weight).sum(), x)
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-9)
    assert float(found.abs().max()) > 0.1


def test_the_derivative_of_shared_colours_is_itself() -> None:
    x, v = pictures().double(), pictures().double().flip(0)
    _, along = torch.autograd.functional.jvp(shared_colours, x, v)
    torch.testing.assert_close(along, shared_colours(v), rtol=0, atol=1e-12)


@pytest.mark.parametrize("subsampling", SUBSAMPLINGS)
def test_shared_colours_leave_brightness_and_greys_alone(subsampling: str) -> None:
    x = pictures().double()
    made = shared_colours(x, subsampling)
    torch.testing.assert_close((made * LUMA).sum(1), (x * LUMA).sum(1), rtol=0, atol=1e-6)
    grey = x[:, :1].expand(-1, 3, -1, -1)
    torch.testing.assert_close(shared_colours(grey, subsampling), grey, rtol=0, atol=1e-6)
    if subsampling == "4:4:4":
        torch.testing.assert_close(made, x, rtol=0, atol=1e-6)
    else:
        assert float((made - x).abs().mean()) > 1e-3


def test_a_colour_that_alternates_is_lost_and_one_that_does_not_is_kept() -> None:
    columns = torch.arange(16)
    fine, flat = torch.where(columns % 2 == 0, 1.0, -1.0), torch.ones(16)
    tint = torch.tensor([1.0, -0.299 / 0.587, 0.0]).reshape(1, 3, 1, 1)  # of no brightness
    for pattern, kept in ((fine, 0.0), (flat, 1.0)):
        change = 0.1 * tint * pattern.expand(1, 3, 16, 16)
        torch.testing.assert_close(shared_colours(0.5 + change) - 0.5, kept * change, rtol=0, atol=1e-5)


def test_a_picture_does_not_depend_on_its_neighbours_and_nothing_is_touched() -> None:
    x = pictures(3)
    kept, state = x.clone(), torch.get_rng_state()
    together = jpeg(x)
    for i in range(3):
        assert float((jpeg(x[i : i + 1])[0] - together[i]).abs().mean()) < 0.05 / 255
    assert torch.equal(x, kept)
    assert torch.equal(torch.get_rng_state(), state)
    assert bool(((together >= 0) & (together <= 1)).all())
    assert torch.equal(together, to_8bit(together))


def test_wrong_options_are_refused() -> None:
    for quality in (0, 101, True, 7.5):
        with pytest.raises(SpecError, match="jpeg: got quality"):
            jpeg(pictures(), quality)  # type: ignore[arg-type]
    with pytest.raises(SpecError, match="4:2:0"):
        jpeg(pictures(), 75, "4:1:1")
    with pytest.raises(InputError, match="2 channels"):
        shared_colours(pictures(channels=2))
