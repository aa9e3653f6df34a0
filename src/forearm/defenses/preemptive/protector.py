"""What a preemptive defence is: a function from pictures and labels to hardened pictures, and the table of them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:  # the command line completes names from this table, and torch takes a second
    from torch import Tensor

    from forearm.core.gradients import Classifier
    from forearm.core.noise import Noise
    from forearm.core.threat import Threat


class Protector(Protocol):
    """Hyper-parameters are keyword-only with defaults; the result lies within `threat` of `x`, in [0, 1], not yet rounded."""

    def __call__(self, model: Classifier, x: Tensor, y: Tensor, *, threat: Threat, noise: Noise) -> Tensor: ...


PREEMPTIVE: dict[str, str] = {
    "none": "forearm.defenses.preemptive.single_step:none",
    "s_fgsm": "forearm.defenses.preemptive.single_step:s_fgsm",
    "s_pgd": "forearm.defenses.preemptive.single_step:s_pgd",
    "fast_preemption": "forearm.defenses.preemptive.mcgs:fast_preemption",
    "mspd": "forearm.defenses.preemptive.mcgs:mcgs",
    "bilevel": "forearm.defenses.preemptive.bilevel:bilevel",
    "ensemble": "forearm.defenses.preemptive.ensemble:ensemble",
    "instant": "forearm.defenses.preemptive.instant:instant",
    "looks": "forearm.defenses.preemptive.looks:looks",
    "polish": "forearm.defenses.preemptive.polish:polish",
}
DEFAULT = "ensemble"  # what pictures are armed with where no defence is named: the best release that the project measured
SEVERAL = ("ensemble",)  # those that take the gradients of several backbones where none is named
