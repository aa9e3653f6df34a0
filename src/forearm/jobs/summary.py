"""What became of a folder job."""

from __future__ import annotations

import math
import statistics
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from forearm.images.journal import Line


@dataclass(frozen=True, slots=True)
class Summary:
    """The lines of one job. `done`: armed by an earlier run; `left`: not reached, or in a dry run: would be armed."""

    armed: tuple[Line, ...]
    done: tuple[Line, ...]
    skipped: tuple[Line, ...]
    failed: tuple[Line, ...]
    left: tuple[str, ...]
    seconds: float
    dry_run: bool = False

    @classmethod
    def of(cls, done: Sequence[Line], settled: Sequence[Line], left: Sequence[str], started: float, dry_run: bool = False) -> Summary:
        """Sort lines; `started` by `time.perf_counter`."""
        by = {status: tuple(line for line in settled if line.status == status) for status in ("armed", "skipped", "failed")}
        return cls(by["armed"], tuple(done), by["skipped"], by["failed"], tuple(left), time.perf_counter() - started, dry_run)

    @property
    def uncertain(self) -> tuple[Line, ...]:
        """Armed files whose labeller was below its threshold."""
        return tuple(line for line in self.armed + self.done if line.uncertain)

    @property
    def median_psnr(self) -> float | None:
        """In dB over the armed files; None without any that changed."""
        values = [line.psnr for line in self.armed + self.done if line.psnr is not None and math.isfinite(line.psnr)]
        return statistics.median(values) if values else None

    @property
    def budgets(self) -> dict[int, int]:
        """How many armed files got which budget, in levels of 1/255, where bounds on the quality chose it."""
        return dict(sorted(Counter(line.eps for line in self.armed + self.done if line.eps is not None).items()))

    @property
    def empty(self) -> bool:
        """Whether there was nothing to arm: no picture was found, and nothing failed."""
        found = [line for line in self.skipped if line.sha256 is not None]
        return not (self.armed or self.done or self.failed or self.left or found)

    def values(self) -> dict[str, Any]:
        """The summary for JSON: counts, the median PSNR, and the lines that ask for a look."""
        return {
            "counts": {name: len(getattr(self, name)) for name in ("armed", "done", "skipped", "failed", "left", "uncertain")},
            "median_psnr": self.median_psnr,
            "budgets": {str(eps): count for eps, count in self.budgets.items()},
            "seconds": round(self.seconds, 3),
            "dry_run": self.dry_run,
            "uncertain": [
                {"file": line.file, "name": line.name, "confidence": line.confidence, "by": line.labelled_by} for line in self.uncertain
            ],
            "failed": [{"file": line.file, "reason": line.reason} for line in self.failed],
            "skipped": [{"file": line.file, "reason": line.reason} for line in self.skipped],
            "left": list(self.left),
        }
