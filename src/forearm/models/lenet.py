"""The LeNet of MID's MNIST experiments: two convolutions, two dense layers; alone, and as an autoencoder that unpools."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from forearm.errors import SpecError
from forearm.models.autoencoder import Autoencoder, Code


class PoolingEncoder(nn.Module):
    """`n channels h w` -> `n (2 width) h/4 w/4`: twice 3 x 3 convolution, ReLU and 2 x 2 maximum, whose places are kept."""

    def __init__(self, channels: int, width: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels, width, 3, 1, 1)
        self.conv2 = nn.Conv2d(width, 2 * width, 3, 1, 1)

    def forward(self, x: Tensor) -> Code:
        out, first = F.max_pool2d(F.relu(self.conv1(x)), 2, return_indices=True)
        out, second = F.max_pool2d(F.relu(self.conv2(out)), 2, return_indices=True)
        return Code(out, (first, second))


class UnpoolingDecoder(nn.Module):
    """`Code` of `PoolingEncoder` -> pictures `n channels h w`: each maximum goes back to its place, then a transposed convolution.

    The places are those of whoever encoded: a student's, of the attacked picture. The last layer is linear.
    """

    def __init__(self, channels: int, width: int) -> None:
        super().__init__()
        self.conv1 = nn.ConvTranspose2d(2 * width, width, 3, 1, 1)
        self.conv2 = nn.ConvTranspose2d(width, channels, 3, 1, 1)

    def forward(self, code: Code) -> Tensor:
        first, second = code.places
        out = self.conv1(F.max_unpool2d(code.features, second, [2, 2]))
        pictures: Tensor = self.conv2(F.max_unpool2d(out, first, [2, 2]))
        return pictures


class DenseHead(nn.Module):
    """Features -> 200 -> logits."""

    def __init__(self, inner: int, classes: int) -> None:
        super().__init__()
        self.linear1 = nn.Linear(inner, 200)
        self.linear2 = nn.Linear(200, classes)

    def forward(self, features: Tensor) -> Tensor:
        logits: Tensor = self.linear2(F.relu(self.linear1(features.flatten(1))))
        return logits


class LeNet(nn.Module):
    """Pictures in [0, 1] `n c side side` -> logits `n classes`."""

    def __init__(self, channels: int, side: int, classes: int, width: int) -> None:
        super().__init__()
        self.encoder = PoolingEncoder(channels, width)
        self.head = DenseHead(2 * width * (side // 4) ** 2, classes)

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.head(self.encoder(x).features)
        return logits


def lenet(classes: int = 10, channels: int = 1, side: int = 28, width: int = 32) -> LeNet:
    """MID's target on MNIST: 648,226 parameters with ten classes at the published `width`, the channels of the first convolution.

    `side`: a multiple of 4. Source: arXiv 2404.03340, as in the authors' code.
    """
    _known_side(side)
    return LeNet(channels, side, classes, width)


def lenet_autoencoder(classes: int = 10, channels: int = 1, side: int = 28, width: int = 32) -> Autoencoder:
    """MID's teacher and student on MNIST: `lenet` with a decoder (`n 64 7 7` -> pictures). Source: arXiv 2404.03340, as in the authors' code."""
    _known_side(side)
    head = DenseHead(2 * width * (side // 4) ** 2, classes)
    return Autoencoder(PoolingEncoder(channels, width), UnpoolingDecoder(channels, width), head)


def _known_side(side: int) -> None:
    if side % 4 or side < 4:
        raise SpecError(f"lenet: got side={side!r}; a multiple of 4, for example 28")
