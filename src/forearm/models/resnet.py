"""Residual networks (He et al., CVPR 2016), with width, depth, block and shortcut as parameters.

ResNet-18 for small pictures is `resnet()`, ResNet-50 `resnet(blocks=(3, 4, 6, 3), block='bottleneck')`, the paper's
CIFAR-10 ResNet-20 `resnet(width=16, blocks=(3, 3, 3), shortcut='zero')`. Attribute names are those of the usual
CIFAR-10 code, so public checkpoints map one to one.
"""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from forearm.errors import SpecError
from forearm.models.blocks import CIFAR10_MEAN, CIFAR10_STD, Normalize, activation, conv1x1, conv3x3, stem


class Zeros(nn.Module):
    """Option A: every `stride`-th pixel, with channels of zeros before and after. No parameters."""

    def __init__(self, inner: int, outer: int, stride: int) -> None:
        super().__init__()
        before = (outer - inner) // 2
        self.channels = (before, outer - inner - before)
        self.stride = stride

    def forward(self, x: Tensor) -> Tensor:
        return F.pad(x[:, :, :: self.stride, :: self.stride], (0, 0, 0, 0, *self.channels))


def shortcut(name: str, inner: int, outer: int, stride: int) -> nn.Module:
    """What a block adds to: its input; where the shape changes, a projection (option B) or padded pixels (option A)."""
    if name not in ("projection", "zero"):
        raise SpecError(f"shortcut: got {name!r}; 'projection' (option B) or 'zero' (option A)")
    if stride == 1 and inner == outer:
        return nn.Sequential()
    if name == "zero":
        return Zeros(inner, outer, stride)
    return nn.Sequential(conv1x1(inner, outer, stride), nn.BatchNorm2d(outer))


class BasicBlock(nn.Module):
    """act(shortcut(x) + bn(conv(act(bn(conv(x))))))."""

    def __init__(self, inner: int, outer: int, stride: int, act: str, shortcut_name: str) -> None:
        super().__init__()
        self.conv1 = conv3x3(inner, outer, stride)
        self.bn1 = nn.BatchNorm2d(outer)
        self.conv2 = conv3x3(outer, outer)
        self.bn2 = nn.BatchNorm2d(outer)
        self.act = activation(act)
        self.shortcut = shortcut(shortcut_name, inner, outer, stride)

    def forward(self, x: Tensor) -> Tensor:
        out = self.act(self.bn1(self.conv1(x)))
        total: Tensor = self.act(self.bn2(self.conv2(out)) + self.shortcut(x))
        return total


class Bottleneck(nn.Module):
    """1 x 1 to `middle` channels, 3 x 3 in `groups` (with the stride), 1 x 1 to `outer`; with groups: ResNeXt."""

    def __init__(self, inner: int, middle: int, outer: int, stride: int, act: str, shortcut_name: str, groups: int = 1) -> None:
        super().__init__()
        self.conv1 = conv1x1(inner, middle)
        self.bn1 = nn.BatchNorm2d(middle)
        self.conv2 = conv3x3(middle, middle, stride, groups)
        self.bn2 = nn.BatchNorm2d(middle)
        self.conv3 = conv1x1(middle, outer)
        self.bn3 = nn.BatchNorm2d(outer)
        self.act = activation(act)
        self.shortcut = shortcut(shortcut_name, inner, outer, stride)

    def forward(self, x: Tensor) -> Tensor:
        out = self.act(self.bn1(self.conv1(x)))
        out = self.act(self.bn2(self.conv2(out)))
        total: Tensor = self.act(self.bn3(self.conv3(out)) + self.shortcut(x))
        return total


class ResNet(nn.Module):
    """RGB in [0, 1] `n 3 h w` (any size of at least 32) -> logits `n classes`."""

    def __init__(
        self,
        classes: int,
        width: int,
        blocks: tuple[int, ...],
        block: str,
        stem_name: str,
        shortcut_name: str,
        act: str,
        mean: tuple[float, ...],
        std: tuple[float, ...],
        groups: int = 1,
        base_width: int = 64,
    ) -> None:
        super().__init__()
        if block not in ("basic", "bottleneck"):
            raise SpecError(f"block: got {block!r}; 'basic' (two 3 x 3) or 'bottleneck' (1 x 1, 3 x 3, 1 x 1)")
        self.normalize = Normalize(mean, std)
        self.conv1 = stem(stem_name, width)
        self.bn1 = nn.BatchNorm2d(width)
        self.act = activation(act)
        inner = width
        for stage, count in enumerate(blocks):
            planes = width * 2**stage
            outer = planes if block == "basic" else 4 * planes
            middle = planes * base_width // 64 * groups
            layer: list[nn.Module] = []
            for i in range(count):
                stride = 2 if stage > 0 and i == 0 else 1
                if block == "basic":
                    layer.append(BasicBlock(inner, outer, stride, act, shortcut_name))
                else:
                    layer.append(Bottleneck(inner, middle, outer, stride, act, shortcut_name, groups))
                inner = outer
            self.add_module(f"layer{stage + 1}", nn.Sequential(*layer))
        self.stages = len(blocks)
        self.linear = nn.Linear(inner, classes)

    def forward(self, x: Tensor) -> Tensor:
        out = self.act(self.bn1(self.conv1(self.normalize(x))))
        for stage in range(self.stages):
            out = self.get_submodule(f"layer{stage + 1}")(out)
        logits: Tensor = self.linear(F.adaptive_avg_pool2d(out, 1).flatten(1))
        return logits


def resnet(
    classes: int = 10,
    width: int = 64,
    blocks: tuple[int, ...] = (2, 2, 2, 2),
    block: str = "basic",
    stem: str = "conv3",
    shortcut: str = "projection",
    act: str = "relu",
    mean: tuple[float, ...] = CIFAR10_MEAN,
    std: tuple[float, ...] = CIFAR10_STD,
) -> ResNet:
    """A ResNet; `blocks` per stage, the width doubles and the size halves at each stage after the first."""
    return ResNet(classes, width, blocks, block, stem, shortcut, act, mean, std)
