"""The decoder processes: what one file does to its process costs that file alone."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from forearm.images.limits import Limits
from forearm.jobs.workers import Refused, Save, Saved, save
from forearm.service.decoders import Decoders
from forearm.service.reading import Opened, Read, read
from forearm.service.settings import SERVED, Settings
from tests.images.corpus import png, saved, sound


def hoard(size: int) -> int | Refused:
    return len(bytearray(size))


def crash(_: None) -> int | Refused:
    os.kill(os.getpid(), 11)
    return 0


def sleep(seconds: float) -> int | Refused:
    time.sleep(seconds)
    return 0


def write(path: str) -> int | Refused:
    return Path(path).write_bytes(b"x")


def who(_: None) -> int | Refused:
    return os.getpid()


@pytest.fixture(scope="module")
def decoders() -> Iterator[Decoders]:
    crew = Decoders(1, 2**28, seconds=20.0)
    yield crew
    crew.close()


def ask(decoders: Decoders, work: object, request: object) -> object:
    return asyncio.run(decoders.ask(work, request))  # type: ignore[arg-type]


def sound_after(decoders: Decoders) -> None:
    opened = ask(decoders, read, Read(sound("PNG"), SERVED))
    assert isinstance(opened, Opened)
    assert opened.picture.pixels.shape == (24, 32, 3)


def test_memory_is_bounded(decoders: Decoders) -> None:
    assert ask(decoders, hoard, 2**27) == 2**27
    process = ask(decoders, who, None)
    assert ask(decoders, hoard, 2**29) == Refused("MemoryError")
    assert ask(decoders, who, None) == process
    sound_after(decoders)


@pytest.mark.parametrize(("work", "request_", "says"), [(crash, None, "died"), (sleep, 60.0, "seconds of work")], ids=["crash", "endless"])
def test_a_process_that_is_lost_is_replaced(
    decoders: Decoders, monkeypatch: pytest.MonkeyPatch, work: object, request_: object, says: str
) -> None:
    process, ended = ask(decoders, who, None), decoders.ended
    with monkeypatch.context() as patch:
        patch.setattr(decoders, "seconds", 0.3 if work is sleep else 20.0)
        answer = ask(decoders, work, request_)
    assert isinstance(answer, Refused)
    assert says in answer.reason
    assert decoders.ended == ended + 1
    assert ask(decoders, who, None) != process
    sound_after(decoders)


def test_no_file_is_written(decoders: Decoders, tmp_path: Path) -> None:
    answer = ask(decoders, write, str(tmp_path / "a"))
    assert isinstance(answer, Refused)
    sound_after(decoders)


def test_a_signal_to_the_group_spares_them(decoders: Decoders) -> None:
    process = ask(decoders, who, None)
    assert isinstance(process, int)
    for number in (2, 15):
        os.kill(process, number)
    assert ask(decoders, who, None) == process


PROGRAM = """
import os
from forearm.service.decoders import Decoders
from tests.service.test_decoders import ask, who
if __name__ == "__main__":
    crew = Decoders(1, 2**28, 20.0)
    print(ask(crew, who, None), flush=True)
    os.kill(os.getpid(), 9)
"""


def test_they_end_with_their_parent() -> None:
    done = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, text=True, timeout=60, cwd=Path(__file__).parents[2])
    process = int(done.stdout)
    end = time.monotonic() + 10
    while Path(f"/proc/{process}").exists() and "\nState:\tZ" not in Path(f"/proc/{process}/status").read_text():
        assert time.monotonic() < end
        time.sleep(0.05)


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP", "TIFF", "BMP"])
def test_the_largest_picture_fits(kind: str) -> None:
    """Decoded, encoded and read back within the memory that the settings give, twice in one process."""

    settings = Settings()
    height = settings.limits.max_pixels // 6000
    rows = np.random.default_rng(0).integers(0, 256, (height // 8, 750, 3), dtype=np.uint8)
    image = Image.fromarray(rows).resize((6000, height))
    data = saved(
        image, kind, **({"lossless": False, "method": 0} if kind == "WEBP" else {"compression": "tiff_lzw"} if kind == "TIFF" else {})
    )
    limits = SERVED if len(data) <= SERVED.max_bytes else Limits(max_bytes=len(data), max_pixels=SERVED.max_pixels)
    crew = Decoders(1, settings.decoder_memory, seconds=300.0)
    try:
        for _ in range(2):
            opened = ask(crew, read, Read(data, limits))
            assert isinstance(opened, Opened), opened
            answer = ask(crew, save, Save(opened.picture, None, limits))
            assert isinstance(answer, Saved), answer
        assert crew.ended == 0
    finally:
        crew.close()


def test_the_bound_is_below_what_a_bomb_asks(decoders: Decoders) -> None:
    answer = ask(decoders, read, Read(png(4000, 4000, bytes(4000 * 12001)), SERVED))
    assert isinstance(answer, Opened | Refused)
    sound_after(decoders)
