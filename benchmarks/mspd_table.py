"""Claim: MSPD lifts robust accuracy on robust targets that it never saw, on their mean, under AutoAttack; the paired interval excludes zero.

The paper's table and what it leaves out. Releases: none, S-FGSM, S-PGD, bi-level (Moon et al.), Fast Preemption (F1-B2) and MSPD, each with the
labeller's labels (decoupled), with the backbone's own (coupled) and with the true ones (given). Attacks: FGSM, PGD-50, MI-FGSM carried over from the
backbone (to the backbone itself from another net), APGD-DLR targeted, Square, C&W L2 .5, AutoAttack Linf and L2 .5. CIFAR-10's first test
images at 8/255, held-out photos of 224 pixels at 4/255. The attacker's ball lies around the 8-bit release; PGD-50 also has twice the radius, and
AutoAttack's schedule on photos is shortened (`WAYS` in `mspd_units.py` has every setting). Accuracy is against the true label, judged in float32.

Two things cost nothing. Where another label mode gives a picture the same label, its release is the same and so is the verdict. And an attacker whose ball lies
around the *original* may hand in whatever he would hand in for the bare picture: a picture stands against him if the bare one does and the release is right.
Natural targets fall to nearly everything, so that only FGSM, PGD-50 and MI-FGSM are run on them.

Costly attacks see fewer pictures; every figure has its own n. The work is cut into units of up to 25 pictures, each written to `runs/mspd_table/` when done,
cheap and decisive ones first: a run that was broken off, or stopped by `--minutes`, goes on with the same command, and what is there is
summed up either way (`details` lists what is not). A unit is named by the sha256 of weights and pictures and by its settings, not by the code: delete the
folder to begin anew. `--targets` and `--part` choose what is run, not what is summed up. `--plan` times ten pictures of every kind of unit and runs
nothing. Needs the data sets in FOREARM_DATA; nets of the zoo that are not there are left out, and named.

    OMP_NUM_THREADS=1 python benchmarks/mspd_table.py [--examples 200] [--photos 200] [--strong 50] [--part cifar10] [--targets a,b] [--minutes 60] [--plan]
"""

from __future__ import annotations

import argparse
import math
import time
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import replace
from typing import Any

import torch

from claim import record
from forearm.core.quality import psnr
from forearm.evaluate.statistics import paired_difference, wilson
from mspd_units import PART, RELEASES, RUNS, SHORT, STRONGEST, WAYS, Bench, Unit, struck

SAMPLE = 10  # pictures that the plan times


# what is there, summed up

Verdicts = dict[int, tuple[bool, bool]]  # picture -> right without attack, right under attack
Key = tuple[str, str, str, str]  # target, way, release, labels


def collected(bench: Bench, units: Iterable[Unit]) -> dict[Key, Verdicts]:
    """The verdicts of all units that are done."""
    found: dict[Key, Verdicts] = defaultdict(dict)
    for unit in units:
        if bench.unit_file(unit).exists():
            clean, robust = (flags.tolist() for flags in bench.flags(unit))
            rows = found[unit.target, unit.way, unit.release, unit.labels]
            rows.update({unit.start + i: pair for i, pair in enumerate(zip(clean, robust, strict=True))})
    return dict(found) | around_original(bench, found) | worst(bench, found)


ORIGINAL, WORST = "PGD-50 around the original", "worst of all at this radius"


def around_original(bench: Bench, found: dict[Key, Verdicts]) -> dict[Key, Verdicts]:
    """PGD-50 with its ball around the bare picture: it hands in what it would for that one, or leaves a release that is wrong already."""
    made = {}
    for (target, way, release, labels), rows in found.items():
        if way == "PGD-50" and release in SHORT and bench.nets[target].kind != "natural":
            bare = found.get((target, way, "none", "decoupled"), {})
            if both := {i: (clean, clean and bare[i][1]) for i, (clean, _) in rows.items() if i in bare}:
                made[target, ORIGINAL, release, labels] = both
    return made


