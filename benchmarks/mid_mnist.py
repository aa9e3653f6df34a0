"""Claim: the student of MID's `published` recipe stands at least 95 % on every attack of its pool and 90 % on unknown Linf ones, made on the target.

MNIST, Linf 0.3 (two L2 attacks at 2.0), the same pictures and batches for all, and the same epochs but for `regenerate`, which has four times as
many. Three columns: attacks made on the target (gray box), on the teacher (transfer), on the net that is measured (white box). Nets of MID:
`published`, `released` (what the authors' script does), `regenerate` (with the pixel term), `adaptive` (its pool attacks it while it trains).
Baselines: `erm` (cross-entropy on the same pool), `pgd_at` (adversarial training), `trades`, `distilled` (defensive distillation), and the target
itself. The claim also asks for 20 dB of the pictures that `regenerate` makes again from attacked ones. C&W, JSMA and AutoAttack see the first
`--strong` pictures.

A net, a file of attacked pictures and a row of verdicts is on disk when done (`runs/mid_mnist`): the same command goes on where it stopped.

    FOREARM_DATA=... python benchmarks/mid_mnist.py [--examples 500] [--strong 200] [--white 500] [--seeds 3] [--minutes 60] [--nets published adaptive pgd_at]
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from claim import record
from forearm.data import sets
from forearm.evaluate.statistics import wilson
from forearm.jobs.train_mid import PUBLISHED_POOL
from forearm.models.autoencoder import Autoencoder
from forearm.models.load import Model, load_model
from mid_columns import (
    PICTURES,
    ROOT,
    Asked,
    Clock,
    Ground,
    Over,
    Said,
    Spent,
    baseline,
    crafted,
    judged,
    mean_flags,
    over_seeds,
    regenerated,
    sheet,
)

NETS: dict[str, dict[str, Any]] = {
    "published": {},
    "regenerate": {"preset": "regenerate", "order": "none", "epochs": 12, "pixels": 60.0},  # the order has nothing to do with pictures
    "adaptive": {"preset": "adaptive", "members": ("pgd(steps=7)", "targeted:pgd(steps=7)", "mi_fgsm(steps=7)")},
    "released": {"preset": "released"},
    "erm": {"order": "none", "adversarial": 0.0, "cyclic": 0.0},
}
BASELINES = ("pgd_at", "distilled", "trades")
ORDER = ("published", "erm", "pgd_at", "regenerate", "distilled", "released", "trades", "adaptive")  # the decisive and cheap ones first
KINDS = {
    "target": "undefended",
    "teacher": "undefended",
    "published": "MID, as the paper intends",
    "released": "MID, as the authors' script does",
    "regenerate": "MID with the pixel term, no meta-gradient, four times the epochs",
    "adaptive": "MID, pool on itself",
    "erm": "plain training on the pool",
    "pgd_at": "adversarial training, half of the loss on clean pictures",
    "trades": "TRADES",
    "distilled": "defensive distillation",
}


def unknown(linf: str, l2: str, n: int, strong: int) -> list[Asked]:
    """The attacks that no pool has, cheap ones first."""
    return [
        Asked("fgsm", linf, n),
        Asked("targeted:fgsm", linf, n),
        Asked("bim(steps=20)", linf, n),
        Asked("targeted:bim(steps=20)", linf, n),
        Asked("ffa", linf, n),
        Asked("sta", linf, n),
        Asked("ddn(steps=50)", l2, n),
        Asked("carlini_wagner(steps=50)", l2, strong),
        Asked("jsma", linf, strong),
        Asked("autoattack(steps=50, queries=1000)", linf, strong),
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description="MID on MNIST: three columns, known and unknown attacks, baselines.")
    parser.add_argument("--examples", type=int, default=500, help="test pictures")
    parser.add_argument("--strong", type=int, default=200, help="test pictures for C&W, JSMA and AutoAttack")
    parser.add_argument("--white", type=int, default=None, help="test pictures in the white box (default: as many as elsewhere)")
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--once", nargs="+", default=[], choices=list(ORDER), help="nets that have the first seed alone")
    parser.add_argument("--minutes", type=float, default=None, help="end cleanly after so many, resumable")
    parser.add_argument("--nets", nargs="+", default=list(ORDER), choices=list(ORDER))
    parser.add_argument("--recipe", type=Path, default=ROOT / "recipes" / "mnist_mid.toml")
    parser.add_argument("--runs", type=Path, default=ROOT / "runs" / "mid_mnist")
    parser.add_argument("--write", action=argparse.BooleanOptionalAction, default=True, help="write benchmarks/results/mid_mnist.json")
    given = parser.parse_args()
    ground = Ground(given.recipe, given.runs, Clock.of(given.minutes))
    known = [Asked(spec, "linf:0.3", given.examples) for spec in PUBLISHED_POOL]
    done = run(
        ground,
        given.nets,
        given.seeds,
        known,
        unknown("linf:0.3", "l2:2", given.examples, given.strong),
        given.examples,
        given.white,
        given.once,
    )
    if given.write and concluded(done):
        folders = [given.runs / f"{name}_0" for name in ("published", "regenerate") if name in given.nets]
        sheet(folders, PICTURES / "mid_mnist.png")


def run(
    ground: Ground,
    names: list[str],
    seeds: int,
    known: list[Asked],
    unknown: list[Asked],
    n: int,
    white: int | None = None,
    once: Sequence[str] = (),
) -> dict[str, Any]:
    """Train and judge what there is time for; everything that a table or a claim needs."""
    nets, untrained = trained(ground, names, seeds, once)
    if not nets:
        raise SystemExit("no net is trained yet; the same command goes on")
    settings = ground.settings()
    sources = {"gray": load_model(ground.runs / "base" / "target"), "transfer": load_model(ground.runs / "base" / "teacher")}
    pictures = sets.load(settings.data, "test", first=n)
    every = {"target": sources["gray"], "teacher": sources["transfer"]} | nets
    said, unchanged, missing = judged(every, sources, known + unknown, pictures, ground.runs, ground.clock, white=white)
    x_adv = crafted(sources["gray"], known[0].member, pictures, n, ground.runs / "attacks" / "gray")
    made = {name: regenerated(net, pictures, x_adv) for name, net in every.items() if isinstance(net.network, Autoencoder)}
    table = over_seeds(said, ["target", "teacher", *names])
    return {
        "said": said,
        "settings": settings.model_dump(mode="json", exclude={"folder", "device", "base"}),
        "seeds": seeds,
        "known": [one.spec for one in known],
        "unknown": {one.spec: one.threat for one in unknown},
        "kinds": {name: KINDS[name] for name in table},
        "nets": table,
        "unchanged": {name: held for name, held in unchanged.items() if name in table or name.endswith("_0")},
        "regenerated": made,
        "CPU seconds": spent(ground, names),
        "missing": untrained + missing,
    }


def trained(ground: Ground, names: list[str], seeds: int, once: Sequence[str] = ()) -> tuple[dict[str, Model], list[str]]:
    """The nets, seed by seed so that all nets have a first one before any has a second; and those that there was no time for.

    once: names that have the first seed alone.
    """
    nets: dict[str, Model] = {}
    missing: list[str] = []
    for seed in range(seeds):
        for name in [name for name in names if seed == 0 or name not in once]:
            try:
                ground.clock.check()
                nets[f"{name}_{seed}"] = ground.student(name, NETS[name], seed) if name in NETS else baseline(ground, name, seed)
            except Over:
                missing.append(f"{name}, seed {seed}")
    return nets, missing


def spent(ground: Ground, names: list[str]) -> dict[str, float]:
    """CPU seconds of training the first net of each name; that of the first of all holds target, teacher and pool as well."""
    paths = {name: ground.runs / f"{name}_0" / "spent.json" for name in names}
    return {name: round(Spent(path).seconds) for name, path in paths.items() if path.is_file()}


def means(said: Said, name: str, column: str, specs: list[str]) -> float | None:
    """The mean over these attacks of a net's robust accuracy."""
    flags = mean_flags(said, name, column, specs)
    return None if flags is None else float(flags.mean())


