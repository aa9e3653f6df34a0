"""How good an armed picture must look, and the largest budget at which it does."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import torch
from torch import Tensor

from forearm.core import lpips
from forearm.core.quality import psnr
from forearm.errors import SpecError

Release = TypeVar("Release")
NARROW = 17  # pixels an edge: what LPIPS needs


@dataclass(frozen=True, slots=True)
class Bounds:
    """Least PSNR in dB, greatest LPIPS-Squeeze distance; None: not bounded. Of the armed pixels, before what a lossy file loses by itself."""

    min_psnr: float | None = None
    max_lpips: float | None = None
    distance: lpips.Lpips | None = None
    weights_sha256: str = ""

    @classmethod
    def of(cls, min_psnr: float | None, max_lpips: float | None, weights: Path | None, device: str = "cpu") -> Bounds:
        """Bounds with the network they need, from the folder `weights`. SpecError for numbers that bound nothing or a folder that is not given."""
        if min_psnr is not None and not 0.0 < min_psnr < 100.0:
            raise SpecError(f"min-psnr: got {min_psnr}; decibels above 0 and below 100, for example 36")
        if max_lpips is None:
            return cls(min_psnr)
        if not 0.0 < max_lpips < 10.0:
            raise SpecError(f"max-lpips: got {max_lpips}; a distance above 0, for example 0.05")
        if weights is None:
            raise SpecError(f"max-lpips: got no weights; a folder with {lpips.TRUNK} and {lpips.HEADS}, for example --lpips lpips_squeeze/")
        network = lpips.load(weights, torch.device(device))
        content = b"".join((weights / name).read_bytes() for name in (lpips.TRUNK, lpips.HEADS))
        return cls(min_psnr, max_lpips, network, hashlib.sha256(content).hexdigest())

    def __bool__(self) -> bool:
        return self.min_psnr is not None or self.max_lpips is not None

    def settings(self) -> dict[str, str | int | float]:
        """What a result depends on, for its key; nothing without bounds."""
        known: dict[str, str | int | float] = {}
        if self.min_psnr is not None:
            known["min_psnr"] = self.min_psnr
        if self.max_lpips is not None:
            known |= {"max_lpips": self.max_lpips, "lpips_sha256": self.weights_sha256}
        return known

    def complaint(self, armed: Tensor, x: Tensor) -> str | None:
        """What one armed picture (`1 c h w`) misses against its original, in words; None where it keeps the bounds. Cost: one pass of SqueezeNet."""
        if self.min_psnr is not None and not (found := float(psnr(armed, x))) >= self.min_psnr:
            return f"a PSNR of {found:.2f} dB, below {self.min_psnr:g}"
        if self.max_lpips is None or self.distance is None:
            return None
        if min(x.shape[2:]) < NARROW:
            return f"a picture of fewer than {NARROW} pixels an edge, which LPIPS cannot measure"
        far = float(self.distance(armed.expand(-1, 3, -1, -1), x.expand(-1, 3, -1, -1)))
        return None if far <= self.max_lpips else f"an LPIPS of {far:.4f}, above {self.max_lpips:g}"


def largest(top: int, make: Callable[[int], Release], good: Callable[[Release], bool]) -> tuple[int, Release] | None:
    """The largest level from 1 to `top` whose release is good, and that release; None where not even that of 1 is.

    By bisection, so a release of more must not be good where one of less is not. `top` is tried first: a picture that keeps its bounds costs
    one making, another at most 1 + log2(top), rounded up.
    """
    release = make(top)
    if good(release):
        return top, release
    found, bad = None, top
    least = 0
    while bad - least > 1:
        middle = (least + bad) // 2
        release = make(middle)
        if good(release):
            least, found = middle, (middle, release)
        else:
            bad = middle
    return found