def worst(bench: Bench, found: dict[Key, Verdicts]) -> dict[Key, Verdicts]:
    """What stands against every attack of the part's own radius, on the pictures that all of them saw."""
    ways = [name for name, way in WAYS[bench.part].items() if way.threat == str(bench.threat)]
    made = {}
    for target, net in bench.nets.items():
        for release in SHORT if net.kind != "natural" else ():
            rows = [found.get((target, way, release, "decoupled"), {}) for way in ways]
            seen = set.intersection(*map(set, rows))
            if seen:
                made[target, WORST, release, "decoupled"] = {i: (rows[0][i][0], all(row[i][1] for row in rows)) for i in sorted(seen)}
    return made


def rate(flags: list[bool]) -> dict[str, Any]:
    """A share with its 95 % Wilson interval and sample size."""
    low, high = wilson(sum(flags), len(flags))
    return {"value": round(sum(flags) / len(flags), 5), "interval": [round(low, 5), round(high, 5)], "n": len(flags)}


def above(rows: Verdicts, bare: Verdicts) -> dict[str, Any] | None:
    """Right under attack, minus the same of `bare`, on the pictures of both; None where there are none."""
    both = sorted(set(rows) & set(bare))
    if not both:
        return None
    difference, low, high = paired_difference([rows[i][1] for i in both], [bare[i][1] for i in both])
    return {"value": round(difference, 5), "interval": [round(low, 5), round(high, 5)], "n": len(both)}


def mean(rows: list[Verdicts], bare: list[Verdicts] | None = None, among: set[int] | None = None) -> dict[str, Any] | None:
    """The mean over targets of robust accuracy, or of its difference to `bare`, on the pictures that all have (and that are `among` these).

    The 95 % interval is that of the pictures' means, with four made-up pictures, two right and two wrong (Agresti and Coull, 1998), for a difference with
    two, worth half a picture won and half a one lost (Agresti and Min, 2005): else a few pictures that all end alike would have none. None for no pictures.
    """
    ids = sorted(set.intersection(*map(set, [*rows, *(bare or [])])) & (set().union(*rows) if among is None else among))
    if not ids:
        return None
    each = torch.tensor([[float(row[i][1]) for i in ids] for row in rows], dtype=torch.float64).mean(0)
    added = [0.0, 0.0, 1.0, 1.0]
    if bare is not None:
        each -= torch.tensor([[float(row[i][1]) for i in ids] for row in bare], dtype=torch.float64).mean(0)
        added = [-math.sqrt(0.5), math.sqrt(0.5)]
    more = torch.cat([each, each.new_tensor(added)])
    middle, half = float(more.mean()), 1.96 * float(more.std(correction=0)) / math.sqrt(len(more))
    low, high = max(middle - half, 0.0 if bare is None else -1.0), min(middle + half, 1.0)
    return {"value": round(float(each.mean()), 5), "interval": [round(low, 5), round(high, 5)], "n": len(ids)}


def target_rows(bench: Bench, found: dict[Key, Verdicts]) -> dict[str, Any]:
    """Target -> its kind, accuracy without attack by release and labels, and under each attack."""
    rows: dict[str, Any] = {}
    for (target, way, release, labels), verdicts in found.items():
        row = rows.setdefault(
            target, {"kind": bench.nets[target].kind, "carried over from": bench.source(target)[0], "clean": {}, "attacks": {}}
        )
        clean = row["clean"].setdefault(release, {})
        if clean.get(labels, {"n": 0})["n"] < len(verdicts):
            clean[labels] = rate([right for right, _ in verdicts.values()])
        cell = {"robust": rate([right for _, right in verdicts.values()])}
        bare = above(verdicts, found.get((target, way, "none", "decoupled"), {})) if release != "none" else None
        row["attacks"].setdefault(way, {}).setdefault(release, {})[labels] = cell | ({"above none": bare} if bare else {})
    return {target: rows[target] for target in bench.nets if target in rows}


