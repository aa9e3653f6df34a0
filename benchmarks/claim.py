"""What every benchmark writes: `benchmarks/results/NAME.json`, one claim with its value, interval, bar and whether it holds."""

from __future__ import annotations

import importlib.metadata
import json
import os
import platform
import subprocess
import sys
from pathlib import Path
from typing import Any

import torch

RESULTS = Path(__file__).parent / "results"


def machine() -> dict[str, Any]:
    """The processor, cores, memory and accelerator."""
    info = Path("/proc/cpuinfo")
    models = (
        [line.partition(":")[2].strip() for line in info.read_text().splitlines() if line.startswith("model name")]
        if info.is_file()
        else []
    )
    return {
        "cpu": models[0] if models else platform.processor(),
        "cores": os.cpu_count(),
        "memory_gib": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30),
        "accelerator": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
        "threads": torch.get_num_threads(),
        "load_at_end": os.getloadavg()[0],
    }


def commit() -> str:
    """The commit that was measured; a tree with changes says so."""
    try:
        head = subprocess.run(
            ["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True, check=True, cwd=RESULTS
        ).stdout.strip()
        dirty = subprocess.run(
            ["git", "status", "--porcelain", "../../src"], capture_output=True, text=True, check=True, cwd=RESULTS
        ).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return "unknown"
    return f"{head}, with changes" if dirty else head


def record(
    name: str,
    claim: str,
    value: float,
    unit: str,
    *,
    n: int,
    details: dict[str, Any],
    interval: tuple[float, float] | None = None,
    at_least: float | None = None,
    at_most: float | None = None,
    holds: bool | None = None,
) -> None:
    """Write one claim. `holds` follows from the bar unless the claim has several conditions and says so itself."""
    met = (at_least is None or value >= at_least) and (at_most is None or value <= at_most)
    result = {
        "claim": claim,
        "value": value,
        "unit": unit,
        "interval": interval,
        "n": n,
        "at_least": at_least,
        "at_most": at_most,
        "holds": met if holds is None else met and holds,
        "details": details,
        "command": " ".join(["python", f"benchmarks/{name}.py", *sys.argv[1:]]),
        "machine": machine(),
        "versions": {package: importlib.metadata.version(package) for package in ("forearm", "torch", "numpy", "pillow")}
        | {"python": platform.python_version()},
        "commit": commit(),
    }
    RESULTS.mkdir(exist_ok=True)
    (RESULTS / f"{name}.json").write_text(json.dumps(result, indent=1) + "\n")
    print(f"{name}: {value:.4g} {unit} (holds: {result['holds']})")
