"""MID's network for large pictures: a vision transformer encodes, transposed convolutions decode."""

from __future__ import annotations

from torch import Tensor, nn

from forearm.errors import SpecError
from forearm.models.autoencoder import Autoencoder, Code, Pooled, UpDecoder
from forearm.models.blocks import IMAGENET_MEAN, IMAGENET_STD
from forearm.models.vit import ViT, vit

THINNEST = 16  # channels of the decoder's last layers


class ViTEncoder(nn.Module):
    """The normed tokens of a `vit` at their places: pictures `n 3 h w` -> `n width h/patch w/patch`."""

    def __init__(self, body: ViT, patch: int) -> None:
        super().__init__()
        self.patch = patch
        self.vit = body
        self.vit.head = nn.Identity()  # type: ignore[assignment]  # the autoencoder's head reads the features

    def forward(self, x: Tensor) -> Code:
        tokens: Tensor = self.vit.tokens(x)
        grid = (x.shape[2] // self.patch, x.shape[3] // self.patch)
        return Code(tokens.transpose(1, 2).reshape(len(x), -1, *grid))


def vit_autoencoder(
    classes: int = 10,
    width: int = 768,
    depth: int = 12,
    heads: int = 12,
    patch: int = 32,
    size: int = 224,
    stem: str = "patch",
    widen: float = 4.0,
    mean: tuple[float, ...] = IMAGENET_MEAN,
    std: tuple[float, ...] = IMAGENET_STD,
) -> Autoencoder:
    """The network of MID for ImageNet: by default the body of a ViT-B/32, features `n 768 7 7` of 224 x 224 pictures.

    The decoder doubles the grid log2(patch) times, half as wide each time but never below 16 channels, then two 3 x 3 layers. The head is the mean
    over all places and a linear layer, where the paper reads a class token: MID compares features place by place, and a token has no place. Other
    options are `vit`'s. Sides are multiples of `patch`. Source: arXiv 2404.03340, the ImageNet experiments; their decoder is not published, this one
    follows that of `resnet_autoencoder`. SpecError for a patch that is no power of two of at least 2.
    """
    doublings = patch.bit_length() - 1
    if patch != 2**doublings or doublings < 1:
        raise SpecError(f"vit_autoencoder: got patch={patch}; a power of two, for example 16")
    wide = (width, *(max(width // 2 ** (i + 1), THINNEST) for i in range(doublings)))
    body = vit(1, width, depth, heads, patch, size, stem, "mean", widen, "gelu", mean, std)
    return Autoencoder(ViTEncoder(body, patch), UpDecoder(wide), Pooled(width, classes))
