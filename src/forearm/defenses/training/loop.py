"""The training loop. It knows no loss and no attack; a recipe (`Step`) knows no optimizer."""

from __future__ import annotations

import csv
import math
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from forearm.data.batches import Batch, Shuffled
from forearm.defenses.training.processes import ALONE, Processes
from forearm.errors import ArtifactError, SpecError
from forearm.registry import bind, parse

Step = Callable[[nn.Module, Batch], dict[str, Tensor]]  # must hold "loss"; the other entries are logged
Report = Callable[[dict[str, float]], None]


@dataclass(frozen=True, slots=True)
class Plan:
    """What the optimizer does: unless it says otherwise, SGD with Nesterov momentum under a one-cycle rate (Smith, 2018)."""

    epochs: int = 20
    rate: float = 0.2
    momentum: float = 0.9
    weight_decay: float = 5e-4
    warm: float = 0.25  # share of the run in which the rate rises
    average: float = 0.998  # decay of the exponential moving average of the weights, per step
    bf16: bool = True
    optimizer: str = "sgd"  # of OPTIMIZERS
    schedule: str = "one_cycle"  # of SCHEDULES, in call syntax: "step(every=70)"
    backbone: float = 1.0  # rate of all that is not below the module `head`, as a share of `rate`


YOUNGER = ("optimizer", "schedule", "backbone")  # than checkpoints that must go on: written only where they say something
OPTIMIZERS: dict[str, Callable[[list[dict[str, Any]], Plan], torch.optim.Optimizer]] = {
    "sgd": lambda groups, plan: torch.optim.SGD(groups, lr=plan.rate, momentum=plan.momentum, nesterov=True),
    "adamw": lambda groups, plan: torch.optim.AdamW(groups, lr=plan.rate),
    "adamax": lambda groups, plan: torch.optim.Adamax(groups, lr=plan.rate),
}
SCHEDULES: dict[str, str] = {"one_cycle": "forearm.defenses.training.loop:one_cycle", "step": "forearm.defenses.training.loop:step_down"}


def one_cycle(progress: float, warm: float) -> float:
    """The rate at `progress` in [0, 1] as a share of its peak: linear up, then half a cosine down to 0."""
    if progress < warm:
        return max(progress / warm, 0.02)
    return 0.5 * (1.0 + math.cos(math.pi * (progress - warm) / (1.0 - warm)))


