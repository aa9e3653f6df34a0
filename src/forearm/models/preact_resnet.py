"""Pre-activation residual networks (He et al., ECCV 2016), with width and depth as parameters.

PreActResNet-18 is `preact_resnet(width=64)`. Attribute names are those of the usual CIFAR-10 code, so public
checkpoints map one to one.
"""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from forearm.errors import SpecError
from forearm.models.blocks import CIFAR10_MEAN, CIFAR10_STD, Normalize, activation, conv1x1, conv3x3, stem

SHORTCUTS = ("act", "raw", "raw3")


class PreActBlock(nn.Module):
    """x + conv(act(bn(conv(act(bn(x)))))); where the shape changes, the shortcut is a convolution.

    `act`: 1 x 1 of act(bn(x)); `raw`: 1 x 1 of x; `raw3`: 3 x 3 of x.
    """

    def __init__(self, inner: int, outer: int, stride: int, act: str, shortcut: str = "act", same: bool = False) -> None:
        super().__init__()
        if shortcut not in SHORTCUTS:
            raise SpecError(f"shortcut: got {shortcut!r}; one of {', '.join(SHORTCUTS)}, for example 'act'")
        self.bn1 = nn.BatchNorm2d(inner)
        self.conv1 = conv3x3(inner, outer, stride, same=same)
        self.bn2 = nn.BatchNorm2d(outer)
        self.conv2 = conv3x3(outer, outer)
        self.act = activation(act)
        self.shortcut: nn.Sequential | None = None
        if stride != 1 or inner != outer:
            wide = shortcut == "raw3"
            conv = conv3x3(inner, outer, stride, same=same) if wide else conv1x1(inner, outer, stride)
            self.shortcut = nn.Sequential(conv)
        self.raw = shortcut != "act"

    def forward(self, x: Tensor) -> Tensor:
        out = self.act(self.bn1(x))
        kept = x if self.shortcut is None else self.shortcut(x if self.raw else out)
        out = self.conv1(out)
        total: Tensor = self.conv2(self.act(self.bn2(out))) + kept
        return total


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
        shortcut: str = "act",
        last_norm: bool = True,
        same: bool = False,
    ) -> None:
        super().__init__()
        self.normalize = Normalize(mean, std)
        self.conv1 = stem(stem_name, width)
        inner = width
        for stage, count in enumerate(blocks):
            outer = width * 2**stage
            layer = [
                PreActBlock(inner if i == 0 else outer, outer, 2 if stage > 0 and i == 0 else 1, act, shortcut, same) for i in range(count)
            ]
            self.add_module(f"layer{stage + 1}", nn.Sequential(*layer))
            inner = outer
        self.stages = len(blocks)
        self.bn = nn.BatchNorm2d(inner) if last_norm else None
        self.act = activation(act)
        self.linear = nn.Linear(inner, classes)

    def forward(self, x: Tensor) -> Tensor:
        out = self.conv1(self.normalize(x))
        for stage in range(self.stages):
            out = self.get_submodule(f"layer{stage + 1}")(out)
        if self.bn is not None:
            out = self.act(self.bn(out))
        logits: Tensor = self.linear(F.adaptive_avg_pool2d(out, 1).flatten(1))
        return logits


def preact_resnet(
    classes: int = 10,
    width: int = 64,
    blocks: tuple[int, ...] = (2, 2, 2, 2),
    stem: str = "conv3",
    act: str = "relu",
    mean: tuple[float, ...] = CIFAR10_MEAN,
    std: tuple[float, ...] = CIFAR10_STD,
    shortcut: str = "act",
    last_norm: bool = True,
    same: bool = False,
) -> PreActResNet:
    """A pre-activation ResNet; `blocks` per stage, the width doubles and the size halves at each stage after the first.

    The last three are the forms that public checkpoints have: `shortcut` what a block's shortcut convolves
    (`PreActBlock`), `last_norm` batch norm and activation before pooling, `same` padding as TensorFlow's SAME.
    """
    return PreActResNet(classes, width, blocks, stem, act, mean, std, shortcut, last_norm, same)
