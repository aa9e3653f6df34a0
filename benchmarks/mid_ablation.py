"""Claim: no part of MID can be left out: the mean under unknown attacks that are made on the target falls without each.

MNIST, Linf 0.3 (DDN at L2 2.0), a LeNet of a quarter of the published width, 4,000 training pictures; all nets with the same pictures, batches, epochs,
target, teacher and pool. `published` has the three consistencies (label LC, adversarial AC, cyclic CC) and the second-order meta-gradient with a step of
0.001. The others differ in one thing each: without AC, CC or LC; with the meta-gradient of first order, with none (plain training on the same pool), with
a detached one (the held-out attack is not trained on at all, as in the authors' script), with a step of 0.01; with the pixel term. AC, CC and LC are left
out of the net without a meta-gradient, which trains in half the time. `erm` has neither AC nor CC nor a meta-gradient. The value is the smallest mean
difference, picture by picture, that leaving out AC, CC, LC or the meta-gradient makes. The white box is PGD with 20 steps at Linf 0.1, because at 0.3
nothing is left.

    FOREARM_DATA=... python benchmarks/mid_ablation.py [--examples 500] [--white 200] [--seeds 1] [--minutes 15]
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from claim import record
from forearm.data import sets
from forearm.models.load import Model, load_model
from mid_columns import ROOT, Asked, Clock, Ground, Over, crafted, judged, mean_flags, over_seeds, paired, regenerated

NETS: dict[str, dict[str, Any]] = {
    "published": {},
    "no_meta": {"order": "none"},
    "no_ac": {"order": "none", "adversarial": 0.0},
    "no_cc": {"order": "none", "cyclic": 0.0},
    "no_lc": {"order": "none", "label": 0.0},
    "erm": {"order": "none", "adversarial": 0.0, "cyclic": 0.0},
    "detached": {"order": "detached"},
    "first": {"order": "first"},
    "pixels": {"order": "none", "pixels": 20.0},
    "far": {"alpha": 1e-2},
}
SAID = {
    "target": "undefended",
    "published": "LC, AC, CC; second order",
    "no_meta": "LC, AC, CC; no meta-gradient",
    "no_ac": "LC, CC; no meta-gradient",
    "no_cc": "LC, AC; no meta-gradient",
    "no_lc": "AC, CC; no meta-gradient",
    "erm": "LC; no meta-gradient (plain training on the pool)",
    "detached": "LC, AC, CC; the unknown attack's loss passes no gradient",
    "first": "LC, AC, CC; first order",
    "pixels": "LC, AC, CC, pixels 20; no meta-gradient",
    "far": "LC, AC, CC; second order, inner step 0.01",
}
WITH = {"no_meta": "published", "no_ac": "no_meta", "no_cc": "no_meta", "no_lc": "no_meta"}  # what each part is left out of


def unknown(n: int) -> list[Asked]:
    """Attacks that the pool does not have."""
    linf = [Asked(spec, "linf:0.3", n) for spec in ("fgsm", "targeted:fgsm", "bim(steps=20)", "targeted:bim(steps=20)", "ffa", "sta")]
    return [*linf, Asked("ddn(steps=50)", "l2:2", n)]


def main() -> None:
    parser = argparse.ArgumentParser(description="MID on MNIST with one part left out at a time.")
    parser.add_argument("--examples", type=int, default=500, help="test pictures, gray box")
    parser.add_argument("--white", type=int, default=200, help="test pictures, white box")
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--minutes", type=float, default=None, help="end cleanly after so many, resumable")
    parser.add_argument("--nets", nargs="+", default=list(NETS), choices=list(NETS))
    parser.add_argument("--recipe", type=Path, default=ROOT / "recipes" / "mnist_mid_thin.toml")
    parser.add_argument("--runs", type=Path, default=ROOT / "runs" / "mid_thin")
    parser.add_argument("--write", action=argparse.BooleanOptionalAction, default=True, help="write benchmarks/results/mid_ablation.json")
    given = parser.parse_args()
    ground = Ground(given.recipe, given.runs, Clock.of(given.minutes))
    nets, missing = dict[str, Model](), list[str]()
    for seed in range(given.seeds):
        for name in given.nets:
            try:
                ground.clock.check()
                nets[f"{name}_{seed}"] = ground.student(name, NETS[name], seed)
            except Over:
                missing.append(f"{name}, seed {seed}")
    if not nets:
        raise SystemExit("no net is trained yet; the same command goes on")
    concluded(nets, missing, ground, given)


def concluded(nets: dict[str, Model], missing: list[str], ground: Ground, given: argparse.Namespace) -> None:
    """Judge all nets and write the claim, where each part was left out once."""
    settings, target = ground.settings(), load_model(ground.runs / "base" / "target")
    pictures = sets.load(settings.data, "test", first=given.examples)
    known = [Asked(one.spec, settings.threat, given.examples) for one in settings.attacks()]
    asked = unknown(given.examples)
    specs = [one.spec for one in asked]
    gray, _, left = judged({"target": target} | nets, {"gray": target}, known + asked, pictures, ground.runs, ground.clock, ("gray",))
    near = [Asked("pgd(steps=20)", "linf:0.1", given.white)]
    white, _, more = judged({"target": target} | nets, {}, near, pictures, ground.runs, ground.clock, ("white",))
    flags = {name: here for name in given.nets if (here := mean_flags(gray, name, "gray", specs)) is not None}
    if any(name not in flags for name in ("published", *WITH)):
        print("mid_ablation: not all of the claim is measured yet; the same command goes on")
        return
    worth = {name: paired(flags[whole], flags[name]) for name, whole in WITH.items()}
    x_adv = crafted(target, known[0].member, pictures, given.examples, ground.runs / "attacks" / "gray")
    least = min(WITH, key=lambda name: worth[name]["value"])
    tables = (over_seeds(said, ["target", *given.nets]) for said in (gray, white))
    if given.write:
        record(
            "mid_ablation",
            "No part of MID (LC, AC, CC, meta-gradient) can be left out: the mean under unknown attacks made on the target falls without each.",
            worth[least]["value"],
            f"share of pictures, `{WITH[least]}` less `{least}`, the part that earns least",
            n=worth[least]["n"],
            interval=worth[least]["interval"],
            at_least=0.0,
            holds=all(worth[name]["interval"][0] > 0.0 for name in WITH),
            details={
                "settings": settings.model_dump(mode="json", exclude={"folder", "device", "base"}),
                "seeds": given.seeds,
                "known": [one.spec for one in known],
                "unknown": specs,
                "kinds": SAID,
                "means": {
                    name: {what: None if (here := mean_flags(gray, name, "gray", those)) is None else float(here.mean())
                           for what, those in (("known", [one.spec for one in known]), ("unknown", specs))}
                    for name in ("target", *given.nets)
                },
                "gray": next(tables),
                "white": next(tables),
                "earns": worth,
                "published above": {name: paired(flags["published"], here) for name, here in flags.items() if name != "published"},
                "regenerated": {name: regenerated(net, pictures, x_adv) for name, net in nets.items()},
                "missing": missing + left + more,
            },
        )  # fmt: skip


if __name__ == "__main__":
    main()
