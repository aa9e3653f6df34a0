"""Claim: MSPD as shipped arms CIFAR-10 pictures at least four times as fast as the plain published loop, at the same robust accuracy; and the floor.

The loop is the method read literally (`mspd_cost`): float32, batch norm as it is, one picture and one copy at a time. Shipped is `mcgs` on the fast
twin of the embedded backbone, in bf16 where the hardware has it and in float32, for batches of several sizes; `forearm protect` itself arms each
picture alone (batch 1), so that is the claim's number. Photos have 224 pixels and reach their backbone through its view of 128. All sides run in
turn within one process; a figure is the median over rounds of processor seconds a picture on a CPU (one thread; other work on the machine does not
count) and of wall seconds on a GPU.

The floor: the floating-point operations of the passes (two for each product of a convolution or linear layer, forward, and as many backward to the
picture), over the fastest large matrix product of the same type on the same machine. Nothing else is counted: no activation, no noise, no memory.

    python benchmarks/mspd_speed.py [--rounds 5] [--examples 60] [--batches 1,8,50,200] [--photo-batches 1,8]
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

import forearm
from claim import record
from forearm.core.gradients import Classifier
from forearm.core.noise import Noise
from forearm.core.precision import fast, native_bf16
from forearm.core.quantize import release
from forearm.core.threat import Threat
from forearm.core.view import View
from forearm.data import sets
from forearm.defenses.preemptive.mcgs import mcgs
from mspd_cost import plain, robust

COPIES, EPOCHS = 20, 2
TIMES = 4.0  # the bar


@dataclass(frozen=True)
class Setting:
    """Pictures of one kind, their labels, and how a model sees them. `operations`: of one forward pass of one picture."""

    name: str
    threat: Threat
    model: nn.Module
    x: Tensor
    y: Tensor
    batches: tuple[int, ...]
    operations: float

    @classmethod
    def load(cls, kind: str, batches: tuple[int, ...], device: torch.device) -> Setting:
        photos = kind == "photos"
        spec, threat = ("imagenette(side=224)", "linf:4/255") if photos else ("cifar10", "linf:8/255")
        model = forearm.load_model("photo_backbone" if photos else "backbone", device=device)
        x = sets.load(spec, "test", first=max(batches)).images.float().to(device) / 255
        with torch.no_grad():
            y = torch.cat([View.of(model, *part.shape[2:], model.size)(part).argmax(1) for part in x.split(50)])
        return cls(kind, Threat.parse(threat), model, x, y, batches, operations(View.of(model, *x.shape[2:], model.size), model, x[:1]))

    def seen(self, model: Classifier) -> Classifier:
        """`model` as it sees these pictures."""
        side = self.model.size
        return model if self.x.shape[2] == side else View.of(model, self.x.shape[2], self.x.shape[3], side)

    def shipped(self, twin: Classifier, n: int) -> Tensor:
        """The first `n` pictures, armed together."""
        x, view = self.x[:n], self.seen(twin)
        grid = view.size if isinstance(view, View) else None
        return release(mcgs(view, x, self.y[:n], threat=self.threat, noise=Noise.of(n), grid=grid), x, self.threat)

    def published(self) -> Tensor:
        """The first picture, by the plain loop."""
        return release(plain(self.seen(self.model), self.x[:1], self.y[:1], Noise.of(1)), self.x[:1], self.threat)


def operations(view: Classifier, model: nn.Module, x: Tensor) -> float:
    """Floating-point operations of the convolutions and linear layers in one forward pass of `x`."""
    total: list[float] = []

    def count(layer: nn.Module, _: Any, out: Tensor) -> None:
        weight = layer.get_parameter("weight")
        total.append(2.0 * out.numel() * weight[0].numel())

    hooks = [m.register_forward_hook(count) for m in model.modules() if isinstance(m, nn.Conv2d | nn.Linear)]
    with torch.no_grad():
        view(x)
    for hook in hooks:
        hook.remove()
    return sum(total)


def alone(device: torch.device) -> bool:
    """Whether processor seconds are the honest clock: a CPU, and one thread."""
    return device.type == "cpu" and torch.get_num_threads() == 1


def spent(do: Callable[[], object], device: torch.device) -> tuple[float, float]:
    """Seconds by the clock that counts (`alone`), and by the wall."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    began, processor = time.perf_counter(), time.process_time()
    do()
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    wall = time.perf_counter() - began
    return time.process_time() - processor if alone(device) else wall, wall


def peak(dtype: torch.dtype, device: torch.device, side: int) -> float:
    """The most floating-point operations a second of a matrix product of `side` x `side`, of eight."""
    a = torch.rand(side, side, device=device).to(dtype)
    return 2.0 * side**3 / min(spent(lambda: a @ a, device)[0] for _ in range(8))


