"""Chains of what publishing does: how they are written, what they do exactly, and what is seen through them."""

from __future__ import annotations

import io

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from forearm.core.differentiable import jpeg
from forearm.core.gradients import input_gradient
from forearm.core.noise import Noise
from forearm.core.publishing import PRESETS, Chain, Published, chosen, family, fitted, spelled
from forearm.core.quantize import to_8bit
from forearm.core.view import resize
from forearm.errors import SpecError
from tests.core.test_differentiable import pictures


def through_pillow(x: Tensor, quality: int, kind: str = "JPEG") -> Tensor:
    held = io.BytesIO()
    options = {"subsampling": "4:2:0"} if kind == "JPEG" else {"method": 4}
    Image.fromarray((x[0] * 255).round().byte().permute(1, 2, 0).numpy()).save(held, kind, quality=quality, **options)
    return torch.from_numpy(np.array(Image.open(held).convert("RGB"))).permute(2, 0, 1)[None].float() / 255


def test_a_chain_is_its_steps_with_real_codecs() -> None:
    x = pictures(1)
    once = through_pillow(x, 85)
    small = to_8bit(resize(once, (round(43 * 30 / 53), 30)))
    assert torch.equal(family("jpeg:85,resize:30,jpeg:75")[0].exact(x), through_pillow(small, 75))
    assert torch.equal(family("webp:60")[0].exact(x), through_pillow(x, 60, "WEBP"))
    assert torch.equal(family("none")[0].exact(x), x)
    assert not family("jpeg:85")[0].exact(x.requires_grad_()).requires_grad


def test_the_social_preset_is_what_phones_and_platforms_do() -> None:
    assert str(family("social")[0]) == "jpeg:85,resize:1080,jpeg:75"


@pytest.mark.parametrize("text", [*PRESETS, "jpeg:75,resize:1080", " jpeg: 75 | none", "none"])
def test_a_family_reads_what_it_spells(text: str) -> None:
    chains = family(text)
    assert family(spelled(chains)) == chains
    assert spelled(chains) == spelled(chains).replace(" ", "")


@pytest.mark.parametrize(
    "text", ["", "sociable", "jpeg", "jpeg:101", "jpeg:0", "jpeg:7.5", "jpeg:-1", "resize:0", "jpeg:75,", "jpeg:75||none", "none,jpeg:75", "|" * 9]
)  # fmt: skip
def test_anything_else_is_refused_in_one_line(text: str) -> None:
    with pytest.raises(SpecError, match=r"survive: got .*; .*for example") as error:
        family(text)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("size", "longest", "expected"), [((40, 30), 40, (40, 30)), ((40, 30), 20, (20, 15)), ((30, 40), 99, (30, 40)), ((1, 300), 30, (1, 30))]
)
def test_the_longer_edge_is_fitted_and_nothing_enlarged(size: tuple[int, int], longest: int, expected: tuple[int, int]) -> None:
    assert fitted(torch.zeros(2, 3, *size), longest).shape[2:] == expected


@pytest.mark.parametrize("text", ["jpeg:60", "webp:60", "jpeg:85,jpeg:60", "none"])
def test_the_soft_chain_has_the_values_of_the_exact_one(text: str) -> None:
    (chain,) = family(text)
    x = pictures()
    assert torch.equal(chain.soft(x), chain.exact(x))
    with_gradient = chain.soft(x.clone().requires_grad_())
    assert with_gradient.requires_grad
    assert torch.allclose(with_gradient, chain.exact(x), rtol=0, atol=1e-6)


def test_the_soft_chain_keeps_the_size_and_a_gradient_through_a_resize() -> None:
    x = pictures().requires_grad_()
    made = family("jpeg:90,resize:30")[0].soft(x)
    assert made.shape == x.shape
    (gradient,) = torch.autograd.grad(made.sum(), x)
    assert bool((gradient.mean((2, 3)) > 0.5).all())


def net(x: Tensor) -> Tensor:
    """A fixed small convolutional net: `n 3 h w` -> `n 4`."""
    generator = torch.Generator().manual_seed(2)
    first = torch.randn(8, 3, 5, 5, generator=generator).to(x) * 0.3
    second = torch.randn(4, 8, generator=generator).to(x)
    return torch.nn.functional.conv2d(x, first, stride=2).relu().mean((2, 3)) @ second.T


def test_each_picture_is_seen_through_its_own_chain_in_one_pass() -> None:
    chains = family("jpeg:30|none|webp:20")
    x, choice = pictures(5), torch.tensor([2, 0, 1, 0, 2])
    seen: list[Tensor] = []

    def model(z: Tensor) -> Tensor:
        seen.append(z)
        return net(z)

    logits = Published(model, chains, choice)(x)
    assert len(seen) == 1
    for i, member in enumerate(choice.tolist()):
        assert torch.equal(seen[0][i : i + 1], chains[member].exact(x[i : i + 1]))
    assert torch.equal(logits, net(seen[0]))


def test_real_codecs_and_differentiable_ones_point_the_same_way() -> None:
    """What a GPU is given (the DCT in tensors) and what a CPU is given (libjpeg, straight through)."""
    x, y = pictures(), torch.tensor([0, 3])
    (chain,) = family("jpeg:75")
    real, _ = input_gradient(lambda z: net(chain.soft(z)), x, y)
    smooth, _ = input_gradient(lambda z: net(jpeg(z, 75)), x, y)
    bare, _ = input_gradient(net, x, y)
    agree = float((real.sign() == smooth.sign()).float().mean())
    assert agree > 0.97
    assert float((real.sign() == bare.sign()).float().mean()) < agree


def test_every_chain_serves_equally_many_copies() -> None:
    choice = chosen(Noise.of(6, seed=3), torch.zeros(6, 3, 4, 4), 22, 4)
    assert choice.shape == (22, 6)
    for picture in choice.T:
        assert sorted(picture.bincount(minlength=4).tolist()) == [5, 5, 6, 6]
    assert len({tuple(picture.tolist()) for picture in choice.T}) == 6


def test_what_a_copy_goes_through_does_not_depend_on_the_batch() -> None:
    like = torch.zeros(4, 3, 8, 8)
    together = chosen(Noise.of(4), like, 10, 3)
    for i in range(4):
        assert torch.equal(chosen(Noise.of(1, first=i), like[:1, :, :2], 10, 3)[:, 0], together[:, i])
    assert not torch.equal(chosen(Noise.of(4, seed=1), like, 10, 3), together)


def test_a_single_copy_meets_every_chain() -> None:
    """With one copy the chain is drawn too, not always the first."""
    alone = [int(chosen(Noise.of(1, first=i), torch.zeros(1, 3, 2, 2), 1, 3)) for i in range(60)]
    assert min(alone.count(member) for member in range(3)) > 8


def test_chains_are_values() -> None:
    assert family("jpeg:75") == (Chain((("jpeg", 75),)),)
    assert str(Chain(())) == "none"
