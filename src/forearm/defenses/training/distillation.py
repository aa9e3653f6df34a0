"""Defensive distillation (Papernot et al., IEEE S&P 2016): a net learns the softened answers of another. A baseline; it hides gradients."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from forearm.data.batches import Batch
from forearm.defenses.training.loop import Step
from forearm.errors import SpecError


def softened(temperature: float = 20.0) -> Step:
    """T CE( softmax(f(x) / T), y ): the first net, whose answers are to be soft. See `distillation`."""
    _positive(temperature)

    def step(model: nn.Module, batch: Batch) -> dict[str, Tensor]:
        logits = model(batch.x).float()
        loss = temperature * F.cross_entropy(logits / temperature, batch.y)
        return {"loss": loss, "accuracy": (logits.argmax(1) == batch.y).float().mean()}

    return step


def distillation(teacher: nn.Module, temperature: float = 20.0) -> Step:
    """T CE( softmax(f(x) / T), softmax(t(x) / T) ): the second net f, of the teacher's own architecture, from the teacher's answers t alone.

    `teacher`: frozen, in eval mode, trained by `softened` at the same temperature. The net is deployed at temperature 1: its logits are then about T
    times as large as a plain net's, its softmax saturates and its cross-entropy has a gradient of exactly zero in float32 on many pictures. Attacks
    on the margin or the logits are not hindered (Carlini and Wagner, arXiv 1607.04311): report how many pictures an attack left unchanged. Two
    departures: the factor T, which leaves the minimum where it is and lets SGD move (the gradient of the logits is T times smaller without it),
    and a default of 20, where the paper goes up to 100. Source: arXiv 1511.04508, section IV. SpecError for a temperature that is not above 0. Cost: a
    forward and backward pass, and a forward pass of the teacher.
    """
    _positive(temperature)

    def step(model: nn.Module, batch: Batch) -> dict[str, Tensor]:
        with torch.no_grad():
            soft = (teacher(batch.x).float() / temperature).softmax(1)
        logits = model(batch.x).float()
        loss = temperature * F.cross_entropy(logits / temperature, soft)
        return {"loss": loss, "accuracy": (logits.argmax(1) == batch.y).float().mean()}

    return step


def _positive(temperature: float) -> None:
    if not 0.0 < temperature < float("inf"):
        raise SpecError(f"distillation: got temperature={temperature!r}; above 0, for example 20")
