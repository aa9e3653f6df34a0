"""Arm pictures of one size in memory: label, defend at the picture's own size, round to 8 bits, measure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

Pixels = NDArray[np.uint8]  # h w 3 (RGB) or h w 1 (greyscale)


@dataclass(frozen=True, slots=True)
class ArmReport:
    """What was done to one picture. Numbers are measured on the 8-bit release."""

    label: int
    name: str  # the class's name
    confidence: float  # of whoever labelled, in [0, 1]; 1 for a given label
    labelled_by: str  # "labeller", "backbone" or "given"
    uncertain: bool  # the labeller was below its threshold
    linf: int  # largest change, in levels of 1/255
    psnr: float  # dB
    ssim: float
    view_share: float  # size of the change in the backbone's view over its size in the picture (root mean square)
    margin_before: float  # backbone's logit of the label minus the best other: above 0 the backbone says the label
    margin_after: float
    eps: int | None = None  # the budget that was used, in levels of 1/255, where bounds on the quality chose it
    survive: str | None = None  # the publishing chains it was armed for


@dataclass(frozen=True, slots=True)
class Armed:
    """An armed picture, of the size and mode of its original, and what was done."""

    pixels: Pixels
    report: ArmReport


class Armourer(Protocol):
    """Arms pictures with one set of models and parameters."""

    @property
    def hands(self) -> int:
        """How many threads may call it at once."""

    def settings(self, height: int, width: int) -> dict[str, str | int | float]:
        """Everything the result of a picture of this size depends on besides its pixels (defense, threat, backbone and labeller with sha256, threshold,
        seed): JSON-able, for keys and tags."""

    def arm(self, pictures: Sequence[Pixels], labels: Sequence[int | None]) -> list[Armed]:
        """Arm pictures of one shape; a label of None is asked of the labeller. The result of a picture does not depend on its neighbours."""

    def margins(self, pictures: Sequence[Pixels], labels: Sequence[int]) -> list[float]:
        """The backbone's margins on pictures of one shape, e.g. after a lossy file was read back."""

    def class_index(self, name: str, height: int, width: int) -> int:
        """The index of a class that a label file gives by name or number, for a picture of this size; SpecError if there is none."""

    def notes(self) -> list[str]:
        """What a user should know of the models that were used so far, a sentence each."""
