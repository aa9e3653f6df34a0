"""The training loop. It knows no loss and no attack; a recipe (`Step`) knows no optimizer."""

from __future__ import annotations

import csv
import math
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from forearm.data.batches import Batch, Shuffled
from forearm.errors import ArtifactError

Step = Callable[[nn.Module, Batch], dict[str, Tensor]]  # must hold "loss"; the other entries are logged
Report = Callable[[dict[str, float]], None]


@dataclass(frozen=True, slots=True)
class Plan:
    """What the optimizer does: SGD with Nesterov momentum under a one-cycle rate (Smith, 2018)."""

    epochs: int = 20
    rate: float = 0.2
    momentum: float = 0.9
    weight_decay: float = 5e-4
    warm: float = 0.25  # share of the run in which the rate rises
    average: float = 0.998  # decay of the exponential moving average of the weights, per step
    bf16: bool = True


def one_cycle(progress: float, warm: float) -> float:
    """The rate at `progress` in [0, 1] as a share of its peak: linear up, then half a cosine down to 0."""
    if progress < warm:
        return max(progress / warm, 0.02)
    return 0.5 * (1.0 + math.cos(math.pi * (progress - warm) / (1.0 - warm)))


def fit(
    model: nn.Module,
    step: Step,
    batches: Shuffled,
    plan: Plan,
    *,
    folder: Path,
    report: Report = lambda _: None,
    stop_after: int | None = None,
) -> nn.Module:
    """Train `model` in place, on the device where it is, and return the averaged copy, in eval mode.

    After every epoch `folder/checkpoint.pt` (model, average, optimizer, epoch, plan) replaces the last one atomically and a line is added to
    `folder/log.csv`; a run that finds a checkpoint goes on from there, to the same weights as an undisturbed one. `stop_after` ends the run after
    that epoch and leaves it resumable.
    """
    folder.mkdir(parents=True, exist_ok=True)
    model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    device = next(model.parameters()).device
    mean = get_ema_multi_avg_fn(plan.average)  # type: ignore[no-untyped-call]
    average = AveragedModel(model, multi_avg_fn=mean, use_buffers=True)
    optimizer = torch.optim.SGD(_groups(model, plan), lr=plan.rate, momentum=plan.momentum, nesterov=True)
    first = _resume(folder / "checkpoint.pt", model, average, optimizer, plan)
    total = plan.epochs * len(batches)
    for epoch in range(first, plan.epochs if stop_after is None else min(stop_after, plan.epochs)):
        began, sums = time.monotonic(), dict[str, float]()
        model.train()
        for i, batch in enumerate(batches.epoch(epoch)):
            share = one_cycle((epoch * len(batches) + i + 1) / total, plan.warm)
            for group in optimizer.param_groups:
                group["lr"] = plan.rate * share
            batch = batch.to(device)
            with torch.autocast(device.type, torch.bfloat16, enabled=plan.bf16):
                values = step(model, batch)
            optimizer.zero_grad(set_to_none=True)
            values["loss"].backward()  # type: ignore[no-untyped-call]
            optimizer.step()
            average.update_parameters(model)
            for name, value in values.items():
                sums[name] = sums.get(name, 0.0) + float(value.detach())
        row = {"epoch": float(epoch + 1), "seconds": time.monotonic() - began}
        row |= {name: value / len(batches) for name, value in sums.items()}
        if not math.isfinite(row["loss"]):
            raise ArtifactError(f"{folder}: the loss is {row['loss']} in epoch {epoch + 1}; a lower rate, for example {plan.rate / 4:g}")
        _save(folder / "checkpoint.pt", model, average, optimizer, epoch + 1, plan)
        _log(folder / "log.csv", row)
        report(row)
    return average.module.eval()


def _groups(model: nn.Module, plan: Plan) -> list[dict[str, object]]:
    """Weight decay for matrices and kernels, none for biases and batch norm."""
    decayed = [p for p in model.parameters() if p.ndim > 1]
    plain = [p for p in model.parameters() if p.ndim <= 1]
    return [{"params": decayed, "weight_decay": plan.weight_decay}, {"params": plain, "weight_decay": 0.0}]


def _save(path: Path, model: nn.Module, average: nn.Module, optimizer: torch.optim.Optimizer, epoch: int, plan: Plan) -> None:
    state = {
        "model": model.state_dict(),
        "average": average.state_dict(),
        "optimizer": optimizer.state_dict(),
        "epoch": epoch,
        "plan": asdict(plan),
    }
    half = path.with_suffix(".part")
    torch.save(state, half)
    half.replace(path)


def _resume(path: Path, model: nn.Module, average: nn.Module, optimizer: torch.optim.Optimizer, plan: Plan) -> int:
    """The number of epochs that `path` has done already; 0 where there is none."""
    if not path.is_file():
        return 0
    state = torch.load(path, weights_only=True, map_location=next(model.parameters()).device)
    if state["plan"] != asdict(plan):
        raise ArtifactError(f"{path}: made under another plan ({state['plan']}); the same plan, or another folder")
    try:
        model.load_state_dict(state["model"])
    except RuntimeError as error:
        cause = str(error).splitlines()[0]
        raise ArtifactError(f"{path}: made for another network ({cause}); the same network, or another folder") from None
    average.load_state_dict(state["average"])
    optimizer.load_state_dict(state["optimizer"])
    return int(state["epoch"])


def _log(path: Path, row: dict[str, float]) -> None:
    """One line an epoch: step, wall time and scalars, as TensorBoard's CSV export has them. A resumed epoch replaces its old line."""
    rows = []
    if path.is_file():
        with path.open(newline="") as file:
            rows = [old for old in csv.DictReader(file) if float(old["epoch"]) < row["epoch"]]
    half = path.with_suffix(".part")
    with half.open("w", newline="") as file:
        writer = csv.DictWriter(file, fieldnames=list(row))
        writer.writeheader()
        writer.writerows([*rows, {name: f"{value:.6g}" for name, value in row.items()}])
    half.replace(path)
