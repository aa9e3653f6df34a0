"""ConvNeXt: published sizes, the block against loops, stochastic depth, and its parts' names."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor, nn

from forearm.core.precision import fast
from forearm.errors import SpecError
from forearm.models.architectures import ARCHITECTURES
from forearm.models.convnext import Block, convnext, convnext_cifar
from forearm.registry import bind
from tests.models.tiny import randomised


@pytest.mark.parametrize(
    ("depths", "width", "count"), [((3, 3, 9, 3), 96, 28_589_128), ((3, 3, 27, 3), 96, 50_223_688), ((3, 3, 27, 3), 128, 88_591_464)]
)
def test_published_sizes(depths: tuple[int, ...], width: int, count: int) -> None:
    """Table 9 of the paper: ConvNeXt-T, S and B with a thousand classes."""
    with torch.device("meta"):
        assert sum(p.numel() for p in convnext(depths=depths, width=width).parameters()) == count


def block() -> Block:
    torch.manual_seed(0)
    made = Block(2, 3, 0.5, 0.0).double()
    randomised(made)
    return made


def by_hand(made: Block, x: Tensor) -> Tensor:
    """One picture of 2 channels, place by place."""
    state = {name: value.tolist() for name, value in made.state_dict().items()}
    c, h, w = x.shape
    out = x.clone()
    for i in range(h):
        for j in range(w):
            seen = []
            for k in range(c):
                total = state["conv_dw.bias"][k]
                for a in range(3):
                    for b in range(3):
                        row, column = i + a - 1, j + b - 1
                        if 0 <= row < h and 0 <= column < w:
                            total += state["conv_dw.weight"][k][0][a][b] * float(x[k, row, column])
                seen.append(total)
            mean = sum(seen) / c
            spread = math.sqrt(sum((s - mean) ** 2 for s in seen) / c + 1e-6)
            normed = [(s - mean) / spread * g + b for s, g, b in zip(seen, state["norm.weight"], state["norm.bias"], strict=True)]
            inner = [
                sum(a * s for a, s in zip(row, normed, strict=True)) + b
                for row, b in zip(state["mlp.fc1.weight"], state["mlp.fc1.bias"], strict=True)
            ]
            inner = [v * 0.5 * (1.0 + math.erf(v / math.sqrt(2.0))) for v in inner]
            for k in range(c):
                last = sum(a * v for a, v in zip(state["mlp.fc2.weight"][k], inner, strict=True)) + state["mlp.fc2.bias"][k]
                out[k, i, j] += state["gamma"][k] * last
    return out


def test_a_block_is_its_equation() -> None:
    made, x = block(), torch.rand(1, 2, 3, 4, dtype=torch.float64)
    torch.testing.assert_close(made(x)[0], by_hand(made, x[0]), rtol=1e-12, atol=1e-12)
    before = made(x)
    made.norm.eps = 1e-1  # the mutant
    assert not torch.allclose(before, made(x), rtol=1e-6)


def test_stochastic_depth_skips_whole_pictures_and_keeps_the_mean() -> None:
    made = Block(2, 3, 1.0, 0.25).train()
    torch.manual_seed(0)
    kept = made.kept(torch.ones(4000, 2, 2, 2))
    assert kept.unique().tolist() == pytest.approx([0.0, 1.0 / 0.75])
    assert bool((kept.flatten(1).amax(1) == kept.flatten(1).amin(1)).all())
    assert abs(float(kept.mean()) - 1.0) < 0.05
    x = torch.rand(3, 2, 4, 4)
    assert torch.equal(made.eval().kept(x), x)


def test_the_last_blocks_are_skipped_most() -> None:
    net = convnext_cifar(width=4, depths=(1, 2, 2), drop_path=0.4)
    drops = [m.drop for m in net.modules() if isinstance(m, Block)]
    assert drops == pytest.approx([0.0, 0.1, 0.2, 0.3, 0.4])
    assert convnext().stages[3].blocks[2].drop == pytest.approx(0.1)


def test_its_parts_have_the_names_of_public_weights() -> None:
    names = set(convnext(width=4, depths=(1, 1)).state_dict())
    stage = {
        f"stages.1.blocks.0.{part}"
        for part in ("gamma", *(f"{layer}.{kind}" for layer in ("conv_dw", "norm", "mlp.fc1", "mlp.fc2") for kind in ("weight", "bias")))
    }
    shared = {
        f"{layer}.{kind}"
        for layer in ("stem.0", "stem.1", "stages.1.downsample.0", "stages.1.downsample.1", "head.norm", "head.fc")
        for kind in ("weight", "bias")
    }
    assert names == stage | {name.replace("stages.1", "stages.0") for name in stage} | shared


@pytest.mark.parametrize(
    ("arch", "side", "places"),
    [
        ("convnext(width=4, depths=(1, 1, 1, 1))", 224, 7),
        ("convnext_cifar(width=4)", 32, 4),
        ("convnext_cifar(width=4, patch=1)", 32, 8),
        ("convnext(width=4)", 32, 1),
    ],
)
def test_the_last_map(arch: str, side: int, places: int) -> None:
    with torch.device("meta"):
        net = bind(ARCHITECTURES, arch)()
        assert net.stages(net.stem(torch.zeros(1, 3, side, side))).shape[2:] == (places, places)


def test_a_fast_twin_says_the_same() -> None:
    torch.manual_seed(0)
    net: nn.Module = convnext_cifar(width=8, depths=(1, 1), head="mlp(hidden=(8,))").eval()
    x = torch.rand(4, 3, 32, 32)
    with torch.no_grad():
        torch.testing.assert_close(fast(net, bf16=False)(x), net(x), rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(fast(net, bf16=True)(x), net(x), rtol=0.05, atol=0.05)


@pytest.mark.parametrize(
    "options",
    [{"depths": ()}, {"depths": (1, 0)}, {"width": 0}, {"kernel": 4}, {"patch": 0}, {"drop_path": 1.0}, {"scale": -1.0}, {"head": "mpl"}],
)
def test_wrong_sizes_are_refused(options: dict[str, object]) -> None:
    with torch.device("meta"), pytest.raises(SpecError, match="got") as error:
        convnext_cifar(**options)  # type: ignore[arg-type]
    assert "\n" not in str(error.value)
