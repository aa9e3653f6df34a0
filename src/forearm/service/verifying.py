"""Measure an armed picture against its original, as `forearm verify` does, with models that stay loaded."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from forearm.attacks.table import ATTACKS
from forearm.core.noise import Noise
from forearm.core.precision import verdict
from forearm.core.quality import psnr, ssim
from forearm.core.threat import Threat
from forearm.errors import InputError, SpecError
from forearm.images.picture import Picture
from forearm.images.provenance import Tag
from forearm.jobs.armory import Armory, as_tensor, content_id
from forearm.jobs.pair import Role
from forearm.jobs.verify import TARGETS, Check, Target
from forearm.models.load import SMALL
from forearm.registry import bind


@dataclass(frozen=True, slots=True)
class Inspector:
    """A verifier over an armoury. Only its own models and the embedded targets are used: a file's tag names none.

    `attack` by name; `targets`: None for the embedded ones. Cost a picture: twice the attack's passes for each target.
    """

    armory: Armory
    attack: str = "pgd(steps=20)"
    targets: tuple[str, ...] | None = None
    _roles: dict[str, Role] = field(default_factory=dict, repr=False, compare=False)

    def __call__(self, before: Picture, after: Picture, tag: Tag | None, label: str | None) -> Check:
        """InputError for pictures of two sizes or modes, SpecError for an unknown label."""
        if before.pixels.shape != after.pixels.shape:
            raise InputError(f"armed: {size(after)}, its original {size(before)}; the same size and mode")
        height, width = before.pixels.shape[:2]
        x, x_armed = (as_tensor(picture.pixels, self.armory.device) for picture in (before, after))
        pair = self.armory.pair(height, width)
        threat = threat_of(tag) or pair.threat
        index = self.armory.label(x, None if label is None else self.armory.class_index(label, height, width)).index
        linf = round(float((x_armed - x).abs().amax()) * 255)
        within = bool(threat.distance(x_armed, x) <= threat.eps + 1e-6)
        problem = None if tag is not None or after.format == "BMP" else "carries no tag that says it is armed"
        if not within and after.lossless:
            problem = f"a change of {linf} levels leaves {threat}"
        return Check(
            file="armed",
            original="original",
            problem=problem,
            within=within,
            lossless=after.lossless,
            linf=linf,
            psnr=float(psnr(x_armed, x)),
            ssim=float(ssim(x_armed, x)),
            label=index,
            name=pair.backbone.card.classes[index],
            margin_before=self.armory.margins([before.pixels], [index])[0],
            margin_after=self.armory.margins([after.pixels], [index])[0],
            targets=tuple(self._targets(x, x_armed, index, threat, content_id(before.pixels))),
        )

    def _targets(self, x: Tensor, x_armed: Tensor, label: int, threat: Threat, key: int) -> Sequence[Target]:
        """Each target on original and release, seen at its own size and attacked there."""
        attacker: Callable[..., Tensor] = bind(ATTACKS, self.attack)
        small = max(x.shape[2:]) <= SMALL
        y = torch.tensor([label, label], device=x.device)
        found = []
        for name in self.targets or TARGETS[small]:
            if name not in self._roles:
                self._roles[name] = Role.load(name, self.armory.device)
            role = self._roles[name]
            view = role.view(x)
            seen = torch.cat([view.see(x), view.see(x_armed)]).clamp(0.0, 1.0)
            attacked = attacker(role.model, seen, y, threat=threat, noise=Noise(0, torch.tensor([key, key])))
            clean, _ = verdict(role.model, seen, y)
            robust, _ = verdict(role.model, attacked, y)
            found.append(Target(role.card.name, *(bool(r) for r in (*clean, *(clean & robust)))))
        return found


def threat_of(tag: Tag | None) -> Threat | None:
    """The threat that a tag names; None where it names none that can be understood."""
    try:
        found = Threat.parse(str((tag or {})["threat"]))
    except (KeyError, SpecError):
        return None
    return None if found.targeted else found


def size(picture: Picture) -> str:
    """Width, height and mode, for messages."""
    return f"{picture.pixels.shape[1]} x {picture.pixels.shape[0]} {picture.mode}"
