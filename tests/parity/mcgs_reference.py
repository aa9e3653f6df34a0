"""MCGS as the method page reads, in float64, one picture and one copy at a time: slow and obvious, to compare with."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import torch
from torch import Tensor


def smooth(
    model: Callable[[Tensor], Tensor], c: Tensor, y: int, d: float, eps: float, draws: Iterator[Tensor], n: int, k: int, alpha: float
) -> Tensor:
    ends = []
    for _ in range(n):
        z = torch.clamp(c + next(draws), 0.0, 1.0)
        for _ in range(k):
            z = z.detach().clone().requires_grad_()
            loss = -torch.log_softmax(model(z[None])[0], 0)[y]
            loss.backward()
            moved = z.detach() + alpha * d * torch.sign(z.grad)
            moved = torch.minimum(torch.maximum(moved, c - eps), c + eps)
            z = torch.clamp(moved, 0.0, 1.0)
        ends.append(z)
    mean = torch.zeros_like(c)
    for z in ends:
        mean = mean + z
    return mean / n


def mcgs(
    model: Callable[[Tensor], Tensor], x: Tensor, y: int, eps: float, draws: Iterator[Tensor], n: int, k: int = 1,
    a: int = 1, b: int = 1, rate: float = 1.0, alpha: float | None = None,
) -> Tensor:  # fmt: skip
    alpha = eps if alpha is None else alpha
    current = x
    for _ in range(a):
        s = smooth(model, current, y, -1.0, eps, draws, n, k, alpha)
        current = current + rate * (s - current)
        current = torch.clamp(torch.minimum(torch.maximum(current, x - eps), x + eps), 0.0, 1.0)
    for _ in range(b):
        s = smooth(model, current, y, +1.0, eps, draws, n, k, alpha)
        current = current - rate * (s - current)
        current = torch.clamp(torch.minimum(torch.maximum(current, x - eps), x + eps), 0.0, 1.0)
    return current
