"""One attack on several cores: groups of pictures side by side, a core each, where one call would wait for its small operations."""

from __future__ import annotations

import multiprocessing
import sys
import warnings
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from functools import partial
from typing import Any

import torch
from numpy.typing import NDArray
from torch import Tensor

from forearm.core.gradients import Classifier
from forearm.core.noise import Noise
from forearm.core.threat import Threat

Work = Callable[[Tensor], Tensor]  # positions -> what was found for them


def spread(attack: Callable[..., Tensor], workers: int) -> Callable[..., Tensor]:
    """`attack` (its options bound) with the pictures dealt out to `workers` groups of one core each; the same contract and result.

    An example's noise is its own, so what is found for it differs from the undivided call by the rounding of another batch
    size alone. On Linux without an accelerator the groups are forked processes, so whatever the model writes to itself
    (counters, hooks) stays there; elsewhere they are threads, which call the model all at once: there it must not write to
    itself. It pays for attacks of many small steps (APGD, FAB, Square), as processes more than as threads, which wait for the
    interpreter's lock. Errors are the attack's own. Cost: the attack's own.
    """

    def spread_out(model: Classifier, x: Tensor, y: Tensor, *, threat: Threat, noise: Noise) -> Tensor:
        groups = [torch.arange(first, len(x), workers, device=x.device) for first in range(min(workers, len(x)))]
        if len(groups) < 2:
            return attack(model, x, y, threat=threat, noise=noise)

        def work(here: Tensor) -> Tensor:
            torch.set_num_threads(1)  # of this thread
            return attack(model, x[here], y[here], threat=threat, noise=noise.at(here))

        found = (_in_processes if _can_fork(x.device) else _in_threads)(work, groups)
        x_adv = torch.empty_like(x)
        for here, part in zip(groups, found, strict=True):
            x_adv[here] = part
        return x_adv

    return spread_out


def _can_fork(device: torch.device) -> bool:
    """Whether children can go on with what is in memory here: not with an accelerator's context, nor from a daemon."""
    free = device.type == "cpu" and not torch.accelerator.is_available()
    return free and sys.platform == "linux" and not multiprocessing.current_process().daemon


def _in_processes(work: Work, groups: Sequence[Tensor]) -> list[Tensor]:
    """Each group in a child that inherits the model: nothing but positions and points is pickled."""
    context = multiprocessing.get_context("fork")
    begin = partial(setattr, _Inherited, "work", staticmethod(work))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # of a fork beside threads: those of an idle pool hold no lock
        with ProcessPoolExecutor(len(groups), context, initializer=begin) as pool:
            return [torch.from_numpy(part) for part in pool.map(_inherited, [here.numpy() for here in groups])]


class _Inherited:
    """What a forked child was begun for."""

    work: Work


def _inherited(here: NDArray[Any]) -> NDArray[Any]:
    found: NDArray[Any] = _Inherited.work(torch.from_numpy(here)).numpy()
    return found


def _in_threads(work: Work, groups: Sequence[Tensor]) -> list[Tensor]:
    threads = torch.get_num_threads()
    try:
        with ThreadPoolExecutor(len(groups)) as pool:
            return list(pool.map(work, groups))
    finally:
        torch.set_num_threads(threads)  # some libraries below keep one number for all threads
