"""Two small networks without batch norm, trained adversarially for the literature on verification.

Their weights are published with alpha-beta-CROWN (Wang et al., NeurIPS 2021).
"""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from forearm.models.blocks import CIFAR10_MEAN, Normalize

STD = (0.2471, 0.2435, 0.2616)
PER_IMAGE_STD = (
    0.2023,
    0.1994,
    0.2010,
)  # mean over the pictures of each one's own deviation; common, yet another thing


class PlainBlock(nn.Module):
    """relu(conv(relu(conv(x))) + shortcut(x)), with biases; where the shape changes the shortcut is a 1 x 1 conv."""

    def __init__(self, inner: int, outer: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inner, outer, 3, stride, 1)
        self.conv2 = nn.Conv2d(outer, outer, 3, 1, 1)
        changes = stride != 1 or inner != outer
        self.shortcut = nn.Sequential(*([nn.Conv2d(inner, outer, 1, stride)] if changes else []))

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(self.conv2(F.relu(self.conv1(x))) + self.shortcut(x))


class ResNet2b(nn.Module):
    """RGB in [0, 1] `n 3 32 32` -> logits `n classes`: a convolution, two residual blocks, two dense layers."""

    def __init__(self, classes: int, mean: tuple[float, ...], std: tuple[float, ...]) -> None:
        super().__init__()
        self.normalize = Normalize(mean, std)
        self.conv1 = nn.Conv2d(3, 8, 3, 2, 1)
        self.layer1 = nn.Sequential(PlainBlock(8, 16, 2), PlainBlock(16, 16, 1))
        self.linear1 = nn.Linear(16 * 8 * 8, 100)
        self.linear2 = nn.Linear(100, classes)

    def forward(self, x: Tensor) -> Tensor:
        out = self.layer1(F.relu(self.conv1(self.normalize(x))))
        logits: Tensor = self.linear2(F.relu(self.linear1(out.flatten(1))))
        return logits


def resnet2b(classes: int = 10, mean: tuple[float, ...] = CIFAR10_MEAN, std: tuple[float, ...] = STD) -> ResNet2b:
    """The ResNet-2B of the verification literature: 112,006 parameters with ten classes."""
    return ResNet2b(classes, mean, std)


def cnn_a(classes: int = 10, mean: tuple[float, ...] = CIFAR10_MEAN, std: tuple[float, ...] = PER_IMAGE_STD) -> nn.Sequential:
    """CNN-A: two 4 x 4 convolutions of stride 2, two dense layers; RGB in [0, 1] `n 3 32 32` -> logits `n classes`."""
    return nn.Sequential(
        Normalize(mean, std),
        nn.Conv2d(3, 16, 4, 2, 1),
        nn.ReLU(),
        nn.Conv2d(16, 32, 4, 2, 1),
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(32 * 8 * 8, 100),
        nn.ReLU(),
        nn.Linear(100, classes),
    )
