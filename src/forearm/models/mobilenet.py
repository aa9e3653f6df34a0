"""MobileNetV2 (Sandler et al., CVPR 2018), without batch norm (folded into biases) and with TensorFlow's SAME padding.

This is the form in which quantised weights are published; dequantised they run in floating point and have gradients.
"""

from __future__ import annotations

import json
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from forearm.errors import ArtifactError, SpecError
from forearm.models.blocks import Normalize, same_conv

# Table 2 of the paper: expansion, output channels, repeats, stride of the first.
ROWS = ((1, 16, 1, 1), (6, 24, 2, 2), (6, 32, 3, 2), (6, 64, 4, 2), (6, 96, 3, 1), (6, 160, 3, 2), (6, 320, 1, 1))
HALF = (0.5, 0.5, 0.5)  # 2 x - 1


class Inverted(nn.Module):
    """1 x 1 expansion, 3 x 3 per channel, linear 1 x 1 projection; added to x where the shape is kept."""

    def __init__(self, inner: int, outer: int, expansion: int, stride: int) -> None:
        super().__init__()
        middle = inner * expansion
        self.expand = None if expansion == 1 else same_conv(inner, middle, 1)
        self.depthwise = same_conv(middle, middle, 3, stride, groups=middle)
        self.project = same_conv(middle, outer, 1)
        self.added = stride == 1 and inner == outer

    def forward(self, x: Tensor) -> Tensor:
        out = x if self.expand is None else F.relu6(self.expand(x))
        out = self.project(F.relu6(self.depthwise(out)))
        total: Tensor = x + out if self.added else out
        return total


class MobileNetV2(nn.Module):
    """RGB in [0, 1] `n 3 h w` (made for 224 x 224) -> logits, all of them or the columns `among`."""

    columns: Tensor

    def __init__(self, outputs: int, among: tuple[int, ...] = ()) -> None:
        super().__init__()
        self.normalize = Normalize(HALF, HALF)
        self.stem = same_conv(3, 32, 3, 2)
        blocks, inner = [], 32
        for expansion, outer, repeats, stride in ROWS:
            for i in range(repeats):
                blocks.append(Inverted(inner, outer, expansion, stride if i == 0 else 1))
                inner = outer
        self.blocks = nn.Sequential(*blocks)
        self.head = same_conv(inner, 1280, 1)
        self.classifier = same_conv(1280, outputs, 1)
        self.register_buffer("columns", torch.tensor(among or range(outputs)), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        out = F.relu6(self.head(self.blocks(F.relu6(self.stem(self.normalize(x))))))
        logits: Tensor = self.classifier(F.adaptive_avg_pool2d(out, 1)).flatten(1)
        return logits.index_select(1, self.columns)

    def convolutions(self) -> list[tuple[str, nn.Conv2d]]:
        """Every convolution by name, in the order in which it is applied."""
        return [(name, m) for name, m in self.named_modules() if isinstance(m, nn.Conv2d)]


def mobilenet_v2(classes: int = 1000, among: tuple[int, ...] = (), outputs: int = 1000) -> MobileNetV2:
    """MobileNetV2 1.0 with `classes` logits; with `among`, these columns of a network of `outputs`."""
    if not among:
        return MobileNetV2(classes)
    if len(among) != classes or not all(0 <= column < outputs for column in among):
        raise SpecError(f"mobilenet_v2: got {len(among)} columns; classes={classes} of them, each from 0 to {outputs - 1}")
    return MobileNetV2(outputs, among)


def dequantise(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Floating-point weights from a quantised file: (q - zero) scale per output channel, without class 0 (background).

    The file's list of operations must be this architecture's; ArtifactError otherwise.
    """
    try:
        ops = json.loads(bytes(state["meta_json"].to(torch.uint8).tolist()))["ops"]
        layers = [op for op in ops if op["op"] == "conv"]
        with torch.device("meta"):
            convolutions = MobileNetV2(1000).convolutions()
        if [_shape(op) for op in layers] != [(m.stride[0], m.groups) for _, m in convolutions]:
            raise ArtifactError("mobilenet_v2: the file lists other operations; the 53 convolutions of MobileNetV2 1.0")
        out: dict[str, Tensor] = {}
        for op, (name, _) in zip(layers, convolutions, strict=True):
            first = 1 if name == "classifier" else 0
            q, zero, scale = (state[f"{op['layer']}.{part}"].float() for part in ("q", "zero", "scale"))
            out[f"{name}.weight"] = ((q - zero.reshape(-1, 1, 1, 1)) * scale.reshape(-1, 1, 1, 1))[first:]
            out[f"{name}.bias"] = state[f"{op['layer']}.bias"].float()[first:]
    except (KeyError, ValueError, TypeError) as error:
        raise ArtifactError(f"mobilenet_v2: no quantised MobileNetV2 ({error!r}); an .npz of L00.q ... L52.bias and meta_json") from None
    return out


def _shape(op: dict[str, Any]) -> tuple[int, int]:
    return int(op["stride"]), int(op["groups"])
