"""The models that a picture is armed with."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from torch import Tensor, nn

from forearm.core.gradients import Classifier
from forearm.core.precision import fast
from forearm.core.threat import Threat
from forearm.core.view import View
from forearm.defenses.preemptive.ensemble import Ensemble
from forearm.errors import SpecError
from forearm.models.card import Card
from forearm.models.instant import Writer, load_writer
from forearm.models.load import load_model


@dataclass(frozen=True, slots=True)
class Role:
    """A loaded model with its card."""

    model: nn.Module
    card: Card

    @classmethod
    def load(cls, name: str, device: str) -> Role:
        model = load_model(name, device=device)
        return cls(model, model.card)

    def view(self, x: Tensor) -> View:
        """The model as it sees pictures of x's size."""
        return View.of(self.model, x.shape[2], x.shape[3], self.card.size)


@dataclass(frozen=True, slots=True)
class Pair:
    """A backbone, the fast twin for gradients, the labeller, the threat to arm against, and where the defence needs one a network that writes changes.

    Where there are several backbones, the first is the `backbone`, the rest are the `others`, and the twin is the ensemble of all.
    """

    backbone: Role
    others: tuple[Role, ...]
    twin: Classifier
    labeller: Role
    threat: Threat
    writer: Writer | None = None

    @classmethod
    def load(cls, backbone: str, labeller: str, threat: str, device: str, writer: str | None = None) -> Pair:
        own, *others = (Role.load(name.strip(), device) for name in backbone.split("+"))
        for role in others:
            _together(own, role)
        other = own if labeller == "backbone" else Role.load(labeller, device)
        if own.card.classes != other.card.classes:
            raise SpecError(
                f"labeller: {other.card.name!r} knows other classes than the backbone {own.card.name!r}; "
                "two models of the same classes, for example backbone 'photo_backbone' and labeller 'photo_labeller'"
            )
        writes = None if writer is None else load_writer(writer, device)
        if writes is not None and writes.card.classes != own.card.classes:
            raise SpecError(
                f"instant: {writes.card.name!r} was trained for other classes than the backbone {own.card.name!r} of pictures of this size; "
                "pictures of up to 64 pixels, another network \"instant(writer='...')\", or the defence 'mspd'"
            )
        twins = [fast(role.model) for role in (own, *others)]
        twin = Ensemble(tuple(twins)) if others else twins[0]
        return cls(own, tuple(others), twin, other, Threat.parse(threat), writes)

    def armed_on(self, said: Callable[[Card], str]) -> str:
        """What the cards of all backbones say, joined by "+"."""
        return "+".join(said(role.card) for role in (self.backbone, *self.others))


def _together(first: Role, other: Role) -> None:
    """SpecError for two backbones that cannot be one ensemble."""
    for what, own, his in (("classes", first.card.classes, other.card.classes), ("picture size", first.card.size, other.card.size)):
        if own != his:
            raise SpecError(
                f"backbone: {other.card.name!r} has other {what} than {first.card.name!r}; several backbones for the same task, "
                "for example 'cifar10_backbone+cifar10_preact'"
            )
