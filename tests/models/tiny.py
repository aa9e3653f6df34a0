"""A small trained-looking model on disk, for tests that load one."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import nn

from forearm.jobs.train import write_weights
from forearm.models.architectures import ARCHITECTURES
from forearm.models.card import Card, write_card
from forearm.models.classes import CIFAR10
from forearm.models.weights import file_sum
from forearm.registry import bind

ARCH = "preact_resnet(width=4, blocks=(1, 1))"


def randomised(network: nn.Module, seed: int = 0) -> nn.Module:
    """Every weight and statistic random, variances positive, so that no batch norm is the identity."""
    generator = torch.Generator().manual_seed(seed)
    for name, value in network.state_dict().items():
        if value.is_floating_point():
            noise = torch.randn(value.shape, generator=generator) * 0.3
            value.copy_(noise.abs() + 0.5 if name.endswith(("running_var", "bn1.weight")) else noise)
    return network.eval()


def network(arch: str = ARCH, seed: int = 0) -> nn.Module:
    with torch.random.fork_rng(devices=[]):
        return randomised(bind(ARCHITECTURES, arch)(), seed)


def write_model(
    folder: Path,
    arch: str = ARCH,
    threat: str | None = "linf:8/255",
    weights: str = "weights.safetensors",
    *,
    seed: int = 0,
    size: int = 32,
) -> Card:
    """weights.safetensors (fp16) and card.toml in `folder`."""
    folder.mkdir(parents=True, exist_ok=True)
    write_weights(network(arch, seed), folder / weights)
    card = Card(
        name=folder.name,
        arch=arch,
        weights=weights,
        sha256=file_sum(folder / weights),
        classes=CIFAR10,
        size=size,
        data="cifar10",
        threat=threat,
    )
    write_card(card, folder / "card.toml")
    return card
