"""A classifier whose features can be turned back into a picture: encoder, decoder and head, the network of MID."""

from __future__ import annotations

from itertools import pairwise
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from forearm.errors import SpecError
from forearm.models.blocks import CIFAR10_MEAN, CIFAR10_STD, Normalize, conv3x3
from forearm.models.resnet import BasicBlock


class Code(NamedTuple):
    """What an encoder says of pictures: `features` (`n d h w`), and for a decoder that unpools, where each maximum was."""

    features: Tensor
    places: tuple[Tensor, ...] = ()


class Autoencoder(nn.Module):
    """Pictures in [0, 1] `n c h w` -> logits `n classes`, by `head(encoder(x).features)`; `regenerate` gives pictures.

    encoder: pictures -> `Code`; decoder: `Code` -> pictures, not clipped; head: features -> logits. A student of MID is such a network whose head and
    decoder are its teacher's. Cost: one pass of the encoder and the head; `regenerate`: of the encoder and the decoder.
    """

    def __init__(self, encoder: nn.Module, decoder: nn.Module, head: nn.Module) -> None:
        super().__init__()
        self.encoder = encoder
        self.decoder = decoder
        self.head = head

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.head(self.encoder(x).features)
        return logits

    def regenerate(self, x: Tensor) -> Tensor:
        """`x` as the decoder makes it again from its features: `n c h w`, clipped to [0, 1]; gradients flow where it is not clipped."""
        made: Tensor = self.decoder(self.encoder(x))
        return made.clamp(0.0, 1.0)


class ResNetEncoder(nn.Module):
    """A ResNet without its last layer: `n 3 h w` -> `n (8 width) h/8 w/8`."""

    def __init__(self, width: int, blocks: tuple[int, int, int, int], mean: tuple[float, ...], std: tuple[float, ...]) -> None:
        super().__init__()
        self.normalize = Normalize(mean, std)
        self.conv1 = conv3x3(3, width)
        self.bn1 = nn.BatchNorm2d(width)
        self.layers = nn.Sequential()
        inner = width
        for stage, count in enumerate(blocks):
            for i in range(count):
                stride = 2 if stage > 0 and i == 0 else 1
                self.layers.append(BasicBlock(inner, width * 2**stage, stride, "relu", "projection"))
                inner = width * 2**stage

    def forward(self, x: Tensor) -> Code:
        return Code(self.layers(F.relu(self.bn1(self.conv1(self.normalize(x))))))


class UpDecoder(nn.Module):
    """`Code` of `n wide[0] h w` -> pictures `n 3 2^k h 2^k w`: k transposed 4 x 4 convolutions of stride 2 from each of `wide` to the next, two of 3 x 3."""

    def __init__(self, wide: tuple[int, ...]) -> None:
        super().__init__()
        self.up = nn.ModuleList(nn.ConvTranspose2d(a, b, 4, 2, 1) for a, b in pairwise(wide))
        self.conv1 = nn.ConvTranspose2d(wide[-1], wide[-1], 3, 1, 1)
        self.conv2 = nn.ConvTranspose2d(wide[-1], 3, 3, 1, 1)

    def forward(self, code: Code) -> Tensor:
        out = code.features
        for up in self.up:
            out = F.relu(up(out))
        pictures: Tensor = self.conv2(F.relu(self.conv1(out)))
        return pictures


class Pooled(nn.Module):
    """Features `n d h w` -> logits: their mean over all positions, and a linear layer."""

    def __init__(self, inner: int, classes: int) -> None:
        super().__init__()
        self.linear = nn.Linear(inner, classes)

    def forward(self, features: Tensor) -> Tensor:
        logits: Tensor = self.linear(features.mean((2, 3)))
        return logits


def resnet_autoencoder(
    classes: int = 10,
    width: int = 64,
    blocks: tuple[int, int, int, int] = (2, 2, 2, 2),
    mean: tuple[float, ...] = CIFAR10_MEAN,
    std: tuple[float, ...] = CIFAR10_STD,
) -> Autoencoder:
    """The network of MID for 32 x 32 RGB: a ResNet encoder (widths 1, 2, 4, 8 times `width`; `n 512 4 4` at width 64), a decoder without batch norm.

    Sides are multiples of 8. Source: arXiv 2404.03340, as in the authors' code. SpecError unless there are four stages.
    """
    if len(blocks) != 4:
        raise SpecError(f"resnet_autoencoder: got blocks={blocks!r}; four stages, for example (2, 2, 2, 2)")
    return Autoencoder(
        ResNetEncoder(width, blocks, mean, std), UpDecoder((8 * width, 4 * width, 2 * width, width)), Pooled(8 * width, classes)
    )


def frozen(network: nn.Module) -> nn.Module:
    """`network` itself, in eval mode and without parameter gradients."""
    return network.eval().requires_grad_(False)


def student_of(teacher: Autoencoder, student: Autoencoder, *, copy_encoder: bool = False) -> Autoencoder:
    """`student` with the teacher's head and decoder, frozen; its encoder keeps its own start, or begins as the teacher's.

    The weights are copied: the student is a whole network by itself. Both are of the same architecture.
    """
    with torch.no_grad():
        student.head.load_state_dict(teacher.head.state_dict())
        student.decoder.load_state_dict(teacher.decoder.state_dict())
        if copy_encoder:
            student.encoder.load_state_dict(teacher.encoder.state_dict())
    frozen(student.head)
    frozen(student.decoder)
    student.encoder.requires_grad_(True)
    return student
