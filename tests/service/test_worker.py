"""The thread that owns the models: order, batches, what fails and what is cancelled."""

from __future__ import annotations

import threading
from collections.abc import Iterator

import numpy as np
import pytest

from forearm.errors import SpecError
from forearm.jobs.arm import Armed, Pixels
from forearm.service.worker import TooLarge, Worker
from tests.jobs.armourers import Fake


def picture(seed: int = 0, height: int = 8) -> Pixels:
    return np.random.default_rng(seed).integers(0, 256, (height, 8, 3), dtype=np.uint8)


class Line:
    """A worker that is kept busy until `go`, so that what is put meanwhile waits."""

    def __init__(self, armourer: Fake, batch: int = 4, batch_pixels: int = 10**6) -> None:
        self.go = threading.Event()
        self.worker = Worker(armourer, batch, batch_pixels)
        self.worker.call(lambda: self.go.wait(20))


@pytest.fixture
def opened() -> Iterator[list[Line]]:
    lines: list[Line] = []
    yield lines
    for line in lines:
        line.go.set()
        line.worker.close()


def start(opened: list[Line], armourer: Fake, batch: int = 4, batch_pixels: int = 10**6) -> Line:
    opened.append(Line(armourer, batch, batch_pixels))
    return opened[-1]


def test_what_waits_and_is_alike_goes_together(opened: list[Line]) -> None:
    fake = Fake()
    line = start(opened, fake)
    futures = [line.worker.arm(picture(n, height), None) for n, height in enumerate((8, 6, 8, 8, 6, 8, 8))]
    line.go.set()
    results = [future.result(20) for future in futures]
    assert fake.batches == [((8, 8, 3), 4), ((6, 8, 3), 2), ((8, 8, 3), 1)]
    for n, (height, done) in enumerate(zip((8, 6, 8, 8, 6, 8, 8), results, strict=True)):
        assert np.array_equal(done.armed.pixels, fake.one(picture(n, height), None).pixels)
        assert done.settings == fake.settings(height, 8)


def test_pixels_bound_a_batch(opened: list[Line]) -> None:
    fake = Fake()
    line = start(opened, fake, batch=8, batch_pixels=130)
    futures = [line.worker.arm(picture(n), None) for n in range(4)]
    futures.append(line.worker.arm(picture(4, 100), None))  # more than the bound, alone
    line.go.set()
    assert all(future.result(20) for future in futures)
    assert [size for _, size in fake.batches] == [2, 2, 1]


def test_urgent_calls_go_first(opened: list[Line]) -> None:
    said: list[str] = []

    class Speaking(Fake):
        def arm(self, pictures: list[Pixels], labels: list[int | None]) -> list[Armed]:  # type: ignore[override]
            said.append("arm")
            return super().arm(pictures, labels)

    line = start(opened, Speaking())
    last = line.worker.arm(picture(), None)
    line.worker.call(lambda: said.append("call"))
    line.worker.call(lambda: said.append("urgent"), urgent=True)
    line.go.set()
    last.result(20)
    line.worker.call(lambda: None).result(20)
    assert said == ["urgent", "arm", "call"]


def test_a_batch_that_fails_is_halved_down_to_the_one(opened: list[Line]) -> None:
    class Picky(Fake):
        def arm(self, pictures: list[Pixels], labels: list[int | None]) -> list[Armed]:  # type: ignore[override]
            if any((pixels == 7).all() for pixels in pictures):
                raise RuntimeError("not this one")
            return super().arm(pictures, labels)

    line = start(opened, Picky())
    good = [line.worker.arm(picture(n), None) for n in range(3)]
    bad = line.worker.arm(np.full((8, 8, 3), 7, np.uint8), None)
    unknown = line.worker.arm(picture(9), "lorry")
    line.go.set()
    assert all(future.result(20) for future in good)
    with pytest.raises(RuntimeError, match="not this one"):
        bad.result(20)
    with pytest.raises(SpecError, match="lorry"):
        unknown.result(20)
    assert line.worker.alive


def test_memory_halves_a_batch(opened: list[Line]) -> None:
    line = start(opened, Fake(memory=1))
    futures = [line.worker.arm(picture(n), None) for n in range(4)]
    line.go.set()
    assert all(future.result(20) for future in futures)
    none = start(opened, Fake(memory=0))
    none.go.set()
    with pytest.raises(TooLarge, match="not enough memory"):
        none.worker.arm(picture(), None).result(20)


def test_what_is_cancelled_is_never_armed(opened: list[Line]) -> None:
    fake = Fake()
    line = start(opened, fake)
    first, second = line.worker.arm(picture(0), None), line.worker.arm(picture(1), None)
    assert first.cancel()
    line.go.set()
    second.result(20)
    assert fake.batches == [((8, 8, 3), 1)]


def test_several_hands_work_at_once() -> None:
    """Each has a picture in hand before either is done; an end waits for both."""
    both = threading.Barrier(2, timeout=20)
    begun: list[str] = []

    class Meeting(Fake):
        def arm(self, pictures: list[Pixels], labels: list[int | None]) -> list[Armed]:  # type: ignore[override]
            both.wait()
            return super().arm(pictures, labels)

    worker = Worker(Meeting(), 1, 10**6, hands=2, begin=lambda: begun.append(threading.current_thread().name))
    futures = [worker.arm(picture(n), None) for n in range(4)]
    for n, future in enumerate(futures):
        assert np.array_equal(future.result(20).armed.pixels, Fake().one(picture(n), None).pixels)
    assert sorted(begun) == ["models-0", "models-1"]
    assert worker.alive
    worker.close()
    assert not worker.alive
    assert not any(thread.name.startswith("models-") for thread in threading.enumerate())


def test_closing_cancels_what_waits(opened: list[Line]) -> None:
    line = start(opened, Fake())
    waiting = line.worker.arm(picture(), None)
    closing = threading.Thread(target=line.worker.close)
    closing.start()
    while not waiting.cancelled():
        pass
    line.go.set()
    closing.join(20)
    assert not line.worker.alive
    with pytest.raises(RuntimeError, match="closed"):
        line.worker.call(lambda: None)
