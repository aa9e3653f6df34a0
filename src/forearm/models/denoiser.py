"""A small denoising autoencoder: the pictures that it makes again have lost their noise."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from forearm.models.autoencoder import Autoencoder, Code, Pooled


class HalvingEncoder(nn.Module):
    """`n channels h w` -> `n (2 width) h/2 w/2`, at least as many numbers as the picture for a width of twice its channels."""

    def __init__(self, channels: int, width: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels, width, 3, 1, 1)
        self.conv2 = nn.Conv2d(width, 2 * width, 4, 2, 1)
        self.conv3 = nn.Conv2d(2 * width, 2 * width, 3, 1, 1)

    def forward(self, x: Tensor) -> Code:
        out = F.gelu(self.conv2(F.gelu(self.conv1(x))))
        return Code(F.gelu(self.conv3(out)))


class DoublingDecoder(nn.Module):
    """`Code` of `HalvingEncoder` -> pictures `n channels h w`, not clipped. It sees the code alone: nothing goes round it."""

    def __init__(self, channels: int, width: int) -> None:
        super().__init__()
        self.up = nn.ConvTranspose2d(2 * width, width, 4, 2, 1)
        self.conv = nn.Conv2d(width, channels, 3, 1, 1)

    def forward(self, code: Code) -> Tensor:
        pictures: Tensor = self.conv(F.gelu(self.up(code.features)))
        return pictures


def denoiser(classes: int = 10, channels: int = 3, width: int = 32) -> Autoencoder:
    """An autoencoder of five convolutions that halves the side once: 104,973 weights for RGB and ten classes.

    `forearm train denoising` teaches it to take noise away, and "regenerate(student='checkpoints/...')" puts it before a model. As in MagNet (Meng and
    Chen, CCS 2017), whose autoencoder for CIFAR-10 has three convolutions of one size; halving makes it see twice as far for the same work. Sides are
    even. Its head is a mean over all places and a linear layer, so that it is a classifier among others; the encoder does not learn from it.
    """
    return Autoencoder(HalvingEncoder(channels, width), DoublingDecoder(channels, width), Pooled(2 * width, classes))
