"""Parts that several architectures share: input normalisation, activations and stems."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, fx, nn

from forearm.errors import SpecError

ACTIVATIONS: dict[str, type[nn.Module]] = {"relu": nn.ReLU, "silu": nn.SiLU, "gelu": nn.GELU}

CIFAR10_MEAN = (0.4914, 0.4822, 0.4465)
CIFAR10_STD = (0.2470, 0.2435, 0.2616)
IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)


class Normalize(nn.Module):
    """(x - mean) / std per channel, so that a model takes RGB in [0, 1]. Constants of the architecture, not weights."""

    mean: Tensor
    std: Tensor

    def __init__(self, mean: tuple[float, ...], std: tuple[float, ...]) -> None:
        super().__init__()
        self.register_buffer("mean", torch.tensor(mean).reshape(1, -1, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(std).reshape(1, -1, 1, 1), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        return (x - self.mean) / self.std


def channels_of(network: nn.Module) -> int:
    """How many channels the pictures have that `network` takes: those that it normalises, or of its first convolution; 3 where it has neither."""
    for part in network.modules():
        if isinstance(part, Normalize):
            mean: Tensor = part.get_buffer("mean")
            if mean.shape[1] > 1:
                return mean.shape[1]
    first = next((part for part in network.modules() if isinstance(part, nn.Conv2d)), None)
    return 3 if first is None else first.in_channels


def activation(name: str) -> nn.Module:
    """A fresh activation module by name."""
    try:
        return ACTIVATIONS[name]()
    except KeyError:
        raise SpecError(f"activation: got {name!r}; one of {', '.join(ACTIVATIONS)}, for example 'relu'") from None


class SameConv2d(nn.Conv2d):
    """A convolution padded as TensorFlow's SAME: ceil(size / stride) windows, the odd pixel at bottom and right."""

    def forward(self, x: Tensor) -> Tensor:
        return F.conv2d(pad_same(x, self.kernel_size[0], self.stride[0]), self.weight, self.bias, self.stride, groups=self.groups)


def pad_same(x: Tensor, kernel: int, stride: int) -> Tensor:
    """`x` with the zeros that TensorFlow's SAME puts around it for square windows."""
    (top, bottom), (left, right) = (_same(size, kernel, stride) for size in x.shape[2:])
    return F.pad(x, (left, right, top, bottom))


def _same(size: int, kernel: int, stride: int) -> tuple[int, int]:
    """Padding before and after one axis."""
    total = max((-(-size // stride) - 1) * stride + kernel - size, 0)
    return total // 2, total - total // 2


fx.wrap("pad_same")  # its padding depends on the picture's size, which a symbolic trace does not know


def same_conv(inner: int, outer: int, kernel: int, stride: int = 1, groups: int = 1, bias: bool = True) -> nn.Conv2d:
    """A SAME convolution with an odd kernel; at stride 1 the padding is even, and a plain convolution does it."""
    if stride == 1:
        return nn.Conv2d(inner, outer, kernel, padding=kernel // 2, groups=groups, bias=bias)
    return SameConv2d(inner, outer, kernel, stride, groups=groups, bias=bias)


def conv3x3(inner: int, outer: int, stride: int = 1, groups: int = 1, same: bool = False) -> nn.Conv2d:
    """A 3 x 3 convolution without bias, padded by one pixel all around, or as TensorFlow's SAME."""
    if same:
        return same_conv(inner, outer, 3, stride, groups, bias=False)
    return nn.Conv2d(inner, outer, 3, stride, 1, groups=groups, bias=False)


def conv1x1(inner: int, outer: int, stride: int = 1) -> nn.Conv2d:
    """A 1 x 1 convolution without bias."""
    return nn.Conv2d(inner, outer, 1, stride, bias=False)


def stem(name: str, width: int) -> nn.Module:
    """The first layers, 3 -> `width` channels.

    `conv3`, one convolution, keeps the size (32 x 32 pictures). For photos, `patch4` (one 7 x 7 convolution) and
    `deep4` (two 3 x 3 convolutions) divide each edge by 4.
    """
    if name == "conv3":
        return conv3x3(3, width)
    if name == "patch4":
        return nn.Conv2d(3, width, 7, 4, 3, bias=False)
    if name == "deep4":
        half = width // 2
        return nn.Sequential(conv3x3(3, half, 2), nn.BatchNorm2d(half), nn.ReLU(), conv3x3(half, width, 2))
    raise SpecError(f"stem: got {name!r}; 'conv3' for 32 x 32 pictures, 'patch4' or 'deep4' for photos")
