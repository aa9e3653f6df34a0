"""The tables of docs/scale.md and docs/service.md."""

from __future__ import annotations

import statistics
from collections.abc import Callable
from typing import Any

from forearm.engines.ray import AHEAD
from forearm.jobs.remote import BLOCK
from rendering import markdown, result, when_all_measured, when_measured

PLANNED = 100_000_000  # pictures
DAYS = 30
CORES = 32  # of a machine
PRICE = 0.04  # US dollars for a core and an hour; a price of your own goes here
PART = 250_000  # pictures of one run: a shard, or a folder
HELD = AHEAD * BLOCK  # pictures with a Ray worker at a time


def needs() -> dict[str, float]:
    """Processor seconds of one core for one picture, of each kind of job that was measured, with Ray's overhead."""
    folder, small = result("protect_folder"), result("instant")["details"]["seconds a picture"]
    label = small["labeller"]["processor"]
    found = {
        "photos of 0.2 to 12 megapixels, `mspd`": folder["details"]["seconds"] * folder["machine"]["threads"] / folder["n"],
        "32 pixels, `mspd`": small["mspd"]["processor"] + label,
        "32 pixels, `instant`": small["instant"]["processor"] + label,
    }
    over = max(0.0, result("ray_overhead")["details"]["percent_longer_once_started"]) / 100
    return {name: seconds * (1 + over) for name, seconds in found.items()}


def plan() -> str:
    """What 100 million pictures need."""
    body = []
    for name, seconds in needs().items():
        hours = PLANNED * seconds / 3600
        cores = hours / (24 * DAYS)
        body.append([name, f"{seconds:.2g}", f"{hours:,.0f}", f"{cores:,.1f}", f"{cores / CORES:.1f}", f"{hours * PRICE:,.0f} USD"])
    head = [
        "pictures",
        "core-seconds each",
        "core-hours",
        f"cores for {DAYS} days",
        f"machines of {CORES} cores",
        f"at {PRICE:g} USD a core-hour",
    ]
    return markdown(head, body)


def drivers() -> str:
    """What the one process of a run that plans, journals and writes is good for."""
    d = result("ray_driver")["details"]
    body = [
        [
            f"{1 / d['seconds_a_photo']:,.0f} pictures a second",
            "planned, hashed, journalled and written by one run, whatever its workers do",
        ],
        [f"{PLANNED * d['seconds_a_photo'] / 86400:.1f} days", "of that for 100 million pictures in one run; parts run side by side"],
        *([f"workers: {seconds / d['seconds_a_photo']:,.0f}", f"that one run keeps busy with {name}"] for name, seconds in needs().items()),
        [
            f"{PLANNED * d['memory_a_name'] / 2**30:,.0f} GiB",
            "to list 100 million names at once, which every shard of one folder does: too much",
        ],
        [f"{PLANNED * d['seconds_a_name'] / 3600:.1f} hours", "to list them"],
        [f"{PART * d['memory_a_photo'] / 2**30:.1f} GiB", f"for a run of {PART:,} pictures: their names and what the journal says of them"],
        [
            f"{PART * d['seconds_a_photo_that_is_done'] / 60:.0f} minutes",
            f"for a run of {PART:,} that was killed at its end to find them all done",
        ],
    ]
    return markdown(["measured", "what"], body)


def losses() -> str:
    """What the loss of a worker, of a machine and of a driver costs: work that is done twice."""
    d, body = result("ray_driver")["details"], []
    for name, seconds in needs().items():
        worker = HELD * seconds
        again = d["seconds_a_photo_that_is_done"] / seconds
        body.append([name, f"{worker:,.1f} s", f"{100 * worker / 86400:.2g} %", f"{CORES * worker / 60:,.1f} min", f"{100 * again:.2g} %"])
    head = ["pictures", "a worker lost, at most", "of all work, if each core is lost once a day", f"a machine of {CORES} cores lost"]
    return markdown([*head, "a run killed at its end, of its work"], body)


def busy(r: dict[str, Any]) -> str:
    """A sentence where other work was going on while something was measured."""
    load, cores = r["machine"]["load_at_end"], r["machine"]["cores"]
    return (
        f" The machine was busy with other work meanwhile (load {load:.1f} on {cores} cores), so take the rounds' spread seriously."
        if load > 2 * cores
        else ""
    )


def load() -> str:
    """The service's throughput and latency by clients, beside its engine's, with published MSPD and with the default release."""
    r = result("service_load")
    engine, (low, high) = statistics.median(r["details"]["engine_per_second"]), r["interval"]
    said = (
        f"With published MSPD and 16 clients the service arms {r['value']:.2f} times as many photos a second as its engine alone (median of rounds; least "
        f"{low:.2f}, greatest {high:.2f}; n = {r['n']}); the engine alone arms {engine:.2f} a second on that machine. The bar of {r['at_least']:g} is "
        f"{'met' if r['holds'] else '**missed**'}.{busy(r)}"
    )
    quick = r["details"]["by_default"]
    ratio, alone = quick["ratio"], statistics.median(quick["engine_per_second"])
    also = (
        f"With the default release it arms {statistics.median(quick['service_per_second']):.2f} a second, {ratio['median']:.2f} times its engine alone (least "
        f"{ratio['least']:.2f}, greatest {ratio['greatest']:.2f}; n = {ratio['n']}), which arms {alone:.2f}."
    )
    tables = [f"{title}\n\n{by_clients(d)}" for title, d in (("Published MSPD:", r["details"]), ("The default release:", quick))]
    return "\n\n".join([said, also, *tables])


def by_clients(d: dict[str, Any]) -> str:
    """Throughput and latency against clients."""
    body = [
        [clients, f"{row['per_second']:.2f}", f"{row['p50']:.2f} s", f"{row['p99']:.2f} s", str(row["n"])]
        for clients, row in d["by_clients"].items()
    ]
    return markdown(["clients", "photos a second", "median", "99th percentile (below n = 100: the greatest)", "n"], body)


def hostile() -> str:
    """How the service answered requests that no honest client sends."""
    r = result("hostile_requests")
    d = r["details"]
    half, end = d["held"][2], d["held"][-1]
    said = (
        f"{r['n']:,} requests, {r['value']} answers that are a fault or no whole problem, {'**a crash**' if d['crashed'] else 'no crash'}. Half "
        f"way and at the end: {half['bytes'] / 2**20:,.0f} and {end['bytes'] / 2**20:,.0f} MiB with the decoders, {half['files']} and "
        f"{end['files']} open files, {half['threads']} and {end['threads']} threads. The claim {'holds' if r['holds'] else '**does not hold**'}."
    )
    return f"{said}\n\n{markdown(['status', 'answers'], [[status, f'{count:,}'] for status, count in d['statuses'].items()])}"


TABLES: dict[str, Callable[[], str]] = {
    "scale plan": when_all_measured(("protect_folder", "instant", "ray_overhead"), plan),
    "scale drivers": when_all_measured(("protect_folder", "instant", "ray_overhead", "ray_driver"), drivers),
    "scale losses": when_all_measured(("protect_folder", "instant", "ray_overhead", "ray_driver"), losses),
    "service load": when_measured("service_load", load),
    "hostile requests": when_measured("hostile_requests", hostile),
}
