"""What `forearm verify` does: measure armed files anew, from the files themselves, against their originals."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from forearm.attacks.table import ATTACKS
from forearm.core import lpips
from forearm.core.losses import margin
from forearm.core.noise import Noise
from forearm.core.precision import verdict
from forearm.core.publishing import Chain, family
from forearm.core.quality import psnr, ssim
from forearm.core.threat import Threat
from forearm.errors import ForearmError, InputError
from forearm.images.codec import decode
from forearm.images.journal import History, journal_path, journals, read_all
from forearm.images.picture import Picture
from forearm.images.provenance import tag_of
from forearm.jobs.armory import Armory, as_tensor, content_id
from forearm.jobs.pair import Role
from forearm.models.load import SMALL, embedded
from forearm.registry import bind

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


@dataclass(frozen=True, slots=True)
class Pairing:
    """An armed file, its original, and what the journal says of it (label and threat), where there is a journal."""

    armed: Path
    original: Path
    label: int | None = None
    threat: str | None = None
    backbone: str | None = None


def pairings(path: Path, original: Path | None = None) -> list[Pairing]:
    """What there is to verify: a folder written by `forearm protect` (its journal names the originals), or one file and its original."""
    if path.is_dir():
        return _journalled(path)
    if not path.is_file():
        raise InputError(f"{path}: no such file or folder; an armed folder or file, for example 'forearm verify armed/'")
    if original is not None:
        return [pairing(path, original, None)]
    for folder in path.resolve().parents:
        if journals(folder):
            found = [pair for pair in _journalled(folder) if pair.armed.resolve() == path.resolve()]
            if found:
                return found
    raise InputError(f"{path}: its original is not known; name it, for example 'forearm verify {path.name} --original photo.jpg'")


def _journalled(folder: Path) -> list[Pairing]:
    lines = History(read_all(folder)).armed.values()
    pairs = [pairing(folder / line.out, Path(line.source), line.label) for line in lines if line.out and line.source]
    if not pairs:
        raise InputError(
            f"{folder}: no journal of armed files ({journal_path(folder).name}); a folder that 'forearm protect' wrote, for example armed/"
        )
    return pairs


def pairing(armed: Path, original: Path, label: int | None) -> Pairing:
    """What a file says of itself, as far as it may be followed: of models, those that are embedded; a path or an address is never opened for it."""
    tag = (tag_of(armed) if armed.is_file() else None) or {}
    threat, backbone = tag.get("threat"), str(tag.get("backbone"))
    return Pairing(armed, original, label, str(threat) if threat else None, backbone if backbone in embedded() else None)


def verify(
    pairs: Sequence[Pairing],
    *,
    attack: str = "pgd(steps=20)",
    targets: Sequence[str] | None = None,
    threat: str | None = None,
    backbone: str | None = None,
    labeller: str | None = None,
    device: str | None = None,
    lpips_weights: Path | None = None,
    survive: str | None = None,
) -> Iterator[Check]:
    """Each pair measured from its two files; a file that cannot be read or measured is a Check with a problem, and the others go on.

    Targets are attacked where they stand: each sees original and release resized to its own input, as a deployment would, and the attacker moves
    that input by at most the threat's eps. `survive` (`core.publishing`) measures both files once more after the nominal chain of a family.
    Cost a file: twice the attack's passes for each target, with `survive` twice that. SpecError for names that are not known.
    """
    attacker: Callable[..., Tensor] = bind(ATTACKS, attack)
    armories: dict[tuple[str | None, ...], Armory] = {}
    roles: dict[str, Role] = {}
    distance = None if lpips_weights is None else lpips.load(lpips_weights)
    chain = None if survive is None else family(survive)[0]
    for pair in pairs:
        key = (threat or pair.threat, backbone or pair.backbone, labeller or (None if pair.label is None else "backbone"))
        if key not in armories:
            armories[key] = Armory.open("none", *key, device=device)
        try:
            yield _check(pair, armories[key], roles, attacker, targets, distance, chain)
        except ForearmError as error:
            yield Check(str(pair.armed), str(pair.original), str(error))


def _check(
    pair: Pairing,
    armory: Armory,
    roles: dict[str, Role],
    attacker: Callable[..., Tensor],
    names: Sequence[str] | None,
    distance: Distance | None,
    chain: Chain | None,
) -> Check:
    before, after = decode(pair.original), decode(pair.armed)
    if before.pixels.shape != after.pixels.shape:
        raise InputError(f"{pair.armed}: {_size(after)}, its original {_size(before)}; the same size and mode")
    x, x_armed = as_tensor(before.pixels, armory.device), as_tensor(after.pixels, armory.device)
    height, width = before.pixels.shape[:2]
    known = armory.pair(height, width)
    label = armory.label(x, pair.label).index
    linf = round(float((x_armed - x).abs().amax()) * 255)
    within = bool(known.threat.distance(x_armed, x) <= known.threat.eps + 1e-6)
    tagged = tag_of(pair.armed) is not None or after.format == "BMP"
    problem = None if tagged else "carries no tag that says it is armed"
    if not within and after.lossless:
        problem = f"a change of {linf} levels leaves {known.threat}"
    for name in names or TARGETS[max(height, width) <= SMALL]:
        if name not in roles:
            roles[name] = Role.load(name, armory.device)
    seen_by = [roles[name] for name in names or TARGETS[max(height, width) <= SMALL]]
    strike = partial(_attack, label=label, threat=known.threat, attacker=attacker, key=content_id(before.pixels))
    return Check(
        file=str(pair.armed),
        original=str(pair.original),
        problem=problem,
        within=within,
        lossless=after.lossless,
        linf=linf,
        psnr=float(psnr(x_armed, x)),
        ssim=float(ssim(x_armed, x)),
        lpips=None if distance is None else float(distance(_rgb(x_armed), _rgb(x))),
        label=label,
        name=known.backbone.card.classes[label],
        margin_before=armory.margins([before.pixels], [label])[0],
        margin_after=armory.margins([after.pixels], [label])[0],
        targets=tuple(strike(role, x, x_armed) for role in seen_by),
        survival=None if chain is None else _survival(chain, known.backbone, seen_by, strike, x, x_armed, label),
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


def _rgb(x: Tensor) -> Tensor:
    return x.expand(-1, 3, -1, -1)


def _size(picture: Picture) -> str:
    return f"{picture.pixels.shape[1]} x {picture.pixels.shape[0]} {picture.mode}"


def _attack(role: Role, x: Tensor, x_armed: Tensor, label: int, threat: Threat, attacker: Callable[..., Tensor], key: int) -> Target:
    """A target on original and release, each seen at the target's own size, then attacked there."""
    view = role.view(x)
    seen = torch.cat([view.see(x), view.see(x_armed)]).clamp(0.0, 1.0)
    y = torch.tensor([label, label], device=x.device)
    attacked = attacker(role.model, seen, y, threat=threat, noise=Noise(0, torch.tensor([key, key])))
    clean, _ = verdict(role.model, seen, y)
    robust, _ = verdict(role.model, attacked, y)
    return Target(role.card.name, bool(clean[0]), bool(clean[1]), bool(clean[0] and robust[0]), bool(clean[1] and robust[1]))


