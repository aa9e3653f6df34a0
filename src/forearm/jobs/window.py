"""Decoded pictures that wait for others of their size, so that they are armed together."""

from __future__ import annotations

from dataclasses import dataclass

from forearm.images.picture import Picture
from forearm.jobs.plan import Task


@dataclass(frozen=True, slots=True)
class Ready:
    """A decoded picture with its task and the user's label."""

    task: Task
    picture: Picture
    label: int | None
    mode: int  # permission bits of the input
    seconds: float  # spent so far

    @property
    def pixels(self) -> int:
        """Its number of pixels."""
        height, width, _ = self.picture.pixels.shape
        return int(height * width)


class Window:
    """Groups of equal shape. A group is ripe when it holds `batch` pictures or `batch_pixels` pixels."""

    def __init__(self, batch: int, batch_pixels: int) -> None:
        self.batch = batch
        self.batch_pixels = batch_pixels
        self.pixels = 0
        self._groups: dict[tuple[int, ...], list[Ready]] = {}

    def add(self, ready: Ready) -> None:
        """One more picture."""
        self._groups.setdefault(ready.picture.pixels.shape, []).append(ready)
        self.pixels += ready.pixels

    def take(self, everything: bool) -> list[Ready]:
        """A ripe batch; with `everything`, when none is ripe, the group that waits longest. Empty if there is none.

        A batch has at most `batch` pictures and `batch_pixels` pixels, but at least one picture.
        """
        ripe = (shape for shape, group in self._groups.items() if len(group) >= self._most(group))
        shape = next(ripe, next(iter(self._groups), None) if everything else None)
        if shape is None:
            return []
        group = self._groups.pop(shape)
        most = self._most(group)
        if group[most:]:
            self._groups[shape] = group[most:]
        self.pixels -= sum(ready.pixels for ready in group[:most])
        return group[:most]

    def _most(self, group: list[Ready]) -> int:
        """How many pictures of this size make a batch."""
        return max(1, min(self.batch, self.batch_pixels // group[0].pixels))