def mean_rows(bench: Bench, found: dict[Key, Verdicts]) -> dict[str, Any]:
    """Way -> release -> labels -> means over the robust targets but the backbone; split by whether the labeller is right, for two of the ways.

    A mean has all targets of the table or is not there.
    """
    chosen = [t for t, net in bench.nets.items() if net.kind == "robust" and any(key[0] == t for key in found)]
    right = set((bench.labels["decoupled"] == bench.y).nonzero().squeeze(1).tolist())
    groups = {"labeller right": right, "labeller wrong": set(range(len(bench.y))) - right}
    made: dict[str, Any] = {}
    for way, release, labels in dict.fromkeys(key[1:] for key in found):
        rows = [found.get((t, way, release, labels), {}) for t in chosen]
        if not chosen or (here := mean(rows)) is None:
            continue
        rivals = {"none": (), "s_fgsm": ("none",), "bilevel": ("none", "s_fgsm", "mspd")}.get(release, ("none", "s_fgsm"))
        bare = {name: [found.get((t, way, name, "decoupled"), {}) for t in chosen] for name in rivals}
        cell: dict[str, Any] = {"robust": here} | {f"above {name}": mean(rows, others) for name, others in bare.items()}
        if way in ("PGD-50", STRONGEST):
            for name, ids in groups.items():
                cell[name] = {"robust": mean(rows, among=ids), "above none": mean(rows, bare["none"], ids) if release != "none" else None}
        made.setdefault(way, {}).setdefault(release, {})[labels] = cell
    return {"targets": chosen, "ways": made}


def gaps(bench: Bench, units: list[Unit]) -> list[str]:
    """What of the plan is not measured: a line for each attack, release and labels."""
    wanted: dict[tuple[str, ...], list[int]] = {}
    for unit in units:
        count = wanted.setdefault((unit.way, unit.release, unit.labels, unit.target), [0, 0])
        size = len(bench.x[bench.span(unit.start)])
        count[0] += size if bench.unit_file(unit).exists() else 0
        count[1] += size
    lines: dict[tuple[str, ...], list[str]] = defaultdict(list)
    for (*what, target), (done, planned) in wanted.items():
        if done < planned:
            lines[tuple(what)].append(f"{target} {done} of {planned}")
    return [f"{', '.join(what)}: {'; '.join(targets)}" for what, targets in lines.items()]


def summed(bench: Bench, units: list[Unit]) -> dict[str, Any] | None:
    """All that is there of one part; None for nothing."""
    found = collected(bench, units)
    if not found:
        return None
    known = {name: [k for k in range(0, len(bench.x), PART) if bench.release_file(name, "decoupled", k).exists()] for name in RELEASES[1:]}
    sizes = {
        name: torch.cat([psnr(bench.release(name, "decoupled", k), bench.x[bench.span(k)]) for k in starts])
        for name, starts in known.items()
        if starts
    }
    said = {name: rate((bench.labels[name] == bench.y).tolist()) for name in ("decoupled", "coupled")}
    return {
        "ways": {name: {"spec": way.spec, "threat": way.threat} for name, way in WAYS[bench.part].items()},
        "labels right": said,
        "psnr": {name: {"value": round(float(each.mean()), 2), "n": len(each)} for name, each in sizes.items()},
        "targets": target_rows(bench, found),
        "means": mean_rows(bench, found),
        "absent": list(bench.absent),
        "not measured": gaps(bench, units),
    }


# the plan


def planned(bench: Bench, units: list[Unit]) -> float:
    """Print what is left to do of a part and about how many processor minutes it takes, and give these.

    Ten pictures of every kind of unit are timed, on the single step's releases, which stand longer than bare pictures; AutoAttack by a shortened
    schedule. So it is rather too much than too little.
    """
    left: dict[tuple[str, str], int] = defaultdict(int)
    for unit in units:
        if not bench.unit_file(unit).exists():
            left[unit.target, unit.way] += len(bench.anew(unit.labels, unit.start).nonzero())
    x, y, ids = bench.release("s_fgsm", "decoupled", 0)[:SAMPLE], bench.y[:SAMPLE], torch.arange(len(bench.x))[:SAMPLE]
    total = protecting(bench, units)
    for (target, name), pictures in left.items():
        way = WAYS[bench.part][name]
        spec, times = way.sample or (way.spec, 1)
        began = time.process_time()
        struck(bench.nets[target], bench.source(target)[1], replace(way, spec=spec), x, y, ids)
        minutes = pictures * times * (time.process_time() - began) / len(x) / 60
        total += minutes
        print(f"{bench.part:8} {target:18} {name:28} {pictures:5} pictures {minutes:6.1f} min", flush=True)
    print(f"{bench.part:8} all of it: {total:.1f} processor minutes", flush=True)
    return total