def step_down(epoch: int, every: int = 70, factor: float = 0.5) -> float:
    """The rate in `epoch` (from 0) as a share of the first: multiplied by `factor` after every `every` epochs (StepLR)."""
    return factor ** (epoch // every)


def rate_share(plan: Plan, epoch: int, done: int, total: int) -> float:
    """The rate as a share of `plan.rate` in `epoch`, at the step `done` of `total`, by the plan's schedule."""
    schedule = bind(SCHEDULES, plan.schedule)
    return float(schedule(done / total, plan.warm) if parse(plan.schedule)[0] == "one_cycle" else schedule(epoch))


def fit(
    model: nn.Module,
    step: Step,
    batches: Shuffled,
    plan: Plan,
    *,
    folder: Path,
    report: Report = lambda _: None,
    stop_after: int | None = None,
    among: Processes = ALONE,
) -> nn.Module:
    """Train `model` in place, on the device where it is, and return the averaged copy, in eval mode.

    After every epoch `folder/checkpoint.pt` (model, average, optimizer, epoch, plan) replaces the last one atomically and a line is added to
    `folder/log.csv`; a run that finds a checkpoint goes on from there, to the same weights as an undisturbed one. `stop_after` ends the run after
    that epoch and leaves it resumable. `among`: the processes that do this together, each with the same batches, of which its step takes a part: gradients
    and running statistics are their means, and the first process alone writes and reports.
    """
    folder.mkdir(parents=True, exist_ok=True)
    model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    device = next(model.parameters()).device
    mean = get_ema_multi_avg_fn(plan.average)  # type: ignore[no-untyped-call]
    average = AveragedModel(model, multi_avg_fn=mean, use_buffers=True)
    if plan.optimizer not in OPTIMIZERS:
        raise SpecError(f"optimizer: got {plan.optimizer!r}; one of {', '.join(OPTIMIZERS)}, for example 'sgd'")
    optimizer = OPTIMIZERS[plan.optimizer](_groups(model, plan), plan)
    first = _resume(folder / "checkpoint.pt", model, average, optimizer, plan)
    total = plan.epochs * len(batches)
    for epoch in range(first, plan.epochs if stop_after is None else min(stop_after, plan.epochs)):
        began, sums = time.monotonic(), dict[str, float]()
        model.train()
        for i, batch in enumerate(batches.epoch(epoch)):
            share = rate_share(plan, epoch, epoch * len(batches) + i + 1, total)
            for group in optimizer.param_groups:
                group["lr"] = plan.rate * share * group.get("share", 1.0)
            batch = batch.to(device)
            with torch.autocast(device.type, torch.bfloat16, enabled=plan.bf16):
                values = step(model, batch)
            optimizer.zero_grad(set_to_none=True)
            values["loss"].backward()  # type: ignore[no-untyped-call]
            among.average(model)
            optimizer.step()
            average.update_parameters(model)
            for name, value in values.items():
                sums[name] = sums.get(name, 0.0) + float(value.detach())
        row = {"epoch": float(epoch + 1), "seconds": time.monotonic() - began}
        (means,) = among.mean((torch.tensor(list(sums.values()), dtype=torch.float64, device=device) / len(batches),))
        row |= dict(zip(sums, means.tolist(), strict=True))
        if not math.isfinite(row["loss"]):
            raise ArtifactError(f"{folder}: the loss is {row['loss']} in epoch {epoch + 1}; a lower rate, for example {plan.rate / 4:g}")
        if among.first:
            _save(folder / "checkpoint.pt", model, average, optimizer, epoch + 1, plan)
            _log(folder / "log.csv", row)
            report(row)
    return average.module.eval()


def _groups(model: nn.Module, plan: Plan) -> list[dict[str, Any]]:
    """Weight decay for matrices and kernels, none for biases and norms; with a rate of its own for the backbone, the same twice."""
    if plan.backbone == 1.0:
        return _by_decay(list(model.parameters()), plan)
    head = [p for name, p in model.named_parameters() if name.startswith("head.")]
    trunk = [p for name, p in model.named_parameters() if not name.startswith("head.")]
    if not head or not trunk:
        raise SpecError(f"backbone: got {plan.backbone:g} for a network without a part named head; 1, or a ConvNeXt")
    return _by_decay(head, plan) + [group | {"share": plan.backbone} for group in _by_decay(trunk, plan)]


def _by_decay(parameters: list[nn.Parameter], plan: Plan) -> list[dict[str, Any]]:
    decayed = [p for p in parameters if p.ndim > 1]
    plain = [p for p in parameters if p.ndim <= 1]
    return [{"params": decayed, "weight_decay": plan.weight_decay}, {"params": plain, "weight_decay": 0.0}]


def _said(plan: Plan) -> dict[str, Any]:
    """The plan as a checkpoint holds it."""
    usual = asdict(Plan())
    return {name: value for name, value in asdict(plan).items() if name not in YOUNGER or value != usual[name]}


def _save(path: Path, model: nn.Module, average: nn.Module, optimizer: torch.optim.Optimizer, epoch: int, plan: Plan) -> None:
    state = {
        "model": model.state_dict(),
        "average": average.state_dict(),
        "optimizer": optimizer.state_dict(),
        "epoch": epoch,
        "plan": _said(plan),
    }
    half = path.with_suffix(".part")
    torch.save(state, half)
    half.replace(path)


def _resume(path: Path, model: nn.Module, average: nn.Module, optimizer: torch.optim.Optimizer, plan: Plan) -> int:
    """The number of epochs that `path` has done already; 0 where there is none."""
    if not path.is_file():
        return 0
    state = torch.load(path, weights_only=True, map_location=next(model.parameters()).device)
    if state["plan"] != _said(plan):
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
