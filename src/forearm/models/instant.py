"""The network of the instant release: from a picture and a class, in one pass, the change that hardens the picture towards that class."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from forearm.core.precision import fold
from forearm.errors import SpecError
from forearm.models.blocks import CIFAR10_MEAN, CIFAR10_STD, Normalize, activation, conv1x1, conv3x3
from forearm.models.card import Card
from forearm.models.load import load_model

UNIT = 8.0 / 255.0  # the budget that the network is told as 1


class Unit(nn.Module):
    """Two 3 x 3 convolutions with batch norm and a shortcut: x + bn(conv(act(bn(conv(x))))), then the activation."""

    def __init__(self, inner: int, outer: int, stride: int, act: str) -> None:
        super().__init__()
        self.conv1, self.bn1 = conv3x3(inner, outer, stride), nn.BatchNorm2d(outer)
        self.conv2, self.bn2 = conv3x3(outer, outer), nn.BatchNorm2d(outer)
        self.act = activation(act)
        self.shortcut: nn.Conv2d | None = None
        if stride != 1 or inner != outer:
            self.shortcut = nn.Conv2d(inner, outer, stride, stride, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        kept = x if self.shortcut is None else self.shortcut(x)
        total: Tensor = self.act(kept + self.bn2(self.conv2(self.act(self.bn1(self.conv1(x))))))
        return total


class Instant(nn.Module):
    """RGB in [0, 1] `n 3 h w`, any size -> logits `n classes`; `direction` gives the change in units of eps.

    A U of three levels (strides `patch`, 2 patch and 4 patch; widths 1, 2 and 3 times `width`). The way down is a classifier (`forward`). On the
    way up each level is scaled and shifted by the class and the budget (FiLM, Perez et al., AAAI 2018), so one network serves every class and eps,
    and the class may be the labeller's, the user's or the network's own.
    """

    def __init__(self, classes: int, width: int, patch: int, act: str, mean: tuple[float, ...], std: tuple[float, ...]) -> None:
        super().__init__()
        self.classes, self.patch = classes, patch
        wide = (width, 2 * width, 3 * width)
        self.normalize = Normalize(mean, std)
        self.stem, self.bn = conv3x3(3 * patch * patch, width), nn.BatchNorm2d(width)
        self.act = activation(act)
        self.down = nn.ModuleList(Unit(a, b, 2, act) for a, b in pairwise(wide))
        self.deep = Unit(wide[2], wide[2], 1, act)
        self.linear = nn.Linear(wide[2], classes)
        self.film = nn.Linear(classes + 1, 2 * sum(wide))
        self.wide = wide
        self.up = nn.ModuleList(conv1x1(b, a) for a, b in pairwise(wide))
        self.units = nn.ModuleList(Unit(channels, channels, 1, act) for channels in wide)
        self.out = nn.Conv2d(width, 3 * patch * patch, 3, 1, 1)

    def encode(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Pictures whose sides are multiples of `4 patch` -> features of the three levels, fine to coarse."""
        fine = self.act(self.bn(self.stem(F.pixel_unshuffle(self.normalize(x), self.patch))))
        middle = self.down[0](fine)
        return fine, middle, self.deep(self.down[1](middle))

    def judge(self, features: tuple[Tensor, Tensor, Tensor]) -> Tensor:
        """Features -> logits `n classes`."""
        logits: Tensor = self.linear(features[2].mean((2, 3)))
        return logits

    def decode(self, features: tuple[Tensor, Tensor, Tensor], y: Tensor, eps: Tensor) -> Tensor:
        """Features, classes `n` and budgets `n` -> the change in units of eps, `n 3 h w` in [-1, 1]."""
        told = torch.cat([F.one_hot(y, self.classes).to(eps), (eps / UNIT)[:, None]], 1)
        scale, shift = self.film(told)[:, :, None, None].chunk(2, 1)
        out = torch.zeros((), device=eps.device)
        for level in (2, 1, 0):
            own = slice(sum(self.wide[:level]), sum(self.wide[: level + 1]))
            below = features[level] if level == 2 else features[level] + F.interpolate(self.up[level](out), scale_factor=2.0)
            out = self.units[level](below * (1.0 + scale[:, own]) + shift[:, own])
        return torch.tanh(F.pixel_shuffle(self.out(out), self.patch)).to(eps)

    def forward(self, x: Tensor) -> Tensor:
        return self.judge(self.encode(self._padded(x)))

    def direction(self, x: Tensor, y: Tensor | None, eps: float | Tensor) -> Tensor:
        """The change in units of eps (`n 3 h w` in [-1, 1]) that hardens pictures towards the classes `y`, or its own where that is None."""
        features = self.encode(self._padded(x))
        budget = torch.as_tensor(eps, dtype=x.dtype, device=x.device).expand(x.shape[0])
        change = self.decode(features, self.judge(features).argmax(1) if y is None else y, budget)
        return change[:, :, : x.shape[2], : x.shape[3]]

    def _padded(self, x: Tensor) -> Tensor:
        """`x` with its last row and column repeated until both sides are multiples of `4 patch`."""
        whole = 4 * self.patch
        return F.pad(x, (0, -x.shape[3] % whole, 0, -x.shape[2] % whole), mode="replicate")


def instant(
    classes: int = 10,
    width: int = 32,
    patch: int = 2,
    act: str = "silu",
    mean: tuple[float, ...] = CIFAR10_MEAN,
    std: tuple[float, ...] = CIFAR10_STD,
) -> Instant:
    """The network of the instant release; `patch` pixels a side are one position of its finest level."""
    return Instant(classes, width, patch, act, mean, std)


class Direction(nn.Module):
    """`Instant.direction` as a module's forward pass, which `fold` can trace."""

    def __init__(self, network: Instant) -> None:
        super().__init__()
        self.network = network

    def forward(self, x: Tensor, y: Tensor | None, eps: float) -> Tensor:
        return self.network.direction(x, y, eps)


@dataclass(frozen=True, slots=True)
class Writer:
    """A loaded network of instant releases: pictures, classes (None: its own) and eps -> the change in units of eps. In float32, batch norm folded."""

    network: nn.Module
    card: Card

    @property
    def side(self) -> int:
        """The shorter edge of the pictures it was trained on."""
        return self.card.size

    def __call__(self, x: Tensor, y: Tensor | None, eps: float) -> Tensor:
        with torch.inference_mode():
            change: Tensor = self.network(x.float().contiguous(memory_format=torch.channels_last), y, eps)
        return change.clone()


def load_writer(name: str, device: str | torch.device = "cpu") -> Writer:
    """The network of instant releases of that name (`load_model`). SpecError for a model that writes no change."""
    model = load_model(name, device=device)
    if not isinstance(model.network, Instant):
        raise SpecError(
            f"instant: the model {name!r} writes no change; a network of `forearm train instant`, for example 'cifar10_instant'"
        )
    return Writer(fold(Direction(model.network)).to(memory_format=torch.channels_last), model.card)  # type: ignore[call-overload]
