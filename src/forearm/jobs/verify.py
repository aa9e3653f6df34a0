"""What `forearm verify` does: measure armed files anew, from the files themselves, against their originals."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

from torch import Tensor

from forearm.attacks.table import ATTACKS
from forearm.core import lpips
from forearm.core.publishing import family
from forearm.errors import ForearmError, InputError
from forearm.images.codec import decode
from forearm.images.journal import History, journal_path, journals, read_all
from forearm.images.provenance import tag_of
from forearm.jobs.armory import Armory
from forearm.jobs.compare import Check, compared
from forearm.models.load import embedded
from forearm.registry import bind


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
    names = backbone.split("+")
    ours = set(names) <= set(embedded()) and len(set(names)) == len(names)
    return Pairing(armed, original, label, str(threat) if threat else None, backbone if ours else None)


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
    distance = None if lpips_weights is None else lpips.load(lpips_weights)
    chain = None if survive is None else family(survive)[0]
    check = partial(compared, roles={}, attacker=attacker, distance=distance, chain=chain)
    for pair in pairs:
        key = (threat or pair.threat, backbone or pair.backbone, labeller or (None if pair.label is None else "backbone"))
        if key not in armories:
            armories[key] = Armory.open("none", *key, device=device)
        try:
            yield _check(pair, armories[key], targets, check)
        except ForearmError as error:
            yield Check(str(pair.armed), str(pair.original), str(error))


def _check(pair: Pairing, armory: Armory, targets: Sequence[str] | None, check: Callable[..., Check]) -> Check:
    before, after = decode(pair.original), decode(pair.armed)
    return check(
        before,
        after,
        armory,
        threat=armory.pair(*before.pixels.shape[:2]).threat,
        label=pair.label,
        tagged=tag_of(pair.armed) is not None,
        targets=targets,
        file=str(pair.armed),
        original=str(pair.original),
    )


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
