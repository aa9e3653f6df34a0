"""Models whose answer is known: nets with honest gradients, and what hides the gradients of any of them.

The small nets are made here, in seconds: pictures of stripes, checkers and discs, some trained plainly and some on
adversarial examples.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache, partial
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor, nn

from forearm.attacks.pgd import pgd
from forearm.core.losses import margin
from forearm.core.noise import Noise
from forearm.core.threat import Threat
from forearm.defenses.inference.conceal import conceal
from forearm.defenses.inference.resize_pad import resize_pad
from forearm.evaluate.probes import drawn

SIDE, CLASSES = 16, 5
THREAT = Threat.parse("linf:8/255")


# what hides gradients


class Hidden(nn.Module):
    """A net behind something that its gradients do not survive."""

    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.net = net.eval()


class Detached(Hidden):
    """The picture cut off the graph, all of it: autograd finds nothing."""

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.net(x.detach())
        return out


class Quantised(Hidden):
    """Each pixel rounded to one of 16 levels."""

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.net((x * 15.0).round() / 15.0)
        return out


class Noised(Hidden):
    """Gaussian noise of 0.25 on every pixel (the middle level of Cohen et al., ICML 2019)."""

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.net(x + 0.25 * torch.randn_like(x))
        return out


class Saturated(Hidden):
    """Logits so far apart that softmax is exactly 0 and 1."""

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = 1e4 * self.net(x)
        return out


POSITIVE: dict[str, Callable[[nn.Module], nn.Module]] = {
    "concealed": conceal,  # as published
    "detached identity": partial(conceal, omega=1e10, epsilon=1e-6, detached=True),  # its earlier variant
    "detached": Detached,
    "quantised": Quantised,
    "resized and padded": partial(resize_pad, least=13 / 16),  # as many configurations at 32 pixels as published at 224
    "noised": Noised,
    "saturated": Saturated,
}


# nets with honest gradients


def shapes(n: int, seed: int) -> tuple[Tensor, Tensor]:
    """Pictures `n 3 SIDE SIDE` of stripes (three ways), checkers and discs, and which they are."""
    generator = torch.Generator().manual_seed(seed)

    def between(low: float, high: float, *shape: int) -> Tensor:
        return low + (high - low) * torch.rand(n, *shape, generator=generator)

    y = torch.randint(0, CLASSES, (n,), generator=generator)
    row, column = torch.meshgrid(*[torch.arange(SIDE) - SIDE / 2] * 2, indexing="ij")
    pace, phase = between(0.7, 1.1, 1, 1), between(0.0, 6.28, 1, 1)
    waves = [torch.sin(pace * along + phase) for along in (row, column, (row + column) / 1.4)]
    disc = torch.tanh(between(3.0, 6.0, 1, 1) - ((row - between(-3, 3, 1, 1)) ** 2 + (column - between(-3, 3, 1, 1)) ** 2).sqrt())
    drawing = torch.stack([*waves, (2.0 * waves[0] * waves[1]).clamp(-1, 1), disc], 1)[torch.arange(n), y]
    colour = between(0.05, 0.2, 3, 1, 1)
    x = 0.5 + between(-0.15, 0.15, 3, 1, 1) + colour * drawing[:, None]
    return (x + 0.05 * torch.randn(x.shape, generator=generator)).clamp(0.0, 1.0), y


def convolutional(act: Callable[[], nn.Module]) -> nn.Module:
    """Three strided convolutions with batch norm."""
    layers: list[nn.Module] = []
    for before, after in ((3, 16), (16, 24), (24, 32)):
        layers += [nn.Conv2d(before, after, 3, 2, 1), nn.BatchNorm2d(after), act()]
    return nn.Sequential(*layers, nn.Flatten(), nn.Linear(128, CLASSES))


def pooled() -> nn.Module:
    """One convolution, rectified, and the maximum over windows."""
    return nn.Sequential(nn.Conv2d(3, 16, 5, 1, 2), nn.BatchNorm2d(16), nn.ReLU(), nn.MaxPool2d(4), nn.Flatten(), nn.Linear(256, CLASSES))


SMALL: dict[str, tuple[Callable[[], nn.Module], bool]] = {
    "small rectified": (lambda: convolutional(nn.ReLU), False),
    "small smooth": (lambda: convolutional(nn.SiLU), False),
    "small pooled": (pooled, False),
    "small smooth robust": (lambda: convolutional(nn.SiLU), True),
    "small pooled robust": (pooled, True),
}


@cache
def small(name: str) -> nn.Module:
    """A net of `SMALL`, trained; frozen, in eval mode."""
    build, robust = SMALL[name]
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(7)
        net = build()
    optimizer = torch.optim.AdamW(net.parameters(), lr=4e-3)
    steps = 150
    rate = torch.optim.lr_scheduler.OneCycleLR(optimizer, 1e-2, total_steps=steps)
    for step in range(steps):
        x, y = shapes(96, 1000 + step)
        if robust:
            x = pgd(net.eval(), x, y, threat=THREAT, noise=Noise.of(len(x), seed=step), steps=3)
        optimizer.zero_grad()
        F.cross_entropy(net.train()(x), y).backward()
        optimizer.step()
        rate.step()
    optimizer.zero_grad()
    return net.eval().requires_grad_(False)


# pictures that a model gets right


def chosen(model: nn.Module, x: Tensor, y: Tensor, n: int) -> tuple[Tensor, Tensor]:
    """The first `n` that the model gets right by the mean of four draws."""
    with torch.no_grad(), drawn(Noise.of(1), "chosen", x.device):
        right = margin(torch.stack([model(x) for _ in range(4)]).mean(0), y) < 0
    return x[right][:n], y[right][:n]


def crops(side: int) -> Tensor:
    """Pieces of scikit-image's photos at two scales, `n 3 side side`; they have no labels but what a model says."""
    import skimage

    folder = Path(skimage.__file__).parent / "data"
    pieces = []
    for name in ("astronaut.png", "chelsea.png", "coffee.png", "rocket.jpg", "motorcycle_left.png"):
        photo = Image.open(folder / name).convert("RGB")
        for part in (1, 2):
            wide = min(photo.size) // part
            for left in range(0, photo.width - wide + 1, max(wide // 2, 1)):
                for top in range(0, photo.height - wide + 1, max(wide // 2, 1)):
                    piece = photo.crop((left, top, left + wide, top + wide)).resize((side, side), Image.Resampling.LANCZOS)
                    pieces.append(torch.from_numpy(np.array(piece)).permute(2, 0, 1))
    return torch.stack(pieces).float() / 255.0


def confident(model: nn.Module, x: Tensor, n: int) -> tuple[Tensor, Tensor]:
    """The `n` pictures that the model is surest of, and what it says they are."""
    with torch.no_grad():
        logits = model(x)
    y = logits.argmax(1)
    best = margin(logits, y).argsort(stable=True)[:n]
    return x[best], y[best]
