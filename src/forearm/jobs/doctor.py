"""What `forearm doctor` does: versions, devices, weights, and what would be slow on this machine and why."""

from __future__ import annotations

import importlib.metadata
import os
import platform
from collections.abc import Iterator
from dataclasses import dataclass

import torch

import forearm
from forearm.core.precision import native_bf16
from forearm.errors import ForearmError
from forearm.models.load import embedded, load_model

NEEDED = ("torch", "numpy", "pillow", "safetensors", "typer", "pydantic", "polars")
EXTRAS = {"matplotlib": "report", "fastapi": "service", "timm": "zoo", "s3fs": "cloud", "ray": "ray", "scikit-image": "demo"}


@dataclass(frozen=True, slots=True)
class Finding:
    """One line of the doctor's sheet; `state` is "ok", "slow" (works, with the reason in `note`) or "broken"."""

    what: str
    value: str
    state: str = "ok"
    note: str = ""


def examine() -> Iterator[Finding]:
    """Every finding, in the order of the sheet. Cost: each embedded model is loaded and given one picture."""
    yield Finding("forearm", forearm.__version__)
    yield Finding("python", platform.python_version())
    for name in NEEDED:
        yield Finding(name, importlib.metadata.version(name))
    for name, extra in EXTRAS.items():
        try:
            yield Finding(name, importlib.metadata.version(name))
        except importlib.metadata.PackageNotFoundError:
            yield Finding(name, "absent", note=f"optional: pip install 'forearm[{extra}]'")
    yield _cpu()
    yield _gpu()
    yield from _weights()


def _cpu() -> Finding:
    cores, threads = os.cpu_count() or 1, torch.get_num_threads()
    value = f"{cores} cores, torch uses {threads}"
    if not native_bf16(torch.device("cpu")):
        return Finding("cpu", value, "slow", "no bf16 in hardware: gradients are taken in float32, about half as fast")
    if threads < cores:
        return Finding("cpu", value, "slow", "OMP_NUM_THREADS or a CPU limit keeps torch from using all cores")
    return Finding("cpu", f"{value}, bf16 in hardware")


def _gpu() -> Finding:
    if torch.cuda.is_available():
        return Finding("cuda", torch.cuda.get_device_name())
    return Finding("cuda", "none", "slow", "a photo takes about a second a megapixel on the CPU; training takes hours")


def _weights() -> Iterator[Finding]:
    for name in embedded():
        try:
            model = load_model(name)
            with torch.inference_mode():
                logits = model(torch.zeros(1, 3, model.card.size, model.card.size))
            good = bool(logits.isfinite().all())
            yield Finding(name, model.card.sha256[:12], "ok" if good else "broken", "" if good else "its logits are not numbers")
        except ForearmError as error:
            yield Finding(name, "unusable", "broken", str(error))