def measure(setting: Setting, rounds: int, device: torch.device) -> dict[str, Any]:
    """Milliseconds a picture of the loop and of every type and batch size, in turn; ratios, floors and gaps."""
    types = {"bf16": True, "fp32": False} if native_bf16(device) else {"fp32": False}
    twins = {name: fast(setting.model, bf16=low) for name, low in types.items()}
    does: dict[tuple[str, int], Callable[[], object]] = {("plain", 1): setting.published}
    for name, twin in twins.items():
        does |= {(name, n): lambda twin=twin, n=n: setting.shipped(twin, n) for n in setting.batches}  # type: ignore[misc]
    for do in list(does.values())[:2]:
        do()
    took: dict[tuple[str, int], list[tuple[float, float]]] = {key: [] for key in does}
    for number in range(rounds):
        for (name, n), do in does.items():
            if n <= 8 or number == 0:  # one run of a large batch is long enough
                counted, wall = (1000.0 * seconds / n for seconds in spent(do, device))
                took[name, n].append((counted, wall))
                print(f"{setting.name:8} {name:6} batch {n:4} {counted:9.2f} ms a picture, {wall:9.2f} by the wall", flush=True)
    median, by_wall = ({key: sorted(v[k] for v in values)[len(values) // 2] for key, values in took.items()} for k in (0, 1))
    loop = median["plain", 1]
    matrix = 8192 if device.type == "cuda" else 2048
    rows: dict[str, Any] = {
        "plain": {"milliseconds": loop, "by the wall": by_wall["plain", 1]},
        "operations of a forward pass": setting.operations,
    }
    for name in twins:
        most = max(peak(torch.bfloat16 if name == "bf16" else torch.float32, device, matrix) for _ in range(3))
        floor = 1000.0 * 2.0 * setting.operations * COPIES * EPOCHS / most
        rows[name] = {"peak operations a second": most, "floor, milliseconds": floor, "batches": {}}
        for n in setting.batches:
            rows[name]["batches"][n] = {
                "milliseconds": median[name, n],
                "by the wall": by_wall[name, n],
                "times as fast as the loop": loop / median[name, n],
                "times the floor": median[name, n] / floor,
            }
    return rows


def same_robustness(setting: Setting, n: int) -> dict[str, float]:
    """PGD-20 accuracy of the backbone on both sides' releases of the first `n` pictures, in percent, and the share of equal pixels."""
    y, twin, x = sets.load("cifar10", "test", first=n).labels.to(setting.x.device), fast(setting.model), setting.x
    ours, loop = [], []
    for i in range(n):
        part, label, noise = x[i : i + 1], setting.y[i : i + 1], torch.tensor([i])
        loop.append(release(plain(setting.model, part, label, Noise(0, noise)), part, setting.threat))
        ours.append(release(mcgs(twin, part, label, threat=setting.threat, noise=Noise(0, noise)), part, setting.threat))
    both = torch.cat(loop), torch.cat(ours)
    equal = float((both[0] == both[1]).float().mean())
    return {"plain": robust(setting.model, both[0], y), "shipped": robust(setting.model, both[1], y), "same pixels": equal}


def main() -> None:
    parser = argparse.ArgumentParser(
        description="Milliseconds a picture of MSPD against batch size, the published loop and the arithmetic floor."
    )
    parser.add_argument("--rounds", type=int, default=5, help="measurements of each, in turn")
    parser.add_argument("--examples", type=int, default=60, help="pictures whose robust accuracy is compared")
    parser.add_argument("--batches", default="1,8,50,200", help="batch sizes of CIFAR-10 pictures")
    parser.add_argument("--photo-batches", default="1,8", help="batch sizes of photos; empty: none")
    given = parser.parse_args()
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    wanted = {"cifar10": given.batches, "photos": given.photo_batches}
    sizes = {name: tuple(int(n) for n in text.split(",")) for name, text in wanted.items() if text}
    settings = {name: Setting.load(name, batches, device) for name, batches in sizes.items()}
    rows = {name: measure(setting, given.rounds, device) for name, setting in settings.items()}
    accuracy = same_robustness(settings["cifar10"], min(given.examples, len(settings["cifar10"].x)))
    kind = "bf16" if "bf16" in rows["cifar10"] else "fp32"
    record(
        "mspd_speed",
        f"MSPD as shipped arms single CIFAR-10 pictures at least {TIMES:g} times as fast as the plain published loop, with robust accuracy within half a point",
        rows["cifar10"][kind]["batches"][min(sizes["cifar10"])]["times as fast as the loop"],
        f"times as fast as the published loop (CIFAR-10, {kind}, batch {min(sizes['cifar10'])})",
        n=given.rounds,
        at_least=TIMES,
        holds=abs(accuracy["plain"] - accuracy["shipped"]) <= 0.5,
        details={"clock": "processor" if alone(device) else "wall", "robust percent": accuracy, **rows},
    )


if __name__ == "__main__":
    main()
