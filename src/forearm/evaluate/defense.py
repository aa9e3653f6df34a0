"""A defence by name as the bench uses it: what it does before release, what it does to the model, and what an attacker who knows it does."""

from __future__ import annotations

import difflib
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

from torch import Tensor, nn

from forearm.core.gradients import Classifier
from forearm.core.noise import Noise
from forearm.core.quantize import to_8bit
from forearm.core.threat import Threat
from forearm.core.view import View
from forearm.defenses.inference.table import INFERENCE
from forearm.defenses.preemptive import reversion
from forearm.defenses.preemptive.instant import DEFAULT as WRITER
from forearm.defenses.preemptive.large import at_working_size
from forearm.defenses.preemptive.protector import PREEMPTIVE, SEVERAL, Protector
from forearm.errors import SpecError
from forearm.models.instant import load_writer
from forearm.models.load import PAIRS, TOGETHER, load_model
from forearm.registry import accepts, bind, parse

HARDEN = {name: row.harden for name, row in INFERENCE.items()}
UNMASK = {name: row.unmask or row.harden for name, row in INFERENCE.items()}


@dataclass(frozen=True, slots=True)
class Defense:
    """One defence, of any family; what it does not do is the identity or None.

    protect: pictures (`n c h w`, [0, 1]), labels `n`, noise -> what is released, before it is rounded to 8 bits. harden: the bare model -> the
    model that is deployed. unmask: the bare model -> what an informed attacker differentiates. revert: what is released, the same noise -> the
    informed attacker's estimate of the bare pictures, on the 8-bit grid. random: the hardened model draws from torch's generator.
    """

    protect: Callable[[Tensor, Tensor, Noise], Tensor]
    harden: Callable[[nn.Module], nn.Module]
    unmask: Callable[[nn.Module], Classifier] | None
    revert: Callable[[Tensor, Noise], Tensor] | None
    random: bool


@dataclass(frozen=True, slots=True)
class Backbone:
    """What a preemptive defence takes its gradients on: a classifier of pictures of `side` pixels."""

    model: Classifier
    side: int


def parts(spec: str) -> tuple[str, ...]:
    """The parts of "mspd(copies=20)+conceal", in canonical form and order: the preemptive part first, no "none" beside others.

    Pictures meet the parts from left to right, so of two that harden the model the left one is the outer one. SpecError for unknown names and
    options, and for two preemptive parts: each would spend the budget.
    """
    found = [_canonical(part) for part in split_spec(spec)]
    real = [part for part in found if part != "none"] or ["none"]
    before = [part for part in real if parse(part)[0] in PREEMPTIVE]
    if len(before) > 1:
        raise SpecError(f"defense: got {spec!r} with {len(before)} preemptive parts; at most one, for example 'mspd+conceal'")
    return (*before, *(part for part in real if part not in before))


def preemptive_part(spec: str) -> str:
    """The part that protects pictures before their release; "none" where there is none."""
    first = parts(spec)[0]
    return first if parse(first)[0] in PREEMPTIVE else "none"


def knowable(spec: str) -> bool:
    """Whether an attacker who knows the defence has anything to use: an `unmask` or a `revert`.

    A defence without is "not attacked by anyone who knows it".
    """
    names = [parse(part)[0] for part in parts(spec)]
    return preemptive_part(spec) != "none" or any(INFERENCE[name].unmask for name in names if name in INFERENCE)


def defense(spec: str, backbone: Backbone | None = None, threat: Threat | None = None) -> Defense:
    """The defence that `spec` names. `backbone` and `threat` (the budget of the release) are needed by a preemptive part alone."""
    wrapped = [part for part in reversed(parts(spec)) if parse(part)[0] in INFERENCE]
    rows = [INFERENCE[parse(part)[0]] for part in wrapped]
    before = preemptive_part(spec)
    protect: Callable[[Tensor, Tensor, Noise], Tensor] = _as_it_is
    revert = None
    if before != "none":
        if backbone is None or threat is None:
            raise SpecError(f"defense: {before!r} without a backbone and a threat; both, for example 'cifar10_backbone' and linf:8/255")
        armed = protector(before)
        protect = partial(_protect, protector=armed, backbone=backbone, threat=threat)
        revert = partial(_revert, protector=armed, backbone=backbone, threat=threat)
    return Defense(
        protect=protect,
        harden=partial(_wrap, wrappers=[_bound(HARDEN, part) for part in wrapped]),
        unmask=partial(_wrap, wrappers=[_bound(UNMASK, part) for part in wrapped]) if any(row.unmask for row in rows) else None,
        revert=revert,
        random=any(row.random for row in rows),
    )


def usual(defense: str, small: bool) -> tuple[str, str]:
    """Backbone (several as "a+b") and labeller of a preemptive defence, by its spec, where the user names none.

    small: for pictures up to `models.load.SMALL` pixels; else for photos.
    """
    backbone, labeller = PAIRS[small]
    return (TOGETHER[small] if parse(defense)[0] in SEVERAL else backbone), labeller


