"""The bench itself: release, wear, revert, attack, judge. One path for every family of defence.

    harden the model -> protect the pictures -> 8 bits -> wear -> (revert, if the attacker knows) -> attack -> judge the hardened model in float32

What is done to one example does not depend on which others are with it: protection, wear and reversion see each picture alone, models are asked
through `Lanes`, noise is counter-based, and a model that draws its own randomness is attacked and judged one example at a time under a seed of
that example. So rows are the same whatever the batch, the block or the worker.
"""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import lru_cache, partial
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from forearm.attacks.table import ATTACKS
from forearm.core.channel import CHANNELS
from forearm.core.gradients import Classifier
from forearm.core.noise import Noise
from forearm.core.precision import fast, folded, verdict
from forearm.core.quantize import levels, release
from forearm.core.threat import Threat
from forearm.core.view import View
from forearm.defenses.preemptive.ensemble import Ensemble
from forearm.errors import BudgetError, SpecError
from forearm.evaluate.cell import BLOCK, Cell, backbones
from forearm.evaluate.chosen import Chosen
from forearm.evaluate.defense import Backbone, Defense, defense, preemptive_part
from forearm.evaluate.lanes import LANES, Lanes
from forearm.evaluate.matrix import wears
from forearm.models.blocks import channels_of
from forearm.models.load import Model, load_model
from forearm.registry import accepts, bind

Pixels = NDArray[np.uint8]
KEPT = 6  # models that a process keeps loaded
TOUCH = 1e-5  # relative: how far beyond its radius a change may be measured
ROUNDING = 2.0**-24  # of a float32 in [0, 1]; for every pixel, in the norm, on top


def released_block(cell: Cell, block: Chosen) -> Pixels:
    """The pictures of a block as the cell's defence releases them, uint8 `n c h w`: within `release_threat` after rounding.

    Cost: one protection and one labelling pass a picture; none for a defence without a preemptive part.
    """
    if preemptive_part(cell.defense) == "none":
        return block.pixels
    guard, threat = _defense(cell), Threat.parse(cell.release_threat)
    x, noise = as_pictures(block.pixels), _noise(cell, block)
    labels = _labels(cell, x, torch.from_numpy(block.y))
    alone = torch.split(torch.arange(len(x)), 1)
    parts = [release(guard.protect(x[i], labels[i], noise.at(i)), x[i], threat) for i in alone]
    return levels(torch.cat(parts)).numpy()


def audit_block(cell: Cell, block: Chosen, released: Pixels, batch: int = BLOCK) -> dict[str, NDArray[Any]]:
    """The rows of a block, column by column (`store.COLUMNS`). `released`: what `released_block` gave; `batch`: examples attacked together.

    clean: the hardened model is right on the bare picture; protected: on the released and worn one; robust: still after the attack on that.
    margin: the attacker's, on the hardened model; distance: of the attacked picture from the ball's centre. An example that is not `protected` is
    lost and not attacked. For a targeted threat the target is a class drawn among the wrong ones; `robust` means right all the same, and the
    margin is the target's. BudgetError, with the cell and the example, where an attack returns what it may not.
    """
    bench, threat = Bench.of(cell, block), Threat.parse(cell.threat)
    x, y, noise = as_pictures(block.pixels), torch.from_numpy(block.y), _noise(cell, block)
    clean, _ = bench.judge(x, y, noise, "clean", batch)
    worn = bench.worn(as_pictures(released), noise)
    protected, logits = bench.judge(worn, y, noise, "protected", batch)
    aim = _aim(y, noise, logits.shape[1]) if threat.targeted else y
    margin = _margins(threat, logits, aim)
    robust, changed = torch.zeros_like(protected), torch.zeros_like(protected)
    distance = torch.zeros(len(y))
    todo = protected.nonzero().squeeze(1)
    for here in torch.split(todo, bench.together or batch) if len(todo) else ():
        some = noise.at(here)
        with _drawn(some, "attack"):
            centre = bench.centre(x[here], worn[here], some)
            x_adv = bench.attack(bench.attacked, centre, aim[here], threat=threat, noise=some.stream("attack"))
        distance[here] = _inside(cell, threat, x_adv, centre, some.ids)
        changed[here] = (x_adv != centre).flatten(1).any(1)
        robust[here], logits = bench.judge(x_adv, y[here], some, "robust", batch)
        margin[here] = _margins(threat, logits, aim[here])
    columns = {"clean": clean, "protected": protected, "robust": robust, "distance": distance, "margin": margin, "changed": changed}
    return {"id": block.ids, "y": block.y} | {name: column.numpy() for name, column in columns.items()}


