"""Attacked pictures of a fixed target, made once: 8-bit memory-mapped files that a broken run goes on with, to the same bytes."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from forearm.attacks.table import ATTACKS, TRAITS
from forearm.core.noise import Noise
from forearm.core.precision import fast, verdict
from forearm.core.quantize import levels, release
from forearm.core.threat import Threat
from forearm.data.batches import Batch, Pictures
from forearm.errors import ArtifactError, BudgetError, SpecError
from forearm.models.load import Model
from forearm.registry import accepts, bind, parse

BLOCK = 250  # pictures that are attacked together; part of what names a pool, as last bits depend on it
Progress = Callable[[str, int, int], None]  # a member, its pictures done, its pictures in all


@dataclass(frozen=True, slots=True)
class Member:
    """One attack of a pool: as it was written, the function, and the threat it keeps to."""

    spec: str
    attack: Callable[..., Tensor]
    threat: Threat


@dataclass(frozen=True, slots=True)
class Made:
    """What a member's file holds: `n` pictures, of which the attack left `unchanged` as they were and the target gets `right` the true label."""

    n: int = 0
    unchanged: int = 0
    right: int = 0


@dataclass(frozen=True, slots=True)
class Pool:
    """The variants of a data set's pictures; `arrays`: uint8 `n c h w` of each member, memory-mapped."""

    pictures: Pictures
    members: tuple[str, ...]
    arrays: tuple[NDArray[np.uint8], ...]
    made: tuple[Made, ...]

    def of(self, ids: Tensor) -> Tensor:
        """The pictures `ids`, clean first: float `1 + m n c h w` in [0, 1], on the CPU."""
        at = ids.cpu()
        attacked = [torch.from_numpy(array[at.numpy()]) for array in self.arrays]
        return torch.stack([self.pictures.images[at], *attacked]).float() / 255.0


def member(spec: str, threat: Threat) -> Member:
    """One attack of `ATTACKS` by name, "pgd(steps=40)" or "targeted:pgd(steps=40)". SpecError where it cannot keep to the threat."""
    targeted = spec.startswith("targeted:")
    name = spec.removeprefix("targeted:")
    attack = bind(ATTACKS, name)
    traits = TRAITS[parse(name)[0]]
    if targeted and not traits.targeted:
        raise SpecError(f"pool: got {spec!r}, which has no targeted form; one of {', '.join(n for n in TRAITS if TRAITS[n].targeted)}")
    if threat.norm.name not in traits.norms:
        raise SpecError(f"pool: got {spec!r} under {threat}; a norm of {', '.join(traits.norms)}, for example 'pgd'")
    return Member(spec, attack, Threat(threat.norm, threat.eps, targeted))


def make_pool(
    folder: Path,
    target: Model,
    pictures: Pictures,
    members: Sequence[Member],
    *,
    aim: int = 0,
    seed: int = 0,
    report: Progress = lambda _name, _done, _all: None,
) -> Pool:
    """Attack all pictures of `target` with every member, or go on where an earlier call stopped; `folder` then holds pool.json and N.npy.

    Untargeted attacks leave the label that the target itself gives (as published: no attack knows the truth), targeted ones go to the class
    `aim`. Pictures are rounded to 8 bits inside the threat. Each block of `BLOCK` is on disk before pool.json counts it, and is a function of the
    seed and its pictures alone, so a killed run ends with the bytes of an undisturbed one. ArtifactError where the folder
    holds the pool of another target, data, threat or attack; BudgetError where an attack leaves its ball. Cost: that of the attacks, once.
    """
    folder.mkdir(parents=True, exist_ok=True)
    key = _key(target, pictures, members, aim, seed)
    made = _read(folder / "pool.json", key, members)
    for number, one in enumerate(members):
        array = _open(folder / f"{number + 1}.npy", tuple(pictures.images.shape), made[one.spec].n)
        while (first := made[one.spec].n) < len(pictures):
            block = slice(first, min(first + BLOCK, len(pictures)))
            x, y = pictures.images[block].float() / 255.0, pictures.labels[block]
            batch = Batch(x, y, torch.arange(block.start, block.stop)).to(next(target.parameters()).device)
            x_adv = attacked(target, batch, one, aim, seed)
            array[block] = levels(x_adv).cpu().numpy()
            array.flush()
            made[one.spec] = _counted(made[one.spec], target, x_adv, batch)
            _write(folder / "pool.json", key, made)
            report(one.spec, block.stop, len(pictures))
    arrays = tuple(np.load(folder / f"{i + 1}.npy", mmap_mode="r") for i in range(len(members)))
    return Pool(pictures, tuple(one.spec for one in members), arrays, tuple(made[one.spec] for one in members))


