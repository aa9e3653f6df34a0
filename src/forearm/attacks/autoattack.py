"""AutoAttack:

parameter-free attacks one after another, each on what the ones before left (Croce and Hein, ICML 2020).
"""

from __future__ import annotations

from torch import Tensor

from forearm.attacks.apgd import apgd, apgd_dlr, apgd_t
from forearm.attacks.best import Best
from forearm.attacks.fab import fab, fab_t
from forearm.attacks.gradient import margins
from forearm.attacks.square import square
from forearm.core.gradients import Classifier
from forearm.core.noise import Noise
from forearm.core.threat import Threat
from forearm.errors import SpecError

VERSIONS: dict[str, tuple[str, ...]] = {
    "standard": ("apgd", "apgd_t", "fab_t", "square"),
    "plus": ("apgd", "apgd_dlr", "fab", "square", "apgd_t", "fab_t"),
    "rand": ("apgd", "apgd_dlr"),
}


def autoattack(
    model: Classifier,
    x: Tensor,
    y: Tensor,
    *,
    threat: Threat,
    noise: Noise,
    version: str = "standard",
    steps: int = 100,
    queries: int = 5000,
    targets: int = 9,
    copies: int = 20,
    twin: Classifier | None = None,
    folded: Classifier | None = None,
) -> Tensor:
    """The first point that fools the model in the cascade of `version`, or the highest margin that any member found.

    "standard": APGD-CE, targeted APGD-DLR, targeted FAB, Square. "plus": APGD-CE, APGD-DLR and FAB with 5 restarts,
    Square, targeted APGD-DLR, targeted FAB. "rand", for models that draw their own randomness: APGD-CE and APGD-DLR
    with `copies` gradients averaged per step. Square shrinks its patch by the number of the query, as published. L1
    leaves out nothing: each member has its L1 form but Square, which is skipped. `threat` is untargeted. Examples leave
    at their first success, inside a member too. With `twin`, APGD takes its gradients on a faster copy of the model
    (bf16); FAB and Square, which read small differences of logits, never do: they ask `folded`, a copy in float32 whose
    layers only lie better in memory. Whatever a member found is judged on `model`. Source: arXiv 2003.01690, section 6
    and the published settings. Cost of "standard": at most 1 + 9 ascents of `steps` gradients, 9 runs of FAB (3 passes
    a step), `queries` passes.
    """
    if version not in VERSIONS:
        raise SpecError(f"autoattack: got version={version!r}; one of {', '.join(VERSIONS)}, for example 'standard'")
    many = 5 if version == "plus" else 1
    eot = copies if version == "rand" else 1
    near = model if folded is None else folded
    best = Best.of(x)
    for member in VERSIONS[version]:
        todo = best.unsolved()
        if not len(todo):
            break
        some, label, random = x[todo], y[todo], noise.at(todo).stream(member)
        if member == "apgd":
            found = apgd(model, some, label, threat=threat, noise=random, steps=steps, restarts=many, copies=eot, twin=twin)
        elif member == "apgd_dlr":
            found = apgd_dlr(model, some, label, threat=threat, noise=random, steps=steps, restarts=many, copies=eot, twin=twin)
        elif member == "apgd_t":
            found = apgd_t(model, some, label, threat=threat, noise=random, steps=steps, targets=targets, twin=twin)
        elif member == "fab":
            found = fab(near, some, label, threat=threat, noise=random, steps=steps, restarts=many, classes=targets)
        elif member == "fab_t":
            found = fab_t(near, some, label, threat=threat, noise=random, steps=steps, targets=targets)
        elif threat.norm.name != "l1":
            found = square(near, some, label, threat=threat, noise=random, queries=queries, rescale=False)
        else:
            continue
        best.take(todo, found, margins(model, found, label, threat))
    return best.x_adv
