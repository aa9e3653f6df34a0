"""ResNet-9: two residual blocks between max-pooled convolutions (Page, DAWNBench 2018). Most accuracy per second on small pictures."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from forearm.models.blocks import CIFAR10_MEAN, CIFAR10_STD, Normalize, activation, conv3x3, stem


class ConvNorm(nn.Sequential):
    """conv 3 x 3, batch norm, activation, and a max-pool by 2 where asked for."""

    def __init__(self, inner: int, outer: int, act: str, pool: bool = False) -> None:
        parts = [conv3x3(inner, outer), nn.BatchNorm2d(outer), activation(act)]
        super().__init__(*parts, *([nn.MaxPool2d(2)] if pool else []))


class Residual(nn.Module):
    """x + two ConvNorms."""

    def __init__(self, width: int, act: str) -> None:
        super().__init__()
        self.body = nn.Sequential(ConvNorm(width, width, act), ConvNorm(width, width, act))

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = x + self.body(x)
        return out


class ResNet9(nn.Module):
    """RGB in [0, 1] `n 3 h w` -> logits `n classes`. The last pooling is over everything, so any size of at least 32 will do."""

    def __init__(
        self,
        classes: int = 10,
        width: int = 64,
        stem_name: str = "conv3",
        act: str = "relu",
        scale: float = 0.125,
        mirrored: bool = False,
        mean: tuple[float, ...] = CIFAR10_MEAN,
        std: tuple[float, ...] = CIFAR10_STD,
    ) -> None:
        super().__init__()
        self.normalize = Normalize(mean, std)
        self.prep = nn.Sequential(stem(stem_name, width), nn.BatchNorm2d(width), activation(act))
        self.layer1 = nn.Sequential(ConvNorm(width, 2 * width, act, pool=True), Residual(2 * width, act))
        self.layer2 = ConvNorm(2 * width, 4 * width, act, pool=True)
        self.layer3 = nn.Sequential(ConvNorm(4 * width, 8 * width, act, pool=True), Residual(8 * width, act))
        self.linear = nn.Linear(8 * width, classes, bias=False)
        self.scale = scale
        self.mirrored = mirrored

    def forward(self, x: Tensor) -> Tensor:
        if not self.mirrored or self.training:
            return self.logits(x)
        plain, mirror = self.logits(torch.cat([x, x.flip(3)])).chunk(2)
        return 0.5 * (plain + mirror)

    def logits(self, x: Tensor) -> Tensor:
        """The logits of the pictures as they are."""
        out = self.layer3(self.layer2(self.layer1(self.prep(self.normalize(x)))))
        logits: Tensor = self.linear(F.adaptive_max_pool2d(out, 1).flatten(1)) * self.scale
        return logits


def resnet9(
    classes: int = 10,
    width: int = 64,
    stem: str = "conv3",
    act: str = "relu",
    scale: float = 0.125,
    mirrored: bool = False,
    mean: tuple[float, ...] = CIFAR10_MEAN,
    std: tuple[float, ...] = CIFAR10_STD,
) -> ResNet9:
    """A ResNet-9 whose stages have width, 2, 4 and 8 times width channels; the logits are multiplied by `scale`.

    `mirrored`: in eval mode the logits are the mean over the picture and its mirror image, at twice the cost.
    """
    return ResNet9(classes, width, stem, act, scale, mirrored, mean, std)
