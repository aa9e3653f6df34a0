"""The armourer that `forearm protect` and `forearm.arm` use: embedded or given models, each picture alone.

A picture's copies form the batch, and on a CPU one thread computes them, so its bytes do not depend on its neighbours, on the batch size, on a resumed run
or on the number of cores.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import TypeVar

import numpy as np
import torch
from torch import Tensor

from forearm.core.losses import margin
from forearm.core.noise import Noise
from forearm.core.norms import LINF
from forearm.core.publishing import family, spelled
from forearm.core.quality import psnr, ssim
from forearm.core.quantize import release
from forearm.core.threat import Threat
from forearm.core.view import View
from forearm.defenses.preemptive.large import at_working_size
from forearm.defenses.preemptive.protector import DEFAULT, PREEMPTIVE, Protector
from forearm.errors import InputError, SpecError
from forearm.evaluate.defense import students, usual
from forearm.jobs.arm import Armed, ArmReport, Pixels
from forearm.jobs.bounds import Bounds, largest
from forearm.jobs.pair import Pair
from forearm.models.load import SMALL
from forearm.registry import accepts, bind

Given = TypeVar("Given")
Made = TypeVar("Made")

STRENGTHS = {  # threats of small pictures and of photos. At 12/255 a picture of 32 pixels still passes for itself, at 16/255 it is grainy
    "subtle": {True: "linf:4/255", False: "linf:2/255"},
    "balanced": {True: "linf:8/255", False: "linf:4/255"},  # what the embedded pairs were trained for
    "strong": {True: "linf:12/255", False: "linf:8/255"},
}


@dataclass(frozen=True, slots=True)
class Label:
    """A class, how sure whoever gave it was, who that was, and whether the labeller was below its threshold."""

    index: int
    confidence: float
    by: str
    uncertain: bool


@dataclass(frozen=True, slots=True)
class Armory:
    """An `Armourer` over models by name. Models are loaded at the first picture that needs them."""

    defense: str
    protector: Protector
    backbone: str | None
    labeller: str | None
    threat: str | None
    seed: int
    device: str
    threshold: float
    strength: str = "balanced"
    survive: str | None = None  # the publishing chains, spelled out
    bounds: Bounds = field(default_factory=Bounds)
    _pairs: dict[bool, Pair] = field(default_factory=dict, repr=False, compare=False)

    @classmethod
    def open(
        cls,
        defense: str = DEFAULT,
        threat: str | None = None,
        backbone: str | None = None,
        labeller: str | None = None,
        seed: int = 0,
        device: str | None = None,
        threshold: float = 0.5,
        *,
        strength: str | None = None,
        survive: str | None = None,
        min_psnr: float | None = None,
        max_lpips: float | None = None,
        lpips: Path | None = None,
    ) -> Armory:
        """An armoury by names.

        `threat` None is linf:8/255 for pictures of up to 64 pixels and linf:4/255 for photos; `backbone` and `labeller` None are the embedded ones for the
        picture's size (`evaluate.defense.usual`); several backbones, as in "cifar10_backbone+cifar10_preact", are one `Ensemble`, whose first is what
        labels and is measured as the backbone; `labeller="backbone"` lets the backbone label (coupled labels). Below `threshold` confidence a
        picture is uncertain and the backbone labels it instead. `strength` names a threat for each size of picture instead of `threat` (`STRENGTHS`); `survive`
        publishing chains that the copies of the defence are seen through (`core.publishing`). With `min_psnr` (dB) or `max_lpips` (with the
        weights' folder `lpips`) each picture gets the largest budget up to the threat, in levels of 1/255, at which its release keeps them;
        a picture for which even 1/255 is too much is refused. Unknown names and options raise SpecError before any model is loaded.
        """
        protector: Protector = bind(PREEMPTIVE, defense)
        known = None if threat is None else Threat.parse(threat)
        if strength is not None and strength not in STRENGTHS:
            raise SpecError(f"strength: got {strength!r}; one of {', '.join(STRENGTHS)}, for example 'balanced'")
        if strength is not None and threat is not None:
            raise SpecError(f"strength: got {strength!r} and the threat {threat!r}; one of them, for example --strength subtle")
        chains = None if survive is None or survive.strip() == "none" else spelled(family(survive))
        if chains is not None and not accepts(protector, "survive"):
            raise SpecError(f"survive: got it with the defence {defense!r}, which has no copies or names its own; for example 'mspd'")
        device = device or ("cuda" if torch.cuda.is_available() else "cpu")
        bounds = Bounds.of(min_psnr, max_lpips, lpips, device)
        if bounds and known is not None and known.norm is not LINF:
            raise SpecError(f"quality: got bounds for {known}; a linf threat, whose budget is searched in levels, for example 'linf:4/255'")
        if not 0.0 <= threshold <= 1.0:
            raise SpecError(f"threshold: got {threshold}; a confidence from 0 to 1, for example 0.5")
        return cls(
            defense, protector, backbone, labeller, threat, seed, device, threshold, strength or "balanced", chains, bounds
        )  # fmt: skip

    @property
    def hands(self) -> int:
        """On a CPU as many as torch has threads: each picture is armed on one."""
        return torch.get_num_threads() if self.device == "cpu" else 1

    def pair(self, height: int, width: int) -> Pair:
        """The models for pictures of this size."""
        small = max(height, width) <= SMALL
        if small not in self._pairs:
            backbone, labeller = usual(self.defense, small)
            threat = self.threat or STRENGTHS[self.strength][small]
            writer = next(iter(students(self.defense)), None)
            self._pairs[small] = Pair.load(self.backbone or backbone, self.labeller or labeller, threat, self.device, writer)
        return self._pairs[small]

    def settings(self, height: int, width: int) -> dict[str, str | int | float]:
        pair = self.pair(height, width)
        known: dict[str, str | int | float] = {
            "defense": self.defense,
            "threat": str(pair.threat),
            "backbone": pair.armed_on(lambda card: card.name),
            "backbone_sha256": pair.armed_on(lambda card: card.sha256),
            "labeller": pair.labeller.card.name,
            "labeller_sha256": pair.labeller.card.sha256,
            "threshold": self.threshold,
            "seed": self.seed,
        }
        if pair.writer is not None:
            known |= {"writer": pair.writer.card.name, "writer_sha256": pair.writer.card.sha256}
        return known | ({} if self.survive is None else {"survive": self.survive}) | self.bounds.settings()

    def class_index(self, name: str, height: int, width: int) -> int:
        classes = self.pair(height, width).backbone.card.classes
        if name in classes:
            return classes.index(name)
        if name.isdecimal() and int(name) < len(classes):
            return int(name)
        raise SpecError(f"label: got {name!r}; a number below {len(classes)} or one of {', '.join(classes[:10])}")

    def arm(self, pictures: Sequence[Pixels], labels: Sequence[int | None]) -> list[Armed]:
        return self._each(self._arm, pictures, labels)

    def margins(self, pictures: Sequence[Pixels], labels: Sequence[int]) -> list[float]:
        return self._each(lambda pixels, label: self._margin(as_tensor(pixels, self.device), label), pictures, labels)

    def _each(self, work: Callable[[Pixels, Given], Made], pictures: Sequence[Pixels], given: Sequence[Given]) -> list[Made]:
        """`work` on each picture; on a CPU each on one thread, as many at once as torch has threads.

        Sums are rounded otherwise when threads share them: so a picture gets the same bytes on any number of cores, and two cores do two pictures
        sooner than they do one after the other together.
        """
        if self.hands == 1 or not pictures:
            return [work(pixels, one) for pixels, one in zip(pictures, given, strict=True)]
        self.pair(*pictures[0].shape[:2])  # loaded once, not by each thread
        threads = self.hands
        try:
            with ThreadPoolExecutor(min(threads, len(pictures)), initializer=torch.set_num_threads, initargs=(1,)) as cores:
                return list(cores.map(work, pictures, given))
        finally:
            torch.set_num_threads(threads)  # some libraries below keep one number for all threads

    def notes(self) -> list[str]:
        return [
            f"{pair.labeller.card.name} knows {len(pair.backbone.card.classes)} classes ({', '.join(pair.backbone.card.classes[:10])}): "
            "a picture of anything else is hardened towards the nearest of them, which protects it little against models that know better."
            for pair in self._pairs.values()
        ]

    def _margin(self, x: Tensor, label: int) -> float:
        with torch.inference_mode():
            logits = self.pair(*x.shape[2:]).backbone.view(x)(x).float()
        return float(margin(logits, torch.tensor([label], device=x.device)).neg())

    def label(self, x: Tensor, given: int | None) -> Label:
        """The class to harden one picture (`1 c h w`) towards: the user's, else the labeller's, else (where that is uncertain) the backbone's."""
        if given is not None:
            return Label(given, 1.0, "given", uncertain=False)
        pair = self.pair(*x.shape[2:])
        with torch.inference_mode():
            asked = pair.labeller.view(x)(x).float().softmax(1)[0]
            uncertain = float(asked.max()) < self.threshold
            if uncertain and pair.labeller is not pair.backbone:
                asked = pair.backbone.view(x)(x).float().softmax(1)[0]
        who = "backbone" if uncertain or pair.labeller is pair.backbone else "labeller"
        return Label(int(asked.argmax()), float(asked.max()), who, uncertain)

    def _arm(self, pixels: Pixels, given: int | None) -> Armed:
        x = as_tensor(pixels, self.device)
        pair = self.pair(*x.shape[2:])
        label = self.label(x, given)
        view = View.of(pair.twin, x.shape[2], x.shape[3], pair.backbone.card.size)
        protector: Callable[..., Tensor] = self.protector
        if accepts(protector, "grid") and x.shape[2] * x.shape[3] > view.size[0] * view.size[1]:
            protector = partial(protector, grid=view.size)
        if pair.writer is not None:
            protector = partial(protector, writer=pair.writer)
        if self.survive is not None:
            protector = partial(protector, survive=self.survive)
        y = torch.tensor([label.index], device=x.device)

        def released(threat: Threat) -> Tensor:
            noise = Noise(self.seed, torch.tensor([content_id(pixels)]))
            protected = at_working_size(protector, view, x, y, threat=threat, noise=noise, side=pair.backbone.card.size)
            return release(protected, x, threat)

        eps, armed = self._bounded(released, x, pair.threat)
        change = armed - x
        report = ArmReport(
            label=label.index,
            name=pair.backbone.card.classes[label.index],
            confidence=label.confidence,
            labelled_by=label.by,
            uncertain=label.uncertain,
            linf=round(float(change.abs().amax()) * 255),
            psnr=float(psnr(armed, x)),
            ssim=float(ssim(armed, x)),
            view_share=float(view.see(change).square().mean().sqrt() / change.square().mean().sqrt().clamp_min(1e-12)),
            margin_before=self._margin(x, label.index),
            margin_after=self._margin(armed, label.index),
            eps=eps,
            survive=self.survive,
        )
        return Armed((armed[0].permute(1, 2, 0) * 255.0).round().to(torch.uint8).cpu().numpy(), report)

    def _bounded(self, released: Callable[[Threat], Tensor], x: Tensor, threat: Threat) -> tuple[int | None, Tensor]:
        """The release of the largest budget that keeps the bounds, and that budget in levels; without bounds that of the whole threat."""
        if not self.bounds:
            return None, released(threat)
        top = int(255.0 * threat.eps + 1e-9)

        def made(level: int) -> Tensor:
            return released(threat if level == top else replace(threat, eps=level / 255.0))

        found = largest(top, made, lambda armed: self.bounds.complaint(armed, x) is None) if top else None
        if found is None:
            why = f"even a change of 1/255 gives {self.bounds.complaint(made(1), x)}" if top else f"{threat} has no whole level"
            raise InputError(f"quality: {why}; looser bounds, for example --min-psnr 40")
        return found


def as_tensor(pixels: Pixels, device: str) -> Tensor:
    """`h w c` uint8 -> `1 c h w` float32 in [0, 1]."""
    return torch.from_numpy(np.array(pixels)).to(device).permute(2, 0, 1)[None].float() / 255.0


def content_id(pixels: Pixels) -> int:
    """The id of a picture's noise: 63 bits of the sha256 of its size and pixels, so that equal pictures get equal noise anywhere."""
    digest = hashlib.sha256(repr(pixels.shape).encode() + np.ascontiguousarray(pixels).tobytes()).digest()
    return int.from_bytes(digest[:8], "big") >> 1