def protecting(bench: Bench, units: list[Unit]) -> float:
    """Minutes that the missing releases take, from ten pictures each; bi-level by two of its hundred steps."""
    total = 0.0
    for name in RELEASES[1:]:
        kinds = {(unit.labels, unit.start) for unit in units if unit.release == name}
        missing = [kind for kind in kinds if not bench.release_file(name, *kind).exists()]
        spec, times = ("bilevel(steps=2)", 50) if name == "bilevel" else (name, 1)
        began = time.process_time()
        if missing:
            bench.protect(spec, bench.x[:SAMPLE], bench.labels["decoupled"][:SAMPLE], torch.arange(len(bench.x))[:SAMPLE])
        each = times * (time.process_time() - began) / min(SAMPLE, len(bench.x)) / 60
        minutes = each * sum(len(bench.anew(*kind).nonzero()) for kind in missing)
        total += minutes
        print(f"{bench.part:8} {'release':18} {name:28} {minutes:21.1f} min", flush=True)
    return total


def recorded(details: dict[str, Any], examples: dict[str, int]) -> None:
    """The claim, once there is a mean over all robust targets of CIFAR-10: under AutoAttack, and until that is there under PGD-50, which proves nothing."""
    means = details.get("cifar10", {}).get("means", {"targets": [], "ways": {}})
    for way in (STRONGEST, "PGD-50"):
        won = means["ways"].get(way, {}).get("mspd", {}).get("decoupled", {}).get("above none")
        if won:
            break
    else:
        print("no claim yet: too little is measured on CIFAR-10's robust targets")
        return
    record(
        "mspd_table",
        "MSPD (decoupled labels) lifts robust accuracy under AutoAttack on the mean of robust targets that it never saw",
        100 * won["value"],
        f"points of {way} accuracy above the bare pictures, mean of {len(means['targets'])} robust targets, paired",
        n=won["n"],
        interval=(100 * won["interval"][0], 100 * won["interval"][1]),
        at_least=0.0,
        holds=way == STRONGEST and won["interval"][0] > 0,
        details=details | {"examples": examples},
    )


def main() -> None:
    parser = argparse.ArgumentParser(description="Releases, labels, targets and attacks: the paper's table, and further.")
    parser.add_argument("--examples", type=int, default=200, help="CIFAR-10 test images; costly attacks see a part of them")
    parser.add_argument("--photos", type=int, default=200, help="held-out photos, likewise")
    parser.add_argument("--strong", type=int, default=50, help="pictures for AutoAttack")
    parser.add_argument("--part", choices=tuple(WAYS), help="run this part alone")
    parser.add_argument("--targets", help="run these targets alone, for example resnet2b,cnn_a_adv4")
    parser.add_argument("--minutes", type=float, default=math.inf, help="stop after so many, between two units")
    parser.add_argument("--plan", action="store_true", help="say what is left and about how long it takes, and stop")
    given = parser.parse_args()
    began = time.monotonic()
    parts = [part for part in WAYS if given.part in (None, part) or (not given.plan and (RUNS / part).is_dir())]
    many = {"cifar10": given.examples, "photos": given.photos}
    benches = {part: Bench.load(part, many[part]) for part in parts}
    units = {part: bench.units(given.strong) for part, bench in benches.items()}
    targets = given.targets.split(",") if given.targets else [name for bench in benches.values() for name in bench.nets]
    chosen = [(part, unit) for part, some in units.items() for unit in some if given.part in (None, part) and unit.target in targets]
    if given.plan:
        total = sum(planned(bench, [unit for where, unit in chosen if where == part]) for part, bench in benches.items())
        print(f"{total:.1f} processor minutes")
        return
    todo = sorted(((part, unit) for part, unit in chosen if not benches[part].unit_file(unit).exists()), key=lambda one: one[1].stage)
    for number, (part, unit) in enumerate(todo, 1):
        if time.monotonic() - began > 60 * given.minutes:
            break
        clean, robust = benches[part].flags(unit)
        figures = f"{int(clean.sum()):2} right, {int(robust.sum()):2} under attack, of {len(clean)}"
        print(f"{number}/{len(todo)} {unit.target}, {unit.release} ({unit.labels}), {unit.way}, from {unit.start}: {figures}", flush=True)
    recorded({part: found for part, bench in benches.items() if (found := summed(bench, units[part])) is not None}, many)


if __name__ == "__main__":
    main()
