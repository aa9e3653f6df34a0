"""Networks of timm (Wightman, PyTorch Image Models) by name, behind the `zoo` extra: imported when one is asked for."""

from __future__ import annotations

import hashlib
from typing import Any

from torch import Tensor, nn

from forearm.errors import ArtifactError, SpecError
from forearm.models.blocks import IMAGENET_MEAN, IMAGENET_STD, Normalize
from forearm.models.card import Card
from forearm.models.classes import numbered


class Timm(nn.Module):
    """RGB in [0, 1] -> logits: the network's own normalisation, then the network."""

    def __init__(self, network: nn.Module, mean: tuple[float, ...], std: tuple[float, ...]) -> None:
        super().__init__()
        self.normalize = Normalize(mean, std)
        self.network = network

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.network(self.normalize(x))
        return logits


def timm_model(name: str) -> tuple[nn.Module, Card]:
    """A pretrained network of timm and a card for it.

    The first use downloads its weights through timm, which checks no sum of ours: the card's sha256 is over the weights
    as they were loaded. Classes are named by the pretrained configuration where it names them, by number otherwise.
    ArtifactError without timm.
    """
    try:
        import timm
    except Exception as error:  # a torchvision that does not fit torch raises RuntimeError or OSError here
        raise ArtifactError(f"timm:{name}: timm cannot be imported ({error}); pip install 'forearm[zoo]'") from None
    if not timm.is_model(name):
        raise SpecError(f"timm:{name}: timm has no such network; for example 'timm:resnet18'")
    try:
        network: nn.Module = timm.create_model(name, pretrained=True)
    except (RuntimeError, OSError) as error:
        raise ArtifactError(
            f"timm:{name}: no pretrained weights ({(str(error).splitlines() or ['no reason given'])[0]}); a network that has them"
        ) from None
    settings: dict[str, Any] = getattr(network, "pretrained_cfg", {})
    if not any(settings.get(place) for place in ("url", "file", "hf_hub_id")):  # some networks then stay random, with a warning
        raise ArtifactError(
            f"timm:{name}: its configuration names no pretrained weights; a network that has them, for example 'timm:resnet18'"
        )
    count = int(settings.get("num_classes", 1000))
    names = settings.get("label_names") or numbered(count)
    card = Card(
        name=f"timm:{name}",
        arch=name.replace(".", "_"),
        weights=f"timm:{name}",
        sha256=_sum(network),
        classes=tuple(str(n) for n in names),
        size=int(settings.get("input_size", (3, 224, 224))[-1]),
        recipe="timm",
    )
    return Timm(network, tuple(settings.get("mean", IMAGENET_MEAN)), tuple(settings.get("std", IMAGENET_STD))), card


def _sum(network: nn.Module) -> str:
    """sha256 over the names and bytes of all weights."""
    total = hashlib.sha256()
    for name, value in network.state_dict().items():
        total.update(name.encode())
        total.update(value.detach().cpu().contiguous().numpy().tobytes())
    return total.hexdigest()
