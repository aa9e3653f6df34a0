"""The transformer: its published sizes and names, its blocks against torch's own, positions at other sizes, its stem in the fast twin."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from forearm.core.precision import fold, folded
from forearm.errors import SpecError
from forearm.models.vit import Block, ViT, grid_position, vit
from tests.models.tiny import randomised


def small(stem: str = "conv", pool: str = "mean", size: int = 16) -> ViT:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = vit(classes=5, width=16, depth=2, heads=4, patch=4, size=size, stem=stem, pool=pool)
    randomised(model)
    return model.double()


def pictures(n: int, high: int, wide: int) -> Tensor:
    return torch.rand(n, 3, high, wide, generator=torch.Generator().manual_seed(1), dtype=torch.float64)


@pytest.mark.parametrize(("width", "heads", "count"), [(192, 3, 5_717_416), (384, 6, 22_050_664), (768, 12, 86_567_656)])
def test_published_parameter_counts(width: int, heads: int, count: int) -> None:
    with torch.device("meta"):
        model = vit(1000, width, 12, heads, 16, 224, "patch", "token")
    assert sum(p.numel() for p in model.parameters()) == count


def test_names_are_those_of_public_checkpoints() -> None:
    block = [
        f"blocks.0.{part}.{kind}"
        for part in ("norm1", "attn.qkv", "attn.proj", "norm2", "mlp.fc1", "mlp.fc2")
        for kind in ("weight", "bias")
    ]
    ends = [f"{part}.{kind}" for part in ("patch_embed.proj", "norm", "head") for kind in ("weight", "bias")]
    with torch.device("meta"):
        assert set(vit(10, 32, 1, 4, 16, 224, "patch", "token").state_dict()) == {*block, *ends, "cls_token", "pos_embed"}


def theirs(block: Block, width: int, heads: int, inner: int) -> nn.TransformerEncoderLayer:
    """torch's own layer with the weights of `block`."""
    layer = nn.TransformerEncoderLayer(
        width, heads, inner, dropout=0.0, activation="gelu", layer_norm_eps=1e-6, batch_first=True, norm_first=True, dtype=torch.float64
    )
    names = {"self_attn.in_proj_": "attn.qkv.", "self_attn.out_proj.": "attn.proj.", "linear1.": "mlp.fc1.", "linear2.": "mlp.fc2."}
    state = block.state_dict()
    given = {f"{own}{kind}": state[f"{ours}{kind}"] for own, ours in names.items() for kind in ("weight", "bias")}
    layer.load_state_dict(given | {name: value for name, value in state.items() if name.startswith("norm")})
    return layer


def test_a_block_is_torchs_own() -> None:
    torch.manual_seed(0)
    block = Block(12, 3, 20, "gelu").double()
    x = torch.randn(2, 7, 12, dtype=torch.float64)
    torch.testing.assert_close(block(x), theirs(block, 12, 3, 20)(x))
    with pytest.raises(AssertionError):  # the mutant splits the width into other heads
        torch.testing.assert_close(block(x), theirs(block, 12, 4, 20)(x))


@pytest.mark.parametrize("stem", ["conv", "patch"])
@pytest.mark.parametrize("pool", ["mean", "token"])
def test_an_encoder_of_any_size(stem: str, pool: str) -> None:
    model = small(stem, pool)
    for high, wide in ((16, 16), (24, 8), (8, 32)):
        x = pictures(2, high, wide)
        tokens = model.tokens(x)
        assert tokens.shape == (2, high * wide // 16 + (pool == "token"), 16)
        read = tokens[:, 0] if pool == "token" else tokens.mean(1)
        torch.testing.assert_close(model(x), model.head(read))
        assert model(x).shape == (2, 5)


def test_a_token_stands_for_its_place() -> None:
    """Without blocks a change of one patch changes that token alone, in the order of rows."""
    model = small("patch")
    model.blocks = nn.Sequential()
    x = pictures(1, 16, 16)
    changed = x.clone()
    changed[:, :, 4:8, 8:12] = 0.0
    moved = (model.tokens(x) - model.tokens(changed)).abs().sum((0, 2)) > 0
    assert moved.nonzero().flatten().tolist() == [1 * 4 + 2]


def test_positions_at_another_size() -> None:
    position = torch.randn(1, 9, 4, generator=torch.Generator().manual_seed(0))
    assert grid_position(position, 3, 3, 3) is position
    flat = torch.ones(1, 9, 4) * torch.arange(4.0)
    torch.testing.assert_close(grid_position(flat, 3, 5, 2), torch.arange(4.0).expand(1, 10, 4))
    rows = torch.arange(3.0).repeat_interleave(3).reshape(1, 9, 1)
    finer = grid_position(rows, 3, 6, 3).reshape(6, 3)
    assert bool((finer.diff(dim=0) > 0).all())
    assert bool((finer.diff(dim=1).abs() < 1e-5).all())


def test_positions_matter() -> None:
    model = small("patch")
    x = pictures(1, 16, 16)
    swapped = x.roll(4, 3)
    assert not torch.allclose(model(x), model(swapped), rtol=1e-3)
    model.pos_embed.data.zero_()
    torch.testing.assert_close(model(x), model(swapped))


def test_the_stem_is_folded_in_the_fast_twin() -> None:
    model = small().float()
    assert not any(isinstance(part, nn.BatchNorm2d) for part in fold(model).modules())
    x = pictures(3, 16, 16).float()
    with torch.no_grad():
        torch.testing.assert_close(folded(model)(x), model(x), rtol=1e-3, atol=1e-4)
    assert any(isinstance(part, nn.BatchNorm2d) for part in model.modules())


@pytest.mark.parametrize(
    "options",
    [
        {"heads": 5},
        {"size": 30},
        {"pool": "max"},
        {"stem": "other"},
        {"patch": 6, "size": 36},
        {"patch": 1},
        {"width": 130, "heads": 5, "patch": 8},
    ],
)
def test_wrong_options_are_refused(options: dict[str, int | str]) -> None:
    with torch.device("meta"), pytest.raises(SpecError, match="vit: got") as caught:
        vit(**options)  # type: ignore[arg-type]
    assert "\n" not in str(caught.value)
