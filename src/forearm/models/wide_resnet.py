"""Wide residual networks (Zagoruyko and Komodakis, BMVC 2016). WRN-28-10 is `wide_resnet()`.

Attribute names are those of the code that TRADES and most of RobustBench share, so those checkpoints map one to one.
"""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from forearm.errors import SpecError
from forearm.models.blocks import CIFAR10_MEAN, CIFAR10_STD, Normalize, activation, conv1x1, conv3x3, stem


class WideBlock(nn.Module):
    """x + conv(act(bn(conv(act(bn(x)))))); where the shape changes, the shortcut is a 1 x 1 conv of act(bn(x))."""

    def __init__(self, inner: int, outer: int, stride: int, act: str, same: bool) -> None:
        super().__init__()
        self.bn1 = nn.BatchNorm2d(inner)
        self.conv1 = conv3x3(inner, outer, stride, same=same)
        self.bn2 = nn.BatchNorm2d(outer)
        self.conv2 = conv3x3(outer, outer)
        self.act = activation(act)
        self.convShortcut = conv1x1(inner, outer, stride) if inner != outer or stride != 1 else None

    def forward(self, x: Tensor) -> Tensor:
        out = self.act(self.bn1(x))
        kept = x if self.convShortcut is None else self.convShortcut(out)
        total: Tensor = self.conv2(self.act(self.bn2(self.conv1(out)))) + kept
        return total


class WideStage(nn.Module):
    """Blocks of one width; the first has the stride."""

    def __init__(self, count: int, inner: int, outer: int, stride: int, act: str, same: bool) -> None:
        super().__init__()
        first = WideBlock(inner, outer, stride, act, same)
        self.layer = nn.Sequential(first, *[WideBlock(outer, outer, 1, act, same) for _ in range(count - 1)])

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.layer(x)
        return out


class WideResNet(nn.Module):
    """RGB in [0, 1] `n 3 h w` (any size of at least 32) -> logits `n classes`."""

    def __init__(
        self,
        classes: int,
        depth: int,
        widen: int,
        stem_name: str,
        act: str,
        mean: tuple[float, ...],
        std: tuple[float, ...],
        same: bool,
    ) -> None:
        super().__init__()
        if depth < 10 or (depth - 4) % 6:
            raise SpecError(f"wide_resnet: got depth={depth}; 6 k + 4, for example 28 or 34")
        count = (depth - 4) // 6
        self.normalize = Normalize(mean, std)
        self.conv1 = stem(stem_name, 16)
        self.block1 = WideStage(count, 16, 16 * widen, 1, act, same)
        self.block2 = WideStage(count, 16 * widen, 32 * widen, 2, act, same)
        self.block3 = WideStage(count, 32 * widen, 64 * widen, 2, act, same)
        self.bn1 = nn.BatchNorm2d(64 * widen)
        self.act = activation(act)
        self.fc = nn.Linear(64 * widen, classes)

    def forward(self, x: Tensor) -> Tensor:
        out = self.block3(self.block2(self.block1(self.conv1(self.normalize(x)))))
        out = F.adaptive_avg_pool2d(self.act(self.bn1(out)), 1).flatten(1)
        logits: Tensor = self.fc(out)
        return logits


def wide_resnet(
    classes: int = 10,
    depth: int = 28,
    widen: int = 10,
    stem: str = "conv3",
    act: str = "relu",
    mean: tuple[float, ...] = CIFAR10_MEAN,
    std: tuple[float, ...] = CIFAR10_STD,
    same: bool = False,
) -> WideResNet:
    """A wide ResNet: three stages of (depth - 4) / 6 blocks, of 16, 32 and 64 times `widen` channels.

    `same`: padding as TensorFlow's SAME.
    """
    return WideResNet(classes, depth, widen, stem, act, mean, std, same)
