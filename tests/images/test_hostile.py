"""Every file of the corpus is decoded or refused on one line, as expected, in bounded time and memory."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from forearm.errors import InputError
from forearm.images.codec import decode, encode, readback
from tests.images.corpus import FILES, expected, hostile, photo, saved, sound

PROGRAM = """
import json, os, resource, sys, time
from pathlib import Path
from forearm.errors import InputError
from forearm.images.codec import decode, encode, readback
resource.setrlimit(resource.RLIMIT_AS, (5 << 29, 5 << 29))
for path in sorted(Path(sys.argv[1]).iterdir()):
    start = time.process_time()
    try:
        picture = decode(path)
        linf = readback(encode(picture, picture.pixels, {"forearm": "1"}), picture.pixels).linf
        said = ["pass", linf if picture.lossless else 0]
    except InputError as error:
        said = ["refuse", str(error)]
    print(json.dumps([os.fsencode(path.name).hex(), *said, time.process_time() - start]))
status = Path("/proc/self/status")  # ru_maxrss starts at the size of the process that this one was forked from
peak = [int(line.split()[1]) for line in status.read_text().splitlines() if line.startswith("VmHWM")] if status.exists() else []
print(json.dumps(peak[0] if peak else resource.getrusage(resource.RUSAGE_SELF).ru_maxrss))
"""


def test_the_corpus_is_judged_as_expected(tmp_path: Path) -> None:
    paths = hostile(tmp_path / "corpus")
    if os.geteuid() != 0:
        (tmp_path / "corpus" / "pass_unreadable_unless_root.png").chmod(0o600)
    run = subprocess.run(
        [sys.executable, "-c", PROGRAM, str(tmp_path / "corpus")],
        check=True, capture_output=True, text=True, timeout=60, env={**os.environ, "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"},
    )  # fmt: skip
    *lines, kilobytes = map(json.loads, run.stdout.splitlines())
    assert len(lines) == len(paths) >= 45
    for name, said, detail, seconds in lines:
        path = Path(os.fsdecode(bytes.fromhex(name)))
        assert said == expected(path), (path, detail)
        assert seconds < 5, path
        if said == "refuse":
            assert detail.isprintable(), path
            assert "; " in detail
            assert "for example" in detail
        else:
            assert detail == 0, path
    assert kilobytes < 500_000


def test_the_corpus_is_large_and_of_both_kinds() -> None:
    verdicts = [expected(Path(name)) for name in FILES]
    assert len(verdicts) >= 100
    assert min(verdicts.count("pass"), verdicts.count("refuse")) >= 25


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "BMP", "TIFF"])
def test_every_cut_is_refused(kind: str) -> None:
    data = sound(kind)
    whole = decode(data).pixels
    for size in range(0, len(data), 7):
        try:
            cut = decode(data[:size])
        except InputError:
            continue
        assert np.array_equal(cut.pixels, whole), f"{kind} cut to {size} bytes is taken for a whole file"


@pytest.mark.parametrize(
    "source",
    [
        sound("JPEG"),
        saved(Image.fromarray(photo()), "JPEG", progressive=True),
        sound("PNG"),
        sound("WEBP"),
        saved(Image.fromarray(photo(channels=4)), "WEBP", lossless=True),
        sound("BMP"),
        saved(Image.fromarray(photo()), "TIFF", compression="tiff_lzw"),
    ],
    ids=["jpeg", "progressive", "png", "webp", "webp-lossless", "bmp", "tiff"],
)
def test_damage_is_refused_or_decoded_and_nothing_else(source: bytes) -> None:
    rng = np.random.default_rng(0)
    for _ in range(60):
        damaged = bytearray(source)
        for _ in range(rng.integers(1, 5)):
            at = int(rng.integers(len(damaged) if rng.random() < 0.5 else min(len(damaged), 120)))
            damaged[at : at + int(rng.integers(3))] = rng.bytes(int(rng.integers(3)))
        try:
            picture = decode(bytes(damaged))
        except InputError as error:
            said = str(error)
            assert said.isprintable()
            continue
        data = encode(picture, picture.pixels, None)
        again = decode(data)
        assert (again.format, again.mode, again.width, again.height) == (picture.format, picture.mode, picture.width, picture.height)
        assert not picture.lossless or readback(data, picture.pixels).linf == 0
