"""Training on several processes at once (`torchrun`): each takes its part of every batch, and all keep the same weights."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, cast

import torch
import torch.distributed as dist
from torch import Tensor, nn

from forearm.data.batches import Batch
from forearm.errors import SpecError

PATIENCE = timedelta(hours=12)  # the others wait while the first process attacks a whole data set


@dataclass(frozen=True, slots=True)
class Processes:
    """This process among `count` that train together; `rank` 0 alone writes files. `ALONE` is the usual case, in which nothing is exchanged."""

    rank: int = 0
    count: int = 1

    @property
    def first(self) -> bool:
        """Whether this process writes."""
        return self.rank == 0

    def part(self, batch: Batch) -> Batch:
        """Every `count`-th picture of a batch, from `rank` on. SpecError where the parts would not be equally large: their means would not be the batch's."""
        if self.count == 1:
            return batch
        if len(batch.y) % self.count:
            raise SpecError(
                f"torchrun: got a batch of {len(batch.y)} for {self.count} processes; a multiple, for example {64 * self.count}"
            )
        here = slice(self.rank, None, self.count)
        return Batch(batch.x[here], batch.y[here], batch.ids[here])

    def mean(self, values: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        """The means over all processes of tensors that each of them has, in one exchange; differentiable, once."""
        if self.count == 1:
            return values
        flat: Tensor = cast(Any, _Mean).apply(torch.cat([value.reshape(-1) for value in values]), self.count)
        parts = torch.split(flat, [value.numel() for value in values])
        return tuple(part.reshape(value.shape) for part, value in zip(parts, values, strict=True))

    def average(self, model: nn.Module) -> None:
        """Gradients and the running statistics of `model` become their means over all processes."""
        if self.count == 1:
            return
        grads = [p.grad for p in model.parameters() if p.grad is not None]
        held = grads + [b for b in model.buffers() if b.is_floating_point()]
        with torch.no_grad():
            for value, mean in zip(held, self.mean(tuple(held)), strict=True):
                value.copy_(mean)

    def wait(self) -> None:
        """Until every process is here."""
        if self.count > 1:
            dist.barrier()


ALONE = Processes()


class _Mean(torch.autograd.Function):
    """The mean over the processes. Each one's result depends on every one's values, so the gradient is the mean of all their gradients."""

    @staticmethod
    def forward(ctx: Any, values: Tensor, count: int) -> Tensor:
        ctx.count = count
        return _mean(values, count)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        return _mean(gradient, ctx.count), None


def _mean(values: Tensor, count: int) -> Tensor:
    total = values.detach().clone(memory_format=torch.contiguous_format)
    dist.all_reduce(total)
    return total / count


@contextmanager
def processes(device: str = "cpu") -> Iterator[Processes]:
    """The processes that `torchrun` started (it sets WORLD_SIZE and RANK), joined by gloo or, on GPUs, NCCL; `ALONE` without it."""
    count = int(os.environ.get("WORLD_SIZE", "1"))
    if count == 1:
        yield ALONE
        return
    if device.startswith("cuda"):
        torch.cuda.set_device(int(os.environ["LOCAL_RANK"]))
    dist.init_process_group("nccl" if device.startswith("cuda") else "gloo", timeout=PATIENCE)
    try:
        yield Processes(dist.get_rank(), count)
    finally:
        dist.destroy_process_group()