def attacked(target: Model, batch: Batch, one: Member, aim: int, seed: int) -> Tensor:
    """`member`'s variants of one batch, on the 8-bit grid inside the threat: `n c h w`; see `make_pool`. BudgetError where it leaves its ball."""
    with torch.no_grad():
        y = torch.full_like(batch.y, aim) if one.threat.targeted else target(batch.x).argmax(1)
    noise = Noise(seed, batch.ids).stream(one.spec)
    twin = {"twin": fast(target)} if accepts(one.attack, "twin") else {}
    x_adv = one.attack(target, batch.x, y, threat=one.threat, noise=noise, **twin)
    far = float(one.threat.distance(x_adv, batch.x).max())
    if far > one.threat.eps * (1 + 1e-4) + 1e-6:
        raise BudgetError(f"pool: {one.spec} went {far:.6g} far; at most {one.threat.eps:.6g}, the radius of {one.threat}")
    return release(x_adv, batch.x, one.threat)


def _counted(before: Made, target: Model, x_adv: Tensor, batch: Batch) -> Made:
    same = (x_adv == batch.x).flatten(1).all(1)
    right, _ = verdict(target, x_adv, batch.y)
    return Made(before.n + len(batch.y), before.unchanged + int(same.sum()), before.right + int(right.sum()))


def _key(target: Model, pictures: Pictures, members: Sequence[Member], aim: int, seed: int) -> dict[str, Any]:
    """What decides the pool's bytes."""
    data = hashlib.sha256(pictures.images.contiguous().numpy().tobytes())
    data.update(pictures.labels.numpy().tobytes())
    return {
        "target": target.card.sha256,
        "pictures": data.hexdigest(),
        "members": {one.spec: str(one.threat) for one in members},
        "aim": aim,
        "seed": seed,
        "block": BLOCK,
    }


def _read(path: Path, key: dict[str, Any], members: Sequence[Member]) -> dict[str, Made]:
    if len({one.spec for one in members}) < len(members) or not members:
        raise SpecError(f"pool: got {[one.spec for one in members]}; one attack or more, each once, for example 'pgd'")
    if not path.is_file():
        return {one.spec: Made() for one in members}
    try:
        held = json.loads(path.read_text())
        done = {spec: Made(**counts) for spec, counts in held["made"].items()}
        found = held["key"]
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise ArtifactError(f"{path}: not a pool's record ({type(error).__name__}); the one that a run wrote, or another folder") from None
    other = [name for name in key if found.get(name) != key[name]]
    if other:
        raise ArtifactError(f"{path}: a pool of another {other[0]}; the same {', '.join(key)}, or another folder")
    return done


def _open(path: Path, shape: tuple[int, ...], done: int) -> np.memmap[Any, np.dtype[np.uint8]]:
    """The member's file, opened to be written; made where nothing of it is done yet."""
    if not done:
        return np.lib.format.open_memmap(path, "w+", np.uint8, shape)
    try:
        array: np.memmap[Any, np.dtype[np.uint8]] = np.load(path, mmap_mode="r+")
    except (OSError, ValueError, EOFError) as error:
        raise ArtifactError(f"{path}: no readable member ({type(error).__name__}); the file that pool.json counts") from None
    if array.shape != shape or array.dtype != np.uint8:
        raise ArtifactError(f"{path}: {array.dtype} of shape {array.shape}; uint8 of shape {shape}, as pool.json counts")
    return array


def _write(path: Path, key: dict[str, Any], made: dict[str, Made]) -> None:
    half = path.with_suffix(".part")
    half.write_text(json.dumps({"key": key, "made": {spec: asdict(counts) for spec, counts in made.items()}}, indent=1) + "\n")
    half.replace(path)
