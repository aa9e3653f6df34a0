"""An armourer without a model, for tests of the folder job: every pixel moves by one level, up or down by a hash of the content."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from forearm.errors import SpecError
from forearm.jobs.arm import Armed, ArmReport, Pixels


@dataclass
class Fake:
    """Deterministic in the pixels, the label and the seed. `sleep`: seconds a picture. `memory`: largest batch that fits, 0 for none."""

    seed: int = 0
    sleep: float = 0.0
    memory: int = 10**6
    hands: int = 1
    batches: list[tuple[tuple[int, ...], int]] = field(default_factory=list)
    asked: list[int | None] = field(default_factory=list)

    def settings(self, height: int, width: int) -> dict[str, str | int | float]:
        kind = "small" if max(height, width) <= 64 else "photo"
        return {"defense": "fake", "threat": "linf:1/255", "backbone": f"none-{kind}", "seed": self.seed}

    def arm(self, pictures: Sequence[Pixels], labels: Sequence[int | None]) -> list[Armed]:
        assert len({pixels.shape for pixels in pictures}) == 1
        self.batches.append((pictures[0].shape, len(pictures)))
        if len(pictures) > self.memory:
            raise RuntimeError("[enforce fail] DefaultCPUAllocator: not enough memory: you tried to allocate 9 bytes")
        time.sleep(self.sleep * len(pictures))
        self.asked += labels
        return [self.one(pixels, label) for pixels, label in zip(pictures, labels, strict=True)]

    def one(self, pixels: Pixels, label: int | None) -> Armed:
        seed = hashlib.sha256(pixels.tobytes() + repr((self.seed, label)).encode()).digest()[:4]
        step = np.random.default_rng(list(seed)).integers(-1, 2, pixels.shape)
        armed = (pixels.astype(np.int16) + step).clip(0, 255).astype(np.uint8)
        linf = int(np.abs(armed.astype(np.int16) - pixels).max())
        return Armed(
            armed,
            ArmReport(
                label=7 if label is None else label,
                name="ship",
                confidence=1.0 if label is not None else 0.25,
                labelled_by="labeller" if label is None else "given",
                uncertain=label is None,
                linf=linf,
                psnr=50.0,
                ssim=0.99,
                view_share=0.5,
                margin_before=0.5,
                margin_after=1.5,
            ),
        )

    def margins(self, pictures: Sequence[Pixels], labels: Sequence[int]) -> list[float]:
        return [float(pixels.mean()) + label for pixels, label in zip(pictures, labels, strict=True)]

    def notes(self) -> list[str]:
        return ["the fake knows nothing"]

    def class_index(self, name: str, height: int, width: int) -> int:
        classes = ("cat", "dog")
        if name in classes:
            return classes.index(name)
        if name.isdecimal() and int(name) < 10:
            return int(name)
        raise SpecError(f"label: got {name!r}; a number below 10 or one of cat, dog")
