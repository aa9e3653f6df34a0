"""Claim: with 16 clients and published MSPD the service arms at least 90 % as many photos a second as its engine does alone.

The engine alone is the armoury in this process on pictures that are decoded already: no HTTP, no files, nothing else at work. The service is
`forearm serve` in a process of its own, sent the same JPEG files over real HTTP; it decodes, arms, encodes and measures the written file anew. Both
sides arm the same photos in turn, round by round. Then throughput and latency for 1 to 32 clients, each of which sends its next photo when the last
one is back. Every answer for one photo must be the same to the byte, whoever else asked. The same is measured with the default release, whose engine
has so little to do that files and HTTP are a good part of the work.

    python benchmarks/service_load.py [--pictures 32] [--rounds 3] [--requests 100] [--plot docs/service_load.png]
"""

from __future__ import annotations

import argparse
import hashlib
import http.client
import itertools
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from claim import record
from forearm.data import sets
from forearm.defenses.preemptive.protector import DEFAULT
from forearm.images.codec import decode
from forearm.jobs.armory import Armory

CLIENTS = (1, 2, 4, 8, 16, 32)
JUDGED = 16
PUBLISHED = "mspd"


@dataclass
class Told:
    """What clients saw: seconds of each request, in all, and the armed files' sums by photo."""

    latencies: list[float] = field(default_factory=list)
    seconds: float = 0.0
    refused: list[int] = field(default_factory=list)
    sums: dict[int, set[str]] = field(default_factory=dict)


@contextmanager
def serving(*options: str) -> Iterator[int]:
    """`forearm serve` on a free port."""
    command = [sys.executable, "-m", "forearm", "serve", "--port", "0", *options]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
        try:
            assert process.stderr is not None
            line = process.stderr.readline()
            if not line.startswith("forearm serves"):
                raise SystemExit(line + process.stderr.read())
            yield int(line.split()[2].rpartition(":")[2])
        finally:
            process.terminate()


def ask(port: int, files: Sequence[bytes], clients: int, requests: int) -> Told:
    """`requests` photos by `clients` threads, each with one connection."""
    told, turn, lock = Told(), itertools.count(), threading.Lock()

    def client() -> None:
        line = http.client.HTTPConnection("127.0.0.1", port, timeout=600)
        while (number := next(turn)) < requests:
            began = time.perf_counter()
            line.request("POST", "/v1/arm", files[number % len(files)])
            answer = line.getresponse()
            data = answer.read()
            took = time.perf_counter() - began
            with lock:
                if answer.status == 200:
                    told.latencies.append(took)
                    told.sums.setdefault(number % len(files), set()).add(hashlib.sha256(data).hexdigest())
                else:
                    told.refused.append(answer.status)
        line.close()

    threads = [threading.Thread(target=client) for _ in range(clients)]
    began = time.perf_counter()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    told.seconds = time.perf_counter() - began
    return told