@dataclass(frozen=True, slots=True)
class Bench:
    """A cell, set up for pictures of one size.

    victim: the hardened model, which is judged. attacked: what the attacker differentiates: the victim, without its defence where he knows that;
    with a source that model, inside the defence's `unmask` where he knows it, and never the victim. attack: bound, with the copies of that model it
    takes. together: how many examples the attack may see at once, None for any number.
    """

    cell: Cell
    guard: Defense
    victim: Classifier
    attacked: Classifier
    attack: Callable[..., Tensor]
    together: int | None

    @classmethod
    def of(cls, cell: Cell, block: Chosen) -> Bench:
        """Load the models and put the defence around the victim. Pictures of another size than the model's reach it through a resize."""
        guard, bare = _defense(cell), _loaded(cell.model, _sum_of(cell, "model"))
        hardened = guard.harden(bare)
        own = (cell.source, _sum_of(cell, "source")) if cell.source else (cell.model, _sum_of(cell, "model"))
        held = _loaded(*own)
        unaware = held if cell.source else hardened
        known = guard.unmask(held) if cell.informed and guard.unmask is not None else unaware
        lanes = partial(Lanes, width=1 if guard.random else LANES)
        seen = partial(_seen, shape=block.pixels.shape, side=held.size, channels=channels_of(held))
        named = bind(ATTACKS, cell.attack)
        copies = {"twin": _twin, "folded": _folded} if known is held else {}
        attack = partial(named, **{name: lanes(seen(copy(*own))) for name, copy in copies.items() if accepts(named, name)})
        if cell.source and accepts(attack, "source"):
            attack = partial(attack, source=attack.keywords.get("twin") or lanes(seen(known)))
        inside = "layer" in inspect.signature(attack).parameters  # it looks at what the layers say, so it needs the module
        attacked = seen(known) if inside else lanes(seen(known))
        victim = lanes(_seen(hardened, block.pixels.shape, bare.size, channels_of(bare)))
        return cls(cell, guard, victim, attacked, attack, 1 if inside or guard.random else None)

    def judge(self, x: Tensor, y: Tensor, noise: Noise, role: str, batch: int) -> tuple[Tensor, Tensor]:
        """Whether the hardened model is right (`n`), and its logits (`n k`), in float32."""
        rights, logits = [], []
        for here in torch.split(torch.arange(len(x)), 1 if self.guard.random else batch):
            with _drawn(noise.at(here), role):
                right, said = verdict(self.victim, x[here], y[here])
            rights.append(right)
            logits.append(said)
        return torch.cat(rights), torch.cat(logits)

    def worn(self, x: Tensor, noise: Noise) -> Tensor:
        """The pictures after their way, each by itself."""
        channels = [bind(CHANNELS, spec) for spec in wears(self.cell.wear)]
        alone = []
        for here in torch.split(torch.arange(len(x)), 1):
            one = x[here]
            for number, channel in enumerate(channels):
                one = channel(one, noise=noise.at(here).stream(f"wear {number}"))
            alone.append(one)
        return torch.cat(alone)

    def centre(self, x: Tensor, worn: Tensor, noise: Noise) -> Tensor:
        """The centre of the attacker's ball: the original, or what he received, reverted where he knows how."""
        if self.cell.around == "original":
            return x
        if not self.cell.informed or self.guard.revert is None:
            return worn
        return torch.cat([self.guard.revert(worn[i], noise.at(i)) for i in torch.split(torch.arange(len(x)), 1)])


def masking_block(cell: Cell, block: Chosen, released: Pixels, examples: int = 16) -> dict[str, Any]:
    """The masking verdict on the cell's hardened model, as plain JSON values, on the first `examples` released pictures that it gets right.

    InputError where it gets none right. Cost: see `evaluate.masking`.
    """
    from forearm.evaluate.masking import masking

    guard, bare = _defense(cell), _loaded(cell.model, _sum_of(cell, "model"))
    hardened = guard.harden(bare)
    seen = partial(_seen, shape=block.pixels.shape, side=bare.size, channels=channels_of(bare))
    x, y, noise = as_pictures(released), torch.from_numpy(block.y), _noise(cell, block).stream("masking")
    right, _ = Bench.of(replace(cell, source=""), block).judge(x, y, noise, "masking", BLOCK)
    here = right.nonzero().squeeze(1)[:examples] if right.any() else torch.arange(min(len(x), examples))
    other = None if hardened is bare else seen(bare)
    threat = replace(Threat.parse(cell.threat), targeted=False)
    with _drawn(noise.at(here[:1]), "masking"):
        found = masking(seen(hardened), x[here], y[here], threat=threat, noise=noise.at(here), bare=other)
    plain: dict[str, Any] = _plain(found.to_dict())
    return plain


