"""A strided convolution over blocks of pixels: the same numbers both ways, for every kernel that fits, and only where a gradient is asked for."""

from __future__ import annotations

import copy
import itertools

import pytest
import torch
from torch import Tensor, nn

from forearm.core.blocked import Blocked, blocked

SHAPES = [(k, s, p) for k, s, p in itertools.product(range(1, 9), range(2, 5), range(5)) if 1 <= k - 2 * p <= s]


def conv(kernel: int = 4, side: int = 2, pad: int = 1, inner: int = 3, **options: object) -> nn.Conv2d:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return nn.Conv2d(inner, 5, kernel, side, pad, **options).double().requires_grad_(False)  # type: ignore[arg-type]


def both_ways(module: nn.Module, x: Tensor) -> tuple[Tensor, Tensor]:
    x = x.clone().requires_grad_()
    y: Tensor = module(x)
    weight = torch.rand(y.shape, generator=torch.Generator().manual_seed(1), dtype=y.dtype)
    return y.detach(), torch.autograd.grad(y, x, weight)[0]


def pictures(height: int, width: int) -> Tensor:
    return torch.rand(2, 3, height, width, generator=torch.Generator().manual_seed(2), dtype=torch.float64)


@pytest.mark.parametrize(("kernel", "side", "pad"), SHAPES)
def test_the_same_numbers_and_gradients(kernel: int, side: int, pad: int) -> None:
    plain = conv(kernel, side, pad)
    for x in (pictures(5 * side, 4 * side), pictures(4 * side + 1, 4 * side)):  # whole blocks, and not
        for found, expected in zip(both_ways(Blocked(plain), x), both_ways(plain, x), strict=True):
            torch.testing.assert_close(found, expected, rtol=0.0, atol=1e-12)


def test_a_kernel_put_one_pixel_aside_would_be_seen() -> None:
    """The mutant: the taps moved within their blocks."""
    plain = conv()
    wrong = Blocked(plain)
    wrong.dense.weight = nn.Parameter(wrong.dense.weight.roll(1, 1), requires_grad=False)
    assert float((both_ways(wrong, pictures(8, 8))[1] - both_ways(plain, pictures(8, 8))[1]).abs().max()) > 1e-3


def test_blocks_serve_gradients_alone() -> None:
    """Without one the convolution's own kernel works, to the bit."""
    module, x = Blocked(conv()), pictures(8, 8)
    asked: list[str] = []
    module.dense.register_forward_hook(lambda *_: asked.append("dense"))
    with torch.no_grad():
        assert torch.equal(module(x.requires_grad_()), module.conv(x))
    assert torch.equal(module(x.detach()), module.conv(x.detach()))
    assert asked == []
    module(x)
    assert asked == ["dense"]
    assert module.weight is module.conv.weight
    assert module.bias is module.conv.bias


def test_nothing_is_drawn_and_nothing_can_be_trained() -> None:
    plain, before = conv(), torch.get_rng_state()
    module = Blocked(plain)
    assert torch.equal(torch.get_rng_state(), before)
    assert not any(parameter.requires_grad for parameter in module.parameters())


def hooked(given: nn.Conv2d) -> nn.Conv2d:
    given.register_forward_hook(lambda *_: None)
    return given


@pytest.mark.parametrize(
    "given",
    [
        conv(3, 1, 1),
        conv(3, 2, 0),
        conv(3, 2, 2),
        conv(4, 2, 1, inner=5),
        conv(4, 2, 1, padding_mode="reflect"),
        conv(3, 2, 1, dilation=2),
        nn.Conv2d(4, 4, 2, 2, groups=2),
        hooked(conv()),
    ],
    ids=["dense", "fewer results", "more results", "channels", "reflected", "dilated", "groups", "hooked"],
)
def test_what_does_not_fit_stays(given: nn.Conv2d) -> None:
    model = blocked(nn.Sequential(copy.copy(given), nn.ReLU()))
    assert type(model[0]) is nn.Conv2d  # type: ignore[index]
    assert type(blocked(nn.Sequential(conv()))[0]) is Blocked  # type: ignore[index]
