"""An armed picture against its original: budget, likeness, margins, targets under attack, and what is left after publishing."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor

from forearm.core.losses import margin
from forearm.core.noise import Noise
from forearm.core.precision import verdict
from forearm.core.publishing import Chain
from forearm.core.quality import psnr, ssim
from forearm.core.threat import Threat
from forearm.errors import InputError
from forearm.images.picture import Picture
from forearm.jobs.armory import Armory, as_tensor, content_id
from forearm.jobs.pair import Role
from forearm.models.load import SMALL

Distance = Callable[[Tensor, Tensor], Tensor]
TARGETS = {True: ("backbone", "labeller"), False: ("photo_backbone", "photo_target", "photo_labeller")}


@dataclass(frozen=True, slots=True)
class Target:
    """One target model on one file: does it say the label, without and under attack, on the original and on the armed file?"""

    name: str
    clean_before: bool
    clean_after: bool
    robust_before: bool
    robust_after: bool


@dataclass(frozen=True, slots=True)
class Survival:
    """What holds once original and armed file went through a publishing chain, real codecs and all. Margins as in `Check`."""

    chain: str
    width: int  # as published
    height: int
    says: str  # the class that the backbone names on the armed file, published
    margin_before: float
    margin_after: float
    targets: tuple[Target, ...]

    @property
    def robust(self) -> tuple[int, int]:
        """How many targets are right under attack, on the original and on the armed file."""
        return sum(t.robust_before for t in self.targets), sum(t.robust_after for t in self.targets)


@dataclass(frozen=True, slots=True)
class Check:
    """One armed file, measured. `linf` is in levels of 1/255; margins are the backbone's, above 0 where it says the label."""

    file: str
    original: str
    problem: str | None  # why it could not be measured or is not what it should be; None: all is well
    within: bool = False
    lossless: bool = False
    linf: int = 0
    psnr: float = 0.0
    ssim: float = 0.0
    lpips: float | None = None  # where the weights are given
    label: int = -1
    name: str = ""
    margin_before: float = 0.0
    margin_after: float = 0.0
    targets: tuple[Target, ...] = ()
    survival: Survival | None = None  # where a chain was asked for


def compared(
    before: Picture,
    after: Picture,
    armory: Armory,
    roles: dict[str, Role],
    attacker: Callable[..., Tensor],
    *,
    threat: Threat,
    label: int | None,
    tagged: bool,
    targets: Sequence[str] | None = None,
    distance: Distance | None = None,
    chain: Chain | None = None,
    file: str = "armed",
    original: str = "original",
) -> Check:
    """`after` measured against `before`, its original, on the models of `armory` and on `targets` (None: the embedded ones).

    label: the true class, or None to ask the armoury. threat: the budget that was to be kept, and the attacker's. tagged: whether the file says that
    it is armed (a BMP cannot). roles: the targets loaded so far, to which those that are missing are added. distance: LPIPS, where its weights are
    there; chain: a publishing chain to measure both once more behind. Raises InputError for two sizes or modes. Cost: twice the attack's passes
    for each target, with `chain` twice that.
    """
    if before.pixels.shape != after.pixels.shape:
        raise InputError(f"{file}: {_size(after)}, its original {_size(before)}; the same size and mode")
    x, x_armed = as_tensor(before.pixels, armory.device), as_tensor(after.pixels, armory.device)
    height, width = before.pixels.shape[:2]
    backbone = armory.pair(height, width).backbone
    index = armory.label(x, label).index
    linf = round(float((x_armed - x).abs().amax()) * 255)
    within = bool(threat.distance(x_armed, x) <= threat.eps + 1e-6)
    problem = None if tagged or after.format == "BMP" else "carries no tag that says it is armed"
    if not within and after.lossless:
        problem = f"a change of {linf} levels leaves {threat}"
    names = targets or TARGETS[max(height, width) <= SMALL]
    for name in names:
        if name not in roles:
            roles[name] = Role.load(name, armory.device)
    seen_by = [roles[name] for name in names]
    strike = partial(_attack, label=index, threat=threat, attacker=attacker, key=content_id(before.pixels))
    return Check(
        file=file,
        original=original,
        problem=problem,
        within=within,
        lossless=after.lossless,
        linf=linf,
        psnr=float(psnr(x_armed, x)),
        ssim=float(ssim(x_armed, x)),
        lpips=None if distance is None else float(distance(_rgb(x_armed), _rgb(x))),
        label=index,
        name=backbone.card.classes[index],
        margin_before=armory.margins([before.pixels], [index])[0],
        margin_after=armory.margins([after.pixels], [index])[0],
        targets=tuple(strike(role, x, x_armed) for role in seen_by),
        survival=None if chain is None else _survival(chain, backbone, seen_by, strike, x, x_armed, index),
    )


def _survival(
    chain: Chain, backbone: Role, roles: Sequence[Role], strike: Callable[..., Target], x: Tensor, x_armed: Tensor, label: int
) -> Survival:
    """Both pictures through the chain's real codecs, each at the size it is published in, and judged there."""
    published, published_armed = chain.exact(x), chain.exact(x_armed)
    with torch.inference_mode():
        logits = torch.cat([backbone.view(seen)(seen).float() for seen in (published, published_armed)])
    before, after = margin(logits, torch.tensor([label, label], device=x.device)).neg().tolist()
    return Survival(
        chain=str(chain),
        width=published.shape[3],
        height=published.shape[2],
        says=backbone.card.classes[int(logits[1].argmax())],
        margin_before=before,
        margin_after=after,
        targets=tuple(strike(role, published, published_armed) for role in roles),
    )


def _attack(role: Role, x: Tensor, x_armed: Tensor, label: int, threat: Threat, attacker: Callable[..., Tensor], key: int) -> Target:
    """A target on original and release, each seen at the target's own size, then attacked there."""
    view = role.view(x)
    seen = torch.cat([view.see(x), view.see(x_armed)]).clamp(0.0, 1.0)
    y = torch.tensor([label, label], device=x.device)
    attacked = attacker(role.model, seen, y, threat=threat, noise=Noise(0, torch.tensor([key, key])))
    clean, _ = verdict(role.model, seen, y)
    robust, _ = verdict(role.model, attacked, y)
    return Target(role.card.name, bool(clean[0]), bool(clean[1]), bool(clean[0] and robust[0]), bool(clean[1] and robust[1]))


def _rgb(x: Tensor) -> Tensor:
    return x.expand(-1, 3, -1, -1)


def _size(picture: Picture) -> str:
    return f"{picture.pixels.shape[1]} x {picture.pixels.shape[0]} {picture.mode}"