def _plain(value: Any) -> Any:
    """JSON knows no infinity and no NaN: they become null."""
    if isinstance(value, dict):
        return {name: _plain(part) for name, part in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(part) for part in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def as_pictures(pixels: Pixels) -> Tensor:
    """uint8 `n c h w` -> float32 in [0, 1]."""
    return torch.from_numpy(pixels).float() / 255.0


class Seen(nn.Module):
    """A model that sees pictures of another size through a resize (`core.view`)."""

    def __init__(self, model: Classifier, size: tuple[int, int], channels: int = 3) -> None:
        super().__init__()
        self.model = model
        self.size = size
        self.channels = channels

    def forward(self, x: Tensor) -> Tensor:
        """`n c h w` -> `n k`."""
        return View(self.model, self.size, self.channels)(x)


def _seen(model: Classifier, shape: tuple[int, ...], side: int, channels: int = 3) -> Any:
    """`model` as it sees pictures of this shape; itself where they are of its own size and channels."""
    size = View.of(model, shape[2], shape[3], side).size
    return model if (size, shape[1]) == (shape[2:], channels) else Seen(model, size, channels)


@lru_cache(KEPT)
def _loaded(name: str, sha256: str) -> Model:
    return load_model(name, sha256=sha256)


@lru_cache(KEPT)
def _twin(name: str, sha256: str) -> Classifier:
    return fast(_loaded(name, sha256))


@lru_cache(KEPT)
def _folded(name: str, sha256: str) -> Classifier:
    return folded(_loaded(name, sha256))


def _sum_of(cell: Cell, role: str) -> str:
    """The sha256 of the weights that `role` had when the cell was made."""
    return next(text for text in cell.contents if text.startswith(f"{role}=")).partition("=")[2].split(" ")[0]


def _defense(cell: Cell) -> Defense:
    if not cell.backbone:
        return defense(cell.defense)
    members = [(name, _sum_of(cell, role)) for role, name in backbones(cell.backbone)]
    sides = {_loaded(*member).size for member in members}
    if len(sides) > 1:
        raise SpecError(
            f"backbone: got {cell.backbone!r}, for pictures of several sizes; one size, for example 'cifar10_backbone+cifar10_preact'"
        )
    twins = tuple(_twin(*member) for member in members)
    backbone = Backbone(Ensemble(twins) if len(twins) > 1 else twins[0], sides.pop())
    return defense(cell.defense, backbone, Threat.parse(cell.release_threat))


def _labels(cell: Cell, x: Tensor, y: Tensor) -> Tensor:
    """What the preemptive defence hardens each picture towards."""
    if cell.labels == "given":
        return y
    role, name = ("labeller", cell.labeller) if cell.labels == "decoupled" else backbones(cell.backbone)[0]
    model = _loaded(name, _sum_of(cell, role))
    _, logits = verdict(Lanes(_seen(model, x.shape, model.size, channels_of(model))), x, y)
    return logits.argmax(1)


def _noise(cell: Cell, block: Chosen) -> Noise:
    """The release's own noise, which an informed attacker knows; every other role has a stream of its own."""
    return Noise(cell.seed, torch.from_numpy(block.ids))


@contextmanager
def _drawn(noise: Noise, role: str) -> Iterator[None]:
    """Torch's generator, seeded by (seed, first id, role) inside and as it was afterwards: for models that draw from it, one example at a time."""
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(noise.stream(f"{role} {int(noise.ids[0])}").seed)
        yield


def _aim(y: Tensor, noise: Noise, classes: int) -> Tensor:
    """A class for each example, drawn among the wrong ones."""
    return (y + 1 + noise.stream("target").integers(y, classes - 1)) % classes


def _margins(threat: Threat, logits: Tensor, aim: Tensor) -> Tensor:
    """The attacker's margin; a model that answers NaN is lost to an untargeted attacker and no good to a targeted one."""
    return threat.margin(logits, aim).float().nan_to_num(-torch.inf if threat.targeted else torch.inf, torch.inf, -torch.inf)


def _inside(cell: Cell, threat: Threat, x_adv: Tensor, centre: Tensor, ids: Tensor) -> Tensor:
    """How far each attacked picture is from its centre. BudgetError for one outside of the ball or the box, or not finite, or of another shape."""
    if x_adv.shape != centre.shape:
        raise BudgetError(f"{cell}: pictures {tuple(x_adv.shape)} for {tuple(centre.shape)}; an attack returns what it was given, changed")
    finite = x_adv.isfinite().flatten(1).all(1)
    boxed = ((x_adv >= 0.0) & (x_adv <= 1.0)).flatten(1).all(1)
    distance = threat.distance(x_adv, centre)
    reach = threat.eps * (1.0 + TOUCH) + threat.norm.size(torch.full_like(centre, ROUNDING))
    checks = ((finite, "values that are not finite"), (boxed, "values outside of [0, 1]"), (distance <= reach, "a change of {:.6g}"))
    for fine, what in checks:
        if not fine.all():
            first = int((~fine).nonzero()[0])
            found = what.format(float(distance[first]))
            raise BudgetError(f"{cell}: example {int(ids[first])}: {found}; at most {threat.eps:.6g} in {threat.norm.name}, in [0, 1]")
    return distance