def photos(count: int) -> list[bytes]:
    """Held-out photos of 224 pixels, as the JPEG files that they are, spread over the classes."""
    paths = sorted((sets.root() / "imagenette").glob("n*/ILSVRC2012_val_*"))
    return [path.read_bytes() for path in paths[:: max(1, len(paths) // count)][:count]]


def share(values: Sequence[float], part: float) -> float:
    """The value below which this part of the values lies (nearest rank)."""
    return sorted(values)[min(len(values) - 1, max(0, -(-int(part * 1000) * len(values) // 1000) - 1))]


def draw(path: Path, loads: dict[str, dict[str, Any]]) -> None:
    """Throughput and latency against clients, a colour for each defence."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot, ticker

    figure, (left, right) = pyplot.subplots(1, 2, figsize=(9, 3.4), layout="constrained")
    for number, (defense, load) in enumerate(loads.items()):
        colour, curve = f"C{number}", load["by_clients"]
        left.plot(list(curve), [row["per_second"] for row in curve.values()], "o-", color=colour, label=f"service, {defense}")
        left.axhline(statistics.median(load["engine_per_second"]), color=colour, linestyle="--", label=f"engine alone, {defense}")
        for name, style in (("p50", "o-"), ("p99", "s--")):
            right.plot(list(curve), [row[name] for row in curve.values()], style, color=colour, label=f"{name}, {defense}")
    left.set(xlabel="clients", ylabel="photos a second", xscale="log", ylim=(0, None))
    right.set(xlabel="clients", ylabel="seconds to the armed file", xscale="log", yscale="log")
    right.yaxis.set_major_locator(ticker.LogLocator(subs=(1.0, 2.0, 5.0)))
    right.yaxis.set_major_formatter("{x:g}")
    for axes, where in ((left, (0.3, 0.22)), (right, "upper left")):
        axes.set_xticks(CLIENTS, [str(clients) for clients in CLIENTS])
        axes.minorticks_off()
        axes.grid(alpha=0.3)
        axes.legend(fontsize=8, loc=where)
    figure.savefig(path, dpi=120)


def measured(defense: str, files: list[bytes], rounds: int, requests: int) -> dict[str, Any]:
    """Photos a second of the engine and of the service, in turn; throughput and latency by clients; whether all answers are as they should be."""
    pictures = [decode(file).pixels for file in files]
    armory = Armory.open(defense)
    armory.arm(pictures[:2], [None] * 2)
    alone: list[float] = []
    served: list[float] = []
    sums: dict[int, set[str]] = {}
    refused: list[int] = []

    def told_by(port: int, clients: int, count: int) -> Told:
        told = ask(port, files, clients, count)
        refused.extend(told.refused)
        for photo, seen in told.sums.items():
            sums.setdefault(photo, set()).update(seen)
        return told

    with serving("--defense", defense, "--queue", "64") as port:
        ask(port, files, 2, 4)
        for _ in range(rounds):  # in turn, so that both sides meet the same machine
            began = time.perf_counter()
            armory.arm(pictures, [None] * len(pictures))
            alone.append(len(pictures) / (time.perf_counter() - began))
            told = told_by(port, JUDGED, len(files))
            served.append(len(told.latencies) / told.seconds)
        curve = {}
        for clients in CLIENTS:
            told = told_by(port, clients, requests)
            curve[clients] = {
                "per_second": len(told.latencies) / told.seconds,
                "p50": share(told.latencies, 0.5),
                "p99": share(told.latencies, 0.99),
                "n": len(told.latencies),
            }
    ratios = [service / engine for service, engine in zip(served, alone, strict=True)]
    return {
        "same_bytes": all(len(seen) == 1 for seen in sums.values()),
        "refused": refused,
        "engine_per_second": alone,
        "service_per_second": served,
        "ratio": {"median": statistics.median(ratios), "least": min(ratios), "greatest": max(ratios), "n": len(files) * rounds},
        "by_clients": curve,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description="The service's throughput against its engine's, and its latency.")
    parser.add_argument("--pictures", type=int, default=32, help="photos a round")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--requests", type=int, default=100, help="photos for each number of clients")
    parser.add_argument("--plot", type=Path, default=Path(__file__).parents[1] / "docs" / "service_load.png")
    given = parser.parse_args()
    files = photos(given.pictures)
    loads = {defense: measured(defense, files, given.rounds, given.requests) for defense in (PUBLISHED, DEFAULT)}
    draw(given.plot, loads)
    load = loads[PUBLISHED]
    ratio = load["ratio"]
    record(
        "service_load",
        f"with {JUDGED} clients and published MSPD the service arms at least 90 % as many photos a second as its engine does alone; every answer is the "
        "same to the byte",
        ratio["median"],
        "times the engine's photos a second (median of rounds, both sides in turn)",
        n=ratio["n"],
        interval=(ratio["least"], ratio["greatest"]),
        at_least=0.9,
        holds=all(one["same_bytes"] and not one["refused"] for one in loads.values()),
        details={"interval_is": "least and greatest round", "defense": PUBLISHED, "default": DEFAULT, **load, "by_default": loads[DEFAULT]},
    )


if __name__ == "__main__":
    main()