def students(spec: str) -> tuple[str, ...]:
    """The trained models that a defence's spec names: what they are decides what the defence does, as the model's own weights do.

    SpecError for a part that needs one and names none.
    """
    found = []
    for part in parts(spec):
        name, options = parse(part)
        if name == "regenerate":
            student = options.get("student")
            if not isinstance(student, str) or not student:
                raise SpecError(f"{part}: got no student; the name of one, for example \"regenerate(student='checkpoints/mnist_mid')\"")
            found.append(student)
        if name == "instant":
            found.append(str(options.get("writer", WRITER)))
    return tuple(found)


def protector(spec: str, device: str = "cpu") -> Protector:
    """The preemptive defence that `spec` names; the network that it names, loaded."""
    found: Callable[..., Tensor] = bind(PREEMPTIVE, spec)
    return partial(found, writer=load_writer(students(spec)[0], device)) if students(spec) else found


def _bound(table: dict[str, str], part: str) -> Callable[..., Classifier]:
    """The function that `part` names; the student that it names, loaded."""
    wrap = bind(table, part)
    for name in students(part):
        network = load_model(name).network
        if not callable(getattr(network, "regenerate", None)):
            raise SpecError(f"regenerate: the model {name!r} makes no pictures; a student of MID, as `forearm train mid` leaves it")
        wrap = partial(wrap, student=network)
    return wrap


def split_spec(spec: str) -> list[str]:
    """`spec` at each "+" that stands outside of brackets and strings."""
    found, depth, quote, escaped = [""], 0, "", False
    for letter in spec:
        if letter == "+" and not depth and not quote:
            found.append("")
            continue
        found[-1] += letter
        if quote:
            quote = "" if letter == quote and not escaped else quote
            escaped = letter == "\\" and not escaped
        elif letter in "'\"":
            quote = letter
        else:
            depth += (letter in "([") - (letter in ")]")
    return found


def _canonical(part: str) -> str:
    name, options = parse(part)
    table = PREEMPTIVE if name in PREEMPTIVE else HARDEN
    if name not in {**PREEMPTIVE, **HARDEN}:
        close = difflib.get_close_matches(name, (*PREEMPTIVE, *HARDEN), 1)
        hint = f"did you mean {close[0]!r}?" if close else f"one of {', '.join((*PREEMPTIVE, *HARDEN))}"
        raise SpecError(f"defense: got {name!r}; {hint}")
    bind(table, part)
    return canonical_spec(name, options)


def canonical_spec(name: str, options: dict[str, object]) -> str:
    """A name with its options in one way of writing: sorted, as Python's literals."""
    inside = ", ".join(f"{option}={options[option]!r}" for option in sorted(options))
    return f"{name}({inside})" if inside else name


def _wrap(model: nn.Module, wrappers: list[Callable[..., Classifier]]) -> nn.Module:
    """`model` inside the wrappers, the first one innermost; each is given a module."""
    wrapped = model
    for wrap in wrappers:
        made = wrap(wrapped)
        wrapped = made if isinstance(made, nn.Module) else Answering(made)
    return wrapped


class Answering(nn.Module):
    """A classifier that is no module, as one: for what wraps modules alone."""

    def __init__(self, classify: Classifier) -> None:
        super().__init__()
        self.classify = classify

    def forward(self, x: Tensor) -> Tensor:
        """`n c h w` -> `n k`."""
        return self.classify(x)


def _as_it_is(x: Tensor, labels: Tensor, noise: Noise) -> Tensor:
    return x


def _protect(x: Tensor, labels: Tensor, noise: Noise, *, protector: Protector, backbone: Backbone, threat: Threat) -> Tensor:
    view = View.of(backbone.model, x.shape[2], x.shape[3], backbone.side)
    return _sized(protector, view, backbone)(view, x, labels, threat=threat, noise=noise)


def _revert(released: Tensor, noise: Noise, *, protector: Protector, backbone: Backbone, threat: Threat) -> Tensor:
    view = View.of(backbone.model, released.shape[2], released.shape[3], backbone.side)
    return to_8bit(reversion.revert(view, released, protector=_sized(protector, view, backbone), threat=threat, noise=noise))


def _sized(protector: Callable[..., Tensor], view: View, backbone: Backbone) -> Protector:
    """The protector for pictures larger than the view: its noise on the view's grid, its change at the working size."""

    def arm(model: Classifier, x: Tensor, y: Tensor, *, threat: Threat, noise: Noise) -> Tensor:
        larger = x.shape[2] * x.shape[3] > view.size[0] * view.size[1]
        chosen = partial(protector, grid=view.size) if larger and accepts(protector, "grid") else protector
        return at_working_size(chosen, model, x, y, threat=threat, noise=noise, side=backbone.side)

    return arm
