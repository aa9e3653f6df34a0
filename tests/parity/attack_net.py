"""A small net with fixed weights, pictures and eps at which about half of them fall: the ground on which attacks of two libraries meet."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from forearm.core.losses import margin

CLASSES = 6


def small_net(dtype: torch.dtype = torch.float64) -> nn.Module:
    """A smooth convolutional net of six classes for 10 x 10 pictures; its weights depend on nothing else."""
    layers = [nn.BatchNorm2d(3, affine=False), nn.Conv2d(3, 8, 3, 2, 1), nn.SiLU(), nn.Conv2d(8, 12, 3, 2, 1), nn.SiLU()]
    net = nn.Sequential(*layers, nn.Flatten(), nn.Linear(108, CLASSES)).double()
    net[0].running_mean.fill_(0.5)
    net[0].running_var.fill_(0.08)
    generator = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for weight in net.parameters():
            weight.copy_(2.0 * torch.randn(weight.shape, generator=generator, dtype=torch.float64) / weight[0].numel() ** 0.5)
            weight.mul_(1.0 if weight.ndim > 1 else 0.0)
    return net.to(dtype).eval().requires_grad_(False)


def pictures(net: nn.Module, n: int, dtype: torch.dtype = torch.float64) -> tuple[Tensor, Tensor]:
    """`n` pictures away from black and white, and what `net` says they are."""
    x = torch.rand(n, 3, 10, 10, generator=torch.Generator().manual_seed(8), dtype=torch.float64).to(dtype)
    with torch.no_grad():
        return x, net(x).argmax(1)


def best_of(points: list[Tensor], net: nn.Module, y: Tensor) -> Tensor:
    """Of each example, the point at which the margin of the wrong classes is highest."""
    with torch.no_grad():
        scores = torch.stack([margin(net(point), y) for point in points])
    return torch.stack(points)[scores.argmax(0), torch.arange(len(y))]
