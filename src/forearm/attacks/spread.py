"""One attack on several cores: groups of pictures side by side, a thread each, where one call would wait for its small operations."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import torch
from torch import Tensor

from forearm.core.gradients import Classifier
from forearm.core.noise import Noise
from forearm.core.threat import Threat


def spread(attack: Callable[..., Tensor], workers: int) -> Callable[..., Tensor]:
    """`attack` (its options bound) with the pictures dealt out to `workers` threads of one core each; the same contract and result.

    An example's noise is its own, so what is found for it differs from the undivided call by the rounding of another batch
    size alone. On two cores an attack of many small steps (APGD, FAB, Square) takes about .7 of the time that it takes
    when both cores share each operation. The model is called from all threads at once: it must not write to itself (in
    eval mode the project's do not) nor draw from the global generator. Cost: the attack's own.
    """

    def spread_out(model: Classifier, x: Tensor, y: Tensor, *, threat: Threat, noise: Noise) -> Tensor:
        groups = [torch.arange(first, len(x), workers, device=x.device) for first in range(min(workers, len(x)))]
        if len(groups) < 2:
            return attack(model, x, y, threat=threat, noise=noise)

        def work(here: Tensor) -> Tensor:
            torch.set_num_threads(1)  # of this thread
            return attack(model, x[here], y[here], threat=threat, noise=noise.at(here))

        threads = torch.get_num_threads()
        try:
            with ThreadPoolExecutor(len(groups)) as pool:
                found = list(pool.map(work, groups))
        finally:
            torch.set_num_threads(threads)  # some libraries below keep one number for all threads
        x_adv = torch.empty_like(x)
        for here, part in zip(groups, found, strict=True):
            x_adv[here] = part
        return x_adv

    return spread_out