def concluded(done: dict[str, Any]) -> bool:
    """Write the claim, from the published nets of all seeds; not where a part of it has not been measured."""
    said, known, asked = done.pop("said"), done["known"], done["unknown"]
    linf = [spec for spec in asked if asked[spec].startswith("linf")]
    published = [said[key]["gray"] for key in said if key.startswith("published_")]
    if not published or any(spec not in one for one in published for spec in (*known, *linf)):
        print("mid_mnist: not all of the claim is measured yet; the same command goes on")
        return False
    rate = {spec: min(sum(one[spec]) / len(one[spec]) for one in published) for spec in (*known, *linf)}
    worst, n = min(rate[spec] for spec in known), len(published[0][known[0]])
    pictures = min((held["psnr attacked"] for name, held in done["regenerated"].items() if name.startswith("regenerate_")), default=None)
    white = {name: means(said, name, "white", list(asked)) for name in done["nets"]}
    record(
        "mid_mnist",
        "MID on MNIST, attacks made on the target: at least 95 % on each of the pool, 90 % on each unknown Linf one, 20 dB with the pixel term.",
        worst,
        "accuracy under the worst attack of the pool, gray box, worst seed",
        n=n,
        interval=wilson(round(worst * n), n),
        at_least=0.95,
        holds=min(rate[spec] for spec in linf) >= 0.90 and pictures is not None and pictures >= 20.0,
        details=done
        | {
            "worst unknown Linf, gray box": min(rate[spec] for spec in linf),
            "PSNR of regenerated pictures, `regenerate`": pictures,
            "white box, mean of unknown attacks": white,
        },
    )
    return True


if __name__ == "__main__":
    main()