def summary(checks: Sequence[Check]) -> dict[str, Any]:
    """Counts over all files, for the table's foot and for JSON."""
    good = [c for c in checks if c.problem is None]
    table: dict[str, dict[str, int]] = {}
    for check in checks:
        for target in check.targets:
            row = table.setdefault(target.name, {"files": 0, "clean_before": 0, "clean_after": 0, "robust_before": 0, "robust_after": 0})
            row["files"] += 1
            for name in ("clean_before", "clean_after", "robust_before", "robust_after"):
                row[name] += int(getattr(target, name))
    return {"files": len(checks), "good": len(good), "problems": len(checks) - len(good), "targets": table} | survived(checks)


def survived(checks: Sequence[Check]) -> dict[str, Any]:
    """What held after the publishing chain, over all files that went through it; nothing where none did."""
    found = [(check, check.survival) for check in checks if check.survival is not None]
    if not found:
        return {}
    return {
        "survival": {
            "files": len(found),
            "label_holds": sum(s.says == check.name for check, s in found),
            "margin_rose": sum(s.margin_after > s.margin_before for _, s in found),
            "robust_before": sum(s.robust[0] for _, s in found),
            "robust_after": sum(s.robust[1] for _, s in found),
            "robust_unpublished": sum(t.robust_after for check, _ in found for t in check.targets),
            "judged": sum(len(s.targets) for _, s in found),
        }
    }


def inspect(path: Path) -> dict[str, Any]:
    """What a picture file is, and whether and with what it is armed (read from its tag; a stripped tag cannot be seen). Raises InputError."""
    picture = decode(path)
    return {
        "file": str(path),
        "format": picture.format,
        "mode": picture.mode,
        "width": picture.width,
        "height": picture.height,
        "lossless": picture.lossless,
        "orientation": picture.orientation,
        "warnings": list(picture.warnings),
        "armed": tag_of(path),
    }


def as_json(checks: Sequence[Check]) -> str:
    """All checks and their summary as one JSON document."""
    return json.dumps({"summary": summary(checks), "files": [asdict(c) for c in checks]}, indent=1)
