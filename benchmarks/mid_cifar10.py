"""Claim: on CIFAR-10 MID's terms earn something over plain training on the same pool, under unknown attacks that are made on the target.

The 32 x 32 colour path: a ResNet encoder of an eighth of the published width with its decoder, 2,000 training pictures, Linf 8/255 (two L2 attacks at
0.5). It trains on one CPU thread in minutes, so its nets are weak, and the page says so: what is compared is nets of the same architecture, on the same
pictures, in the same batches and epochs. Columns, nets and baselines are those of `mid_mnist`, and two attacks that need natural pictures are added
(AdvDrop, SSAH). The value is the mean over the unknown attacks of `published` less that of `erm`, picture by picture.

Nets, attacked pictures and verdicts are on disk when done (`runs/mid_cifar10`): the same command goes on where it stopped.

    FOREARM_DATA=... python benchmarks/mid_cifar10.py [--examples 200] [--strong 50] [--seeds 1] [--minutes 15]
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from claim import record
from mid_columns import PICTURES, ROOT, Asked, Clock, Ground, mean_flags, paired, sheet
from mid_mnist import ORDER, means, run, unknown


def asked(n: int, strong: int) -> list[Asked]:
    """The attacks that no pool has, cheap ones first; AutoAttack shorter than on MNIST."""
    linf, l2 = "linf:8/255", "l2:0.5"
    rest = [one for one in unknown(linf, l2, n, strong) if not one.spec.startswith("autoattack")]
    natural = [Asked("advdrop", linf, strong), Asked("ssah", linf, strong)]
    return [*rest, *natural, Asked("autoattack(steps=20, queries=300)", linf, strong)]


def main() -> None:
    parser = argparse.ArgumentParser(description="MID on CIFAR-10: three columns, known and unknown attacks, baselines.")
    parser.add_argument("--examples", type=int, default=200, help="test pictures")
    parser.add_argument("--strong", type=int, default=50, help="test pictures for C&W, JSMA, AdvDrop, SSAH and AutoAttack")
    parser.add_argument("--white", type=int, default=None, help="test pictures in the white box (default: as many as elsewhere)")
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--minutes", type=float, default=None, help="end cleanly after so many, resumable")
    parser.add_argument("--nets", nargs="+", default=[name for name in ORDER if name != "released"], choices=list(ORDER))
    parser.add_argument("--recipe", type=Path, default=ROOT / "recipes" / "cifar10_mid.toml")
    parser.add_argument("--runs", type=Path, default=ROOT / "runs" / "mid_cifar10")
    parser.add_argument("--write", action=argparse.BooleanOptionalAction, default=True, help="write benchmarks/results/mid_cifar10.json")
    given = parser.parse_args()
    ground = Ground(given.recipe, given.runs, Clock.of(given.minutes))
    known = [Asked(one.spec, str(one.threat), given.examples) for one in ground.settings().attacks()]
    done = run(ground, given.nets, given.seeds, known, asked(given.examples, given.strong), given.examples, given.white)
    if given.write and concluded(done):
        sheet([given.runs / f"{name}_0" for name in ("published", "regenerate") if name in given.nets], PICTURES / "mid_cifar10.png")


def concluded(done: dict[str, Any]) -> bool:
    """Write the claim; not where a part of it has not been measured."""
    said, specs = done.pop("said"), list(done["unknown"])
    measured = [spec for spec in specs if all(spec in held["gray"] for held in said.values())]
    ours, theirs = (mean_flags(said, name, "gray", measured) for name in ("published", "erm"))
    if ours is None or theirs is None:
        print("mid_cifar10: not all of the claim is measured yet; the same command goes on")
        return False
    apart = paired(ours, theirs)
    record(
        "mid_cifar10",
        "MID on CIFAR-10, attacks made on the target: above plain training on the same pool, in the mean over unknown attacks.",
        apart["value"],
        "share of pictures, published less erm",
        n=apart["n"],
        interval=apart["interval"],
        at_least=0.0,
        holds=apart["interval"][0] > 0.0,
        details=done
        | {
            "gray box, mean of unknown attacks": {name: means(said, name, "gray", measured) for name in done["nets"]},
            "white box, mean of unknown attacks": {name: means(said, name, "white", specs) for name in done["nets"]},
        },
    )
    return True


if __name__ == "__main__":
    main()
