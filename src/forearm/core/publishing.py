"""What publishing does to a picture: chains of steps such as "jpeg:85,resize:1080,jpeg:75", exactly, and with a gradient.

A family is several chains, of which any one may happen: "jpeg:75|webp:80|none". Its first is the nominal one, by which a release is measured.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from forearm.core import channel, differentiable
from forearm.core.gradients import Classifier, bpda
from forearm.core.noise import Noise
from forearm.core.quantize import to_8bit
from forearm.core.view import resize
from forearm.errors import SpecError

STEPS: dict[str, tuple[int, int, int]] = {  # a step's number: least, most, example
    "jpeg": (1, 100, 75),  # quality; colours 4:2:0
    "webp": (0, 100, 80),  # quality; lossy, colours 4:2:0
    "resize": (1, 1 << 16, 1080),  # pixels of the longer edge, at most
}

MOST = 8  # chains of a family, and steps of a chain

PRESETS: dict[str, str] = {
    "web": "resize:2048,webp:80|resize:2048,jpeg:80|none",  # sites that make what they deliver
    "social": "jpeg:85,resize:1080,jpeg:75|jpeg:85,resize:720,jpeg:70|webp:75|none",  # the phone's own JPEG, then the platform's
    "archive": "jpeg:90|webp:90|none",  # own size, high quality
}


@dataclass(frozen=True, slots=True)
class Chain:
    """Steps that follow each other: pairs of a name of `STEPS` and its number. None at all is the picture as it is."""

    steps: tuple[tuple[str, int], ...]

    def __str__(self) -> str:
        return ",".join(f"{name}:{number}" for name, number in self.steps) or "none"

    def exact(self, x: Tensor) -> Tensor:
        """`x` (`n c h w` in [0, 1], c = 1 or 3) as it is after publishing: real codecs, 8 bits after each step, and perhaps another size.

        Carries no gradient. Cost: no pass of a model.
        """
        noise = Noise.of(len(x))  # the codecs draw nothing
        for name, number in self.steps:
            if name == "resize":
                x = to_8bit(fitted(x.detach(), number))
            else:
                x = channel.jpeg(x, noise=noise, quality=number) if name == "jpeg" else channel.webp(x, noise=noise, quality=number)
        return x

    def soft(self, x: Tensor) -> Tensor:
        """`x` after the chain, in its own size again and with a gradient: that of shared colours for a codec, a resize's own for a resize.

        On a CPU values are the real codecs'; on other devices JPEG is `differentiable.jpeg`, which agrees to a level or so.
        """
        size = x.shape[2:]
        for name, number in self.steps:
            x = fitted(x, number) if name == "resize" else _soft_codec(x, name, number)
        return resize(x, (size[0], size[1]))


@dataclass(frozen=True, slots=True)
class Published:
    """`model` looking at pictures after publishing: picture i went through `chains[choice[i]]`. Gradients reach the pictures.

    Cost: one pass of the model over the whole batch, and the codecs.
    """

    model: Classifier
    chains: tuple[Chain, ...]
    choice: Tensor  # `n`, int64

    def __call__(self, x: Tensor) -> Tensor:
        places = [(self.choice == number).nonzero().squeeze(1) for number in range(len(self.chains))]
        parts = [chain.soft(x[place]) for chain, place in zip(self.chains, places, strict=True) if len(place)]
        return self.model(torch.cat(parts)[torch.cat(places).argsort()])


def fitted(x: Tensor, longest: int) -> Tensor:
    """`x` (`n c h w`) with its longer edge at most `longest` pixels, aspect kept, antialiased bilinear; a smaller picture stays as it is."""
    height, width = x.shape[2:]
    edge = max(height, width)
    if edge <= longest:
        return x
    return resize(x, (max(1, round(height * longest / edge)), max(1, round(width * longest / edge))))


def family(text: str) -> tuple[Chain, ...]:
    """The chains of a preset, or of text such as "jpeg:75,resize:1080" or "jpeg:75|webp:80|none". SpecError for anything else."""
    parts = PRESETS.get(text.strip(), text).split("|")
    if len(parts) > MOST or max(part.count(",") for part in parts) >= MOST:
        raise SpecError(f"survive: got {len(parts)} chains; up to {MOST} of up to {MOST} steps each, for example 'jpeg:75|webp:80|none'")
    return tuple(_chain(part, text) for part in parts)


def spelled(chains: Sequence[Chain]) -> str:
    """A family as text that `family` reads: what a preset stands for."""
    return "|".join(map(str, chains))


def chosen(noise: Noise, like: Tensor, copies: int, members: int) -> Tensor:
    """Which of `members` chains each copy of each picture goes through: `copies n`, int64. Every chain serves equally many copies, give or take one.

    The order, and which chains serve one more, are drawn from `noise` for each picture by itself. `like`: the pictures, for their number and device.
    """
    order = noise.uniform(like.new_empty(len(like), copies, dtype=torch.float64)).argsort(1).argsort(1)
    first = noise.integers(order[:, :1], members)
    return ((order + first) % members).T


def _chain(part: str, text: str) -> Chain:
    if part.strip() == "none":
        return Chain(())
    steps = []
    for step in part.split(","):
        name, _, number = (piece.strip() for piece in step.partition(":"))
        least, most, _example = STEPS.get(name, (0, -1, 0))
        if not number.isdecimal() or not least <= int(number) <= most:
            known = ", ".join(f"{known} (up to {STEPS[known][1]})" for known in STEPS)
            raise SpecError(
                f"survive: got {text!r}, where {step.strip()!r} is no step; {', '.join(PRESETS)}, or steps of {known}, for example 'jpeg:75,resize:1080'"
            )
        steps.append((name, int(number)))
    return Chain(tuple(steps))


def _soft_codec(x: Tensor, name: str, quality: int) -> Tensor:
    if name == "jpeg" and x.device.type != "cpu":
        return differentiable.jpeg(x, quality)
    noise = Noise.of(len(x))

    def exact(pictures: Tensor) -> Tensor:
        codec = channel.jpeg if name == "jpeg" else channel.webp
        return codec(pictures, noise=noise, quality=quality)

    return bpda(exact, differentiable.shared_colours)(x)
