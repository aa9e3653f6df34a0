"""ResNeXt (Xie et al., CVPR 2017): bottlenecks whose 3 x 3 works in groups. ResNeXt-29, 4 x 32d: `resnext()`."""

from __future__ import annotations

from forearm.errors import SpecError
from forearm.models.blocks import CIFAR10_MEAN, CIFAR10_STD
from forearm.models.resnet import ResNet


def resnext(
    classes: int = 10,
    cardinality: int = 4,
    base_width: int = 32,
    width: int = 64,
    blocks: tuple[int, ...] = (3, 3, 3),
    stem: str = "conv3",
    act: str = "relu",
    mean: tuple[float, ...] = CIFAR10_MEAN,
    std: tuple[float, ...] = CIFAR10_STD,
) -> ResNet:
    """A ResNeXt: a block of stage s (from 0) has `cardinality` groups of 2^s width base_width / 64 channels."""
    if width * base_width % 64:
        raise SpecError(f"resnext: got width={width}, base_width={base_width}; a product that 64 divides, for example 64 and 32")
    return ResNet(
        classes,
        width,
        blocks,
        "bottleneck",
        stem,
        "projection",
        act,
        mean,
        std,
        groups=cardinality,
        base_width=base_width,
    )
