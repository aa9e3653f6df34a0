"""ConvNeXt (Liu et al., CVPR 2022, arXiv 2201.03545). ConvNeXt-T: `convnext()`; ConvNeXt-S: `convnext(depths=(3, 3, 27, 3))`.

The names of its parts are timm's, so that public weights map one to one.
"""

from __future__ import annotations

from collections import OrderedDict

import torch
from torch import Tensor, nn

from forearm.errors import SpecError
from forearm.models.blocks import CIFAR10_MEAN, CIFAR10_STD, IMAGENET_MEAN, IMAGENET_STD, Normalize
from forearm.models.heads import head


class ChannelNorm(nn.LayerNorm):
    """Layer norm over the channels of each place, `n c h w`."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)


class Block(nn.Module):
    """x + drop(gamma * fc2(gelu(fc1(norm(conv_dw(x)))))), place by place behind the depthwise convolution (figure 4, section 2.6)."""

    def __init__(self, width: int, kernel: int, scale: float, drop: float) -> None:
        super().__init__()
        self.conv_dw = nn.Conv2d(width, width, kernel, padding=kernel // 2, groups=width)
        self.norm = nn.LayerNorm(width, eps=1e-6)
        self.mlp = nn.Sequential(OrderedDict(fc1=nn.Linear(width, 4 * width), act=nn.GELU(), fc2=nn.Linear(4 * width, width)))
        self.gamma = nn.Parameter(torch.full((width,), scale)) if scale > 0.0 else None
        self.drop = drop

    def forward(self, x: Tensor) -> Tensor:
        out = self.mlp(self.norm(self.conv_dw(x).permute(0, 2, 3, 1)))
        out = (out if self.gamma is None else self.gamma * out).permute(0, 3, 1, 2)
        total: Tensor = x + self.kept(out)
        return total

    def kept(self, x: Tensor) -> Tensor:
        """Stochastic depth (Huang et al., ECCV 2016): while training a picture's branch is 0 with probability `drop`, else divided by 1 - drop."""
        if not self.training or self.drop == 0.0:
            return x
        return x * (torch.rand(len(x), 1, 1, 1, device=x.device) >= self.drop).to(x.dtype) / (1.0 - self.drop)


class Stage(nn.Module):
    """Where the width changes a norm and a 2 x 2 convolution with stride 2, then the blocks."""

    def __init__(self, inner: int, width: int, kernel: int, scale: float, drops: list[float]) -> None:
        super().__init__()
        halve: list[nn.Module] = [] if inner == width else [ChannelNorm(inner, eps=1e-6), nn.Conv2d(inner, width, 2, 2)]
        self.downsample = nn.Sequential(*halve)
        self.blocks = nn.Sequential(*(Block(width, kernel, scale, drop) for drop in drops))

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.blocks(self.downsample(x))
        return out


class ConvNeXt(nn.Module):
    """RGB in [0, 1] `n 3 h w` -> logits `n classes`; each edge at least patch * 2^(stages - 1) pixels. See `convnext`."""

    def __init__(
        self,
        classes: int,
        width: int,
        depths: tuple[int, ...],
        patch: int,
        kernel: int,
        scale: float,
        drop_path: float,
        head_spec: str,
        mean: tuple[float, ...],
        std: tuple[float, ...],
    ) -> None:
        super().__init__()
        if not isinstance(depths, tuple) or not depths or min(width, patch, *depths) < 1 or kernel < 1 or kernel % 2 == 0:
            raise SpecError(
                f"convnext: got width={width!r}, depths={depths!r}, patch={patch!r}, kernel={kernel!r}; 1 or more, an odd kernel, "
                "for example width=96, depths=(3, 3, 9, 3), patch=4, kernel=7"
            )
        if not 0.0 <= drop_path < 1.0 or scale < 0.0:
            raise SpecError(f"convnext: got drop_path={drop_path!r}, scale={scale!r}; a share below 1, a factor, for example 0.1 and 1e-6")
        self.normalize = Normalize(mean, std)
        self.stem = nn.Sequential(nn.Conv2d(3, width, patch, patch), ChannelNorm(width, eps=1e-6))
        drops = torch.linspace(0.0, drop_path, sum(depths), device="cpu").tolist()
        stages, inner = [], width
        for i, depth in enumerate(depths):
            first = sum(depths[:i])
            stages.append(Stage(inner, width * 2**i, kernel, scale, drops[first : first + depth]))
            inner = width * 2**i
        self.stages = nn.Sequential(*stages)
        self.apply(_begin)
        self.head = head(head_spec, inner, classes)
        if head_spec == "linear":
            self.head.apply(_begin)

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.head(self.stages(self.stem(self.normalize(x))))
        return logits


def _begin(module: nn.Module) -> None:
    """Normal weights of deviation 0.02, cut off at 2, and no biases, as published."""
    if isinstance(module, nn.Conv2d | nn.Linear):
        nn.init.trunc_normal_(module.weight, std=0.02)
        if module.bias is not None:
            nn.init.zeros_(module.bias)


def convnext(
    classes: int = 1000,
    width: int = 96,
    depths: tuple[int, ...] = (3, 3, 9, 3),
    patch: int = 4,
    kernel: int = 7,
    scale: float = 1e-6,
    drop_path: float = 0.1,
    head: str = "linear",
    mean: tuple[float, ...] = IMAGENET_MEAN,
    std: tuple[float, ...] = IMAGENET_STD,
) -> ConvNeXt:
    """A ConvNeXt; as it stands ConvNeXt-T for pictures of 224 pixels, 28,589,128 weights.

    The stem's one convolution of patch x patch takes the pictures apart; stage s (from 0) has depths[s] blocks of 2^s width channels at half the size of the
    one before. `scale`: the first value of each block's layer scale, 0 for none. `drop_path`: the last block's chance of being skipped while training; the
    blocks before have evenly less, the first none; it draws from torch's generator. `head`: of `models.heads`, in call syntax. SpecError for sizes that do
    not go together.
    """
    return ConvNeXt(classes, width, depths, patch, kernel, scale, drop_path, head, mean, std)


def convnext_cifar(
    classes: int = 10,
    width: int = 40,
    depths: tuple[int, ...] = (2, 2, 2),
    patch: int = 2,
    kernel: int = 5,
    scale: float = 0.1,
    drop_path: float = 0.0,
    head: str = "linear",
    mean: tuple[float, ...] = CIFAR10_MEAN,
    std: tuple[float, ...] = CIFAR10_STD,
) -> ConvNeXt:
    """A ConvNeXt for pictures of 32 pixels: a stem of 2 x 2, three stages down to 4 x 4, a kernel and a layer scale for short trainings.

    A layer scale of 1e-6 hides the blocks during the first hundreds of steps, which a training of minutes does not have. Options as for `convnext`.
    """
    return ConvNeXt(classes, width, depths, patch, kernel, scale, drop_path, head, mean, std)
