"""Vision transformers (Dosovitskiy et al., ICLR 2021), with a convolutional stem (Xiao et al., NeurIPS 2021) or the plain patches.

ViT-S/16 is `vit(width=384, depth=12, heads=6, patch=16, size=224, stem='patch', pool='token')`. Attribute names are those of timm, so public
checkpoints of plain ViTs map one to one.
"""

from __future__ import annotations

from collections import OrderedDict

import torch
import torch.nn.functional as F
from torch import Tensor, fx, nn

from forearm.errors import SpecError
from forearm.models.blocks import CIFAR10_MEAN, CIFAR10_STD, Normalize, activation, conv3x3


class Attention(nn.Module):
    """Multi-head self-attention: softmax(q k^T / sqrt(d)) v for each of `heads` parts of the width, then a linear layer."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.qkv = nn.Linear(width, 3 * width)
        self.proj = nn.Linear(width, width)

    def forward(self, x: Tensor) -> Tensor:
        n, t, d = x.shape[0], x.shape[1], x.shape[2]
        qkv = self.qkv(x).reshape(n, t, 3, self.heads, d // self.heads).permute(2, 0, 3, 1, 4)
        q, k, v = qkv[0] * (d // self.heads) ** -0.5, qkv[1], qkv[2]
        out = (q @ k.transpose(2, 3)).softmax(3) @ v
        mixed: Tensor = self.proj(out.transpose(1, 2).reshape(n, t, d))
        return mixed


class Mlp(nn.Module):
    """linear(act(linear(x))), token by token, `inner` wide between."""

    def __init__(self, width: int, inner: int, act: str) -> None:
        super().__init__()
        self.fc1 = nn.Linear(width, inner)
        self.act = activation(act)
        self.fc2 = nn.Linear(inner, width)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.fc2(self.act(self.fc1(x)))
        return out


class Block(nn.Module):
    """x + attention(norm(x)), then x + mlp(norm(x)) (equations 2 and 3)."""

    def __init__(self, width: int, heads: int, inner: int, act: str) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(width, eps=1e-6)
        self.attn = Attention(width, heads)
        self.norm2 = nn.LayerNorm(width, eps=1e-6)
        self.mlp = Mlp(width, inner, act)

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.attn(self.norm1(x))
        out: Tensor = x + self.mlp(self.norm2(x))
        return out


def patches(name: str, patch: int, width: int, act: str) -> nn.Sequential:
    """Pictures `n 3 h w` -> `n width h/patch w/patch`.

    `patch`: one convolution of patch x patch. `conv`: 3 x 3 convolutions with stride 2, batch norm and activation, as many as halve each edge down
    to that, each twice as wide as the last, then a 1 x 1 convolution.
    """
    halvings = patch.bit_length() - 1
    if name == "patch":
        return nn.Sequential(OrderedDict(proj=nn.Conv2d(3, width, patch, patch)))
    if name != "conv" or patch != 2**halvings or halvings < 1 or width % 2 ** (halvings - 1):
        raise SpecError(
            f"vit: got stem={name!r}, patch={patch}, width={width}; 'patch', or 'conv' with a power of two for patch whose half divides width, "
            "for example stem='conv', patch=4, width=128"
        )
    layers: list[nn.Module] = []
    inner = 3
    for i in range(halvings):
        outer = width // 2 ** (halvings - 1 - i)
        layers += [conv3x3(inner, outer, 2), nn.BatchNorm2d(outer), activation(act)]
        inner = outer
    return nn.Sequential(*layers, nn.Conv2d(width, width, 1))


def grid_position(position: Tensor, side: int, high: int, wide: int) -> Tensor:
    """The embedding of each place, `1 side^2 d`, for a grid of high x wide places: as it is, or resampled bicubically (`1 high*wide d`)."""
    if (high, wide) == (side, side):
        return position
    square = position.reshape(1, side, side, -1).permute(0, 3, 1, 2)
    return F.interpolate(square.float(), (high, wide), mode="bicubic", antialias=True).to(position.dtype).flatten(2).transpose(1, 2)


fx.wrap("grid_position")  # it looks at the picture's size, which a symbolic trace does not know


class ViT(nn.Module):
    """RGB in [0, 1] `n 3 h w` (any multiple of the patch; positions were learned at `size`) -> logits `n classes`."""

    def __init__(
        self,
        classes: int,
        width: int,
        depth: int,
        heads: int,
        patch: int,
        size: int,
        stem: str,
        pool: str,
        widen: float,
        act: str,
        mean: tuple[float, ...],
        std: tuple[float, ...],
    ) -> None:
        super().__init__()
        if width % heads or size % patch or pool not in ("mean", "token"):
            raise SpecError(
                f"vit: got width={width}, heads={heads}, size={size}, patch={patch}, pool={pool!r}; heads that divide width, a patch that divides "
                "size, pool 'mean' or 'token', for example width=128, heads=4, size=32, patch=4"
            )
        self.side = size // patch
        self.token = pool == "token"
        self.normalize = Normalize(mean, std)
        self.patch_embed = patches(stem, patch, width, act)
        self.pos_embed = nn.Parameter(torch.empty(1, self.side**2 + self.token, width))
        self.cls_token = nn.Parameter(torch.zeros(1, 1, width)) if self.token else None
        self.blocks = nn.Sequential(*[Block(width, heads, round(widen * width), act) for _ in range(depth)])
        self.norm = nn.LayerNorm(width, eps=1e-6)
        self.head = nn.Linear(width, classes)
        nn.init.trunc_normal_(self.pos_embed, std=0.02)
        for module in self.blocks.modules():
            if isinstance(module, nn.Linear):
                nn.init.trunc_normal_(module.weight, std=0.02)
                nn.init.zeros_(module.bias)

    def tokens(self, x: Tensor) -> Tensor:
        """The encoder: pictures `n 3 h w` -> normed tokens `n t width`, row by row (t = h w / patch^2), the class token, if any, first."""
        grid = self.patch_embed(self.normalize(x))
        out = grid.flatten(2).transpose(1, 2)
        if self.cls_token is None:
            out = out + grid_position(self.pos_embed, self.side, grid.shape[2], grid.shape[3])
        else:
            out = out + grid_position(self.pos_embed[:, 1:], self.side, grid.shape[2], grid.shape[3])
            first = (self.cls_token + self.pos_embed[:, :1]).expand(out.shape[0], -1, -1)
            out = torch.cat([first.to(out.dtype), out], 1)
        normed: Tensor = self.norm(self.blocks(out))
        return normed

    def forward(self, x: Tensor) -> Tensor:
        tokens = self.tokens(x)
        logits: Tensor = self.head(tokens[:, 0] if self.token else tokens.mean(1))
        return logits


def vit(
    classes: int = 10,
    width: int = 128,
    depth: int = 6,
    heads: int = 4,
    patch: int = 4,
    size: int = 32,
    stem: str = "conv",
    pool: str = "mean",
    widen: float = 4.0,
    act: str = "gelu",
    mean: tuple[float, ...] = CIFAR10_MEAN,
    std: tuple[float, ...] = CIFAR10_STD,
) -> ViT:
    """A pre-norm ViT: `depth` blocks of attention in `heads` parts and an MLP of `widen` times the width.

    patch: pixels of a token's edge. size: pixels of the pictures' edge at which positions are learned; other sizes resample them. stem: 'conv' or
    'patch' (`patches`). pool: the head reads the tokens' mean, or the class 'token'. As an encoder: `.tokens(x)`. Departure: the stem of Xiao et al.
    takes the place of one block; here the depth is what it says.
    """
    return ViT(classes, width, depth, heads, patch, size, stem, pool, widen, act, mean, std)
