"""Pre-activation residual networks (He et al., ECCV 2016), with width and depth as parameters.

PreActResNet-18 is `preact_resnet(width=64)`. Attribute names are those of the usual CIFAR-10 code, so public checkpoints map one to one.
"""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from forearm.models.blocks import CIFAR10_MEAN, CIFAR10_STD, Normalize, activation, conv1x1, conv3x3, stem


class PreActBlock(nn.Module):
    """x + conv(act(bn(conv(act(bn(x)))))); where the shape changes, the shortcut is a 1 x 1 convolution of act(bn(x))."""

    def __init__(self, inner: int, outer: int, stride: int, act: str) -> None:
        super().__init__()
        self.bn1 = nn.BatchNorm2d(inner)
        self.conv1 = conv3x3(inner, outer, stride)
        self.bn2 = nn.BatchNorm2d(outer)
        self.conv2 = conv3x3(outer, outer)
        self.act = activation(act)
        self.shortcut = nn.Sequential(conv1x1(inner, outer, stride)) if stride != 1 or inner != outer else None

    def forward(self, x: Tensor) -> Tensor:
        out = self.act(self.bn1(x))
        kept = x if self.shortcut is None else self.shortcut(out)
        out = self.conv1(out)
        return self.conv2(self.act(self.bn2(out))) + kept


class PreActResNet(nn.Module):
    """RGB in [0, 1] `n 3 h w` (any size of at least 32) -> logits `n classes`."""

    def __init__(
        self,
        classes: int = 10,
        width: int = 64,
        blocks: tuple[int, ...] = (2, 2, 2, 2),
        stem_name: str = "conv3",
        act: str = "relu",
        mean: tuple[float, ...] = CIFAR10_MEAN,
        std: tuple[float, ...] = CIFAR10_STD,
    ) -> None:
        super().__init__()
        self.normalize = Normalize(mean, std)
        self.conv1 = stem(stem_name, width)
        inner = width
        for stage, count in enumerate(blocks):
            outer = width * 2**stage
            layer = [
                PreActBlock(inner if i == 0 else outer, outer, 2 if stage > 0 and i == 0 else 1, act) for i in range(count)
            ]
            self.add_module(f"layer{stage + 1}", nn.Sequential(*layer))
            inner = outer
        self.stages = len(blocks)
        self.bn = nn.BatchNorm2d(inner)
        self.act = activation(act)
        self.linear = nn.Linear(inner, classes)

    def forward(self, x: Tensor) -> Tensor:
        out = self.conv1(self.normalize(x))
        for stage in range(self.stages):
            out = self.get_submodule(f"layer{stage + 1}")(out)
        out = F.adaptive_avg_pool2d(self.act(self.bn(out)), 1).flatten(1)
        logits: Tensor = self.linear(out)
        return logits


def preact_resnet(
    classes: int = 10,
    width: int = 64,
    blocks: tuple[int, ...] = (2, 2, 2, 2),
    stem: str = "conv3",
    act: str = "relu",
    mean: tuple[float, ...] = CIFAR10_MEAN,
    std: tuple[float, ...] = CIFAR10_STD,
) -> PreActResNet:
    """A pre-activation ResNet; `blocks` per stage, the width doubles and the size halves at each stage after the first."""
    return PreActResNet(classes, width, blocks, stem, act, mean, std)
