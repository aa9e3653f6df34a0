"""LPIPS with a SqueezeNet 1.1 trunk (Zhang et al., CVPR 2018), version 0.1. Its weights are files that the user has."""

from __future__ import annotations

import pickle
from dataclasses import dataclass
from pathlib import Path
from zipfile import BadZipFile

import torch
import torch.nn.functional as F
from torch import Tensor

from forearm.errors import ArtifactError

TRUNK, HEADS = "squeeze.backbone.pth", "lin_v0.1_squeeze.pth"

_MEAN, _STD = (-0.030, -0.088, -0.188), (0.458, 0.448, 0.450)  # for pictures in [-1, 1]
_STAGES: tuple[tuple[str | int, ...], ...] = (  # from one compared layer to the next: max-pools, and fire modules by key
    ("pool", 3, 4),
    ("pool", 6, 7),
    ("pool", 9),
    (10,),
    (11,),
    (12,),
)


@dataclass(frozen=True, slots=True)
class Lpips:
    """The distance of two batches `n 3 h w` in [0, 1], 17 pixels or more a side: one number per example (`n`)."""

    trunk: dict[str, Tensor]
    heads: tuple[Tensor, ...]

    def __call__(self, a: Tensor, b: Tensor) -> Tensor:
        total = torch.zeros(len(a), device=a.device)
        for f, g, head in zip(self.layers(a), self.layers(b), self.heads, strict=True):
            total = total + F.conv2d((_unit(f) - _unit(g)).square(), head).mean((1, 2, 3))
        return total

    def layers(self, x: Tensor) -> list[Tensor]:
        """The seven compared layers: 64, 128, 256, 384, 384, 512 and 512 channels."""
        mean, std = (torch.tensor(v, device=x.device).reshape(1, 3, 1, 1) for v in (_MEAN, _STD))
        out = (2.0 * x.float() - 1.0 - mean) / std
        out = F.conv2d(out, self.trunk["0.weight"], self.trunk["0.bias"], stride=2).relu()
        found = [out]
        for stage in _STAGES:
            for part in stage:
                out = F.max_pool2d(out, 3, 2, ceil_mode=True) if part == "pool" else self._fire(out, f"{part}")
            found.append(out)
        return found

    def _fire(self, x: Tensor, key: str) -> Tensor:
        """A fire module (Iandola et al., 2016): a 1 x 1 squeeze, then 1 x 1 and 3 x 3 convolutions side by side."""
        w = self.trunk
        squeezed = F.conv2d(x, w[f"{key}.squeeze.weight"], w[f"{key}.squeeze.bias"]).relu()
        narrow = F.conv2d(squeezed, w[f"{key}.expand1x1.weight"], w[f"{key}.expand1x1.bias"])
        wide = F.conv2d(squeezed, w[f"{key}.expand3x3.weight"], w[f"{key}.expand3x3.bias"], padding=1)
        return torch.cat([narrow, wide], 1).relu()


def load(folder: Path, device: torch.device | None = None) -> Lpips:
    """The network from `squeeze.backbone.pth` and `lin_v0.1_squeeze.pth` in `folder`.

    ArtifactError where one of them is missing, cannot be read or holds something else.
    """
    trunk, heads = _read(folder / TRUNK, device), _read(folder / HEADS, device)
    fires = [part for stage in _STAGES for part in stage if part != "pool"]
    convs = [f"{fire}.{conv}" for fire in fires for conv in ("squeeze", "expand1x1", "expand3x3")]
    kernels = {f"{conv}.{kind}" for conv in ("0", *convs) for kind in ("weight", "bias")}
    linear = [f"lin{i}.model.1.weight" for i in range(len(_STAGES) + 1)]
    for path, state, keys in ((folder / TRUNK, trunk, kernels), (folder / HEADS, heads, set(linear))):
        if missing := keys - set(state):
            raise ArtifactError(f"{path}: no {min(missing)!r} in it; the weights of LPIPS v0.1 with SqueezeNet 1.1")
    return Lpips(trunk, tuple(heads[key] for key in linear))


def _read(path: Path, device: torch.device | None) -> dict[str, Tensor]:
    try:
        state = torch.load(path, map_location=device or "cpu", weights_only=True)
    except (OSError, RuntimeError, EOFError, pickle.UnpicklingError, BadZipFile) as error:
        why = next(iter(str(error).splitlines()), type(error).__name__)
        raise ArtifactError(f"{path}: cannot be read ({why}); a folder with {TRUNK} and {HEADS}") from None
    if not isinstance(state, dict) or not all(isinstance(v, Tensor) for v in state.values()):
        raise ArtifactError(f"{path}: holds {type(state).__name__}; weights by name, as in {TRUNK} and {HEADS}")
    return {str(name): value.detach() for name, value in state.items()}


def _unit(features: Tensor) -> Tensor:
    """Features scaled to unit length over the channels, at every place."""
    return features / (features.square().sum(1, keepdim=True).sqrt() + 1e-10)
