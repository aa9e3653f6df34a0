"""Claim: the best adaptive MID is above plain adversarial training in the white box, in the mean over unknown attacks (AutoAttack included).

MNIST, Linf 0.3 (two L2 attacks at 2.0), a LeNet of a quarter of the published width, 4,000 training pictures. Every net is given the same CPU time
(`--seconds`; the paces of all nets are measured before, side by side, so that each one's rate falls to nothing at the end of it), architecture and
pictures. Variants of MID, all with attacks on the student itself: `adaptive`, the preset (three attacks in each step, second order, pixel term,
random start); the others start from the teacher and have no more than two attacks: `first`, first order; `light`, no meta-gradient; `agreement`, as
that with the KL of TRADES between the student's own clean and attacked answers; `refreshed`, as `light` with attacks on the student as each epoch
began; `single`, one attack of 10 steps and the clean pictures, with the adversarial consistency; `pair`, as that with two attacks of 5 steps (the KL
needs two, since one of them is held out); `close`, as `pair` with the KL of `agreement`. Controls, which have no term of MID: `label`, as `single`
with labels alone, which is adversarial training on attacked and clean pictures; `pgd_at`, PGD with 10 steps from the target's weights, and
`pgd_at_cold`, from random ones, on attacked pictures alone, which at this radius may not leave the constant answer. Which variant and which control
is the best is decided on training pictures that no net was trained on, by accuracy under PGD with 20 steps; the claim is then about these two on test
pictures. All are in the table, and their curves over the time in docs/pictures/mid_adaptive.png.

    FOREARM_DATA=... python benchmarks/mid_adaptive.py [--seconds 120] [--examples 200] [--strong 100] [--seeds 1] [--minutes 25]
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from claim import record
from forearm.core.precision import verdict
from forearm.core.threat import Threat
from forearm.data import sets
from forearm.data.batches import Batch, Pictures
from forearm.defenses.training.adversarial import adversarial
from forearm.defenses.training.mid import against_student, mid
from forearm.jobs.train_mid import MidSettings
from forearm.jobs.train_pool import member
from forearm.models.architectures import ARCHITECTURES
from forearm.models.autoencoder import frozen, student_of
from forearm.models.card import Card
from forearm.models.load import Model, load_model
from forearm.registry import bind
from mid_columns import PICTURES, ROOT, Asked, Clock, Ground, Over, attack, judged, mean_flags, over_seeds, paired
from mid_mnist import unknown

CONTROL, COLD, MIXED = "pgd_at", "pgd_at_cold", "label"
CONTROLS = (CONTROL, MIXED, COLD)  # adversarial training, without any term of MID
THREE = ("pgd(steps=7)", "targeted:pgd(steps=7)", "mi_fgsm(steps=7)")
TWO: dict[str, Any] = {"preset": "adaptive", "members": ("pgd(steps=7)", "mi_fgsm(steps=5)"), "start": "teacher", "pixels": 2.0}
ONE: dict[str, Any] = {
    "preset": "adaptive",
    "members": ("pgd(steps=10)",),
    "start": "teacher",
    "order": "none",
    "pixels": 0.0,
    "cyclic": 0.0,
}
VARIANTS: dict[str, dict[str, Any]] = {
    "single": ONE | {"adversarial": 0.5},
    "pair": ONE | {"adversarial": 0.5, "members": ("pgd(steps=5)", "mi_fgsm(steps=5)")},
    "close": ONE | {"adversarial": 0.5, "members": ("pgd(steps=5)", "mi_fgsm(steps=5)"), "agreement": 1.0},
    "light": TWO | {"order": "none"},
    "adaptive": {"preset": "adaptive", "members": THREE},
    "agreement": TWO | {"order": "none", "agreement": 3.0},
    "label": ONE | {"adversarial": 0.0},
    "first": TWO | {"order": "first"},
    "refreshed": TWO | {"order": "none", "pool": "refreshed"},
}
SAID = {
    "single": "one attack, no meta-gradient, adversarial consistency",
    "pair": "as `single`, two attacks of 5 steps",
    "close": "as `pair`, and the KL of its own answers",
    "light": "two attacks, no meta-gradient, pixels 2",
    "adaptive": "three attacks, second order, pixels 20, random start (the preset)",
    "agreement": "as `light`, and the KL of its own answers",
    "label": "as `single`, labels alone: adversarial training on attacked and clean pictures (control)",
    "first": "as `light`, first order",
    "refreshed": "as `light`, attacked as each epoch began",
    CONTROL: "PGD with 10 steps, labels alone (control)",
    COLD: "the same from random weights",
}
POINTS = 10  # of a curve
HELD = 100  # training pictures that no net sees


@dataclass
class Curve:
    """What a net is worth on held-out training pictures while it trains, against the CPU seconds of its training alone; kept beside it."""

    path: Path
    epochs: int
    held: Pictures
    arch: str
    stage: str
    clock: Clock
    last: float = field(default_factory=time.process_time)

    def told(self, stage: str, row: dict[str, float]) -> None:
        """After an epoch: note where the net is, then let the clock have its say."""
        now, epoch = time.process_time(), int(row["epoch"])
        if stage == self.stage:
            points = [one for one in self.points() if one["epoch"] < epoch]
            spent = (points[-1]["seconds"] if points else 0.0) + now - self.last
            looked = epoch % max(1, self.epochs // POINTS) == 0 or epoch == self.epochs
            points.append({"epoch": epoch, "seconds": round(spent, 2)} | (self.look() if looked else {}))
            half = self.path.with_suffix(".part")
            half.write_text(json.dumps(points))
            half.replace(self.path)
            print(self.path.parent.name, points[-1], flush=True)
        self.last = time.process_time()
        self.clock.check()

    def points(self) -> list[dict[str, float]]:
        return json.loads(self.path.read_text()) if self.path.is_file() else []

    def look(self) -> dict[str, float]:
        """Clean accuracy and accuracy under PGD with 20 steps."""
        state = torch.load(self.path.parent / "checkpoint.pt", weights_only=True)["average"]
        network = bind(ARCHITECTURES, self.arch)(classes=len(self.held.classes))
        network.load_state_dict({name.removeprefix("module."): value for name, value in state.items() if name.startswith("module.")})
        card = Card(name="now", arch=self.arch, weights="now", sha256="0" * 64, classes=self.held.classes, size=self.held.images.shape[-1])
        model, batch = Model(network, card), next(self.held.batches(len(self.held)))
        right = verdict(model, batch.x, batch.y)[0]
        x_adv = attack(model, batch, member("pgd(steps=20)", Threat.parse("linf:0.3")))
        stands = verdict(model, x_adv, batch.y)[0] & right
        return {"clean": float(right.float().mean()), "pgd": float(stands.float().mean())}


def epochs_of(ground: Ground, seconds: float) -> dict[str, int]:
    """How many epochs each net has time for; measured once, in turn in one process, and kept, so that a resumed run is the same run."""
    kept = ground.runs / f"pace_{seconds:g}.json"
    held: dict[str, int] = json.loads(kept.read_text()) if kept.is_file() else {}
    if missing := [name for name in (CONTROL, *VARIANTS) if name not in held]:
        settings = ground.settings()
        pictures = sets.load(settings.data, "train", first=settings.examples)
        batch = next(pictures.batches(settings.batch))
        work = {name: worker(name, ground) for name in missing}
        taken = {name: float("inf") for name in work}
        for _ in range(5):
            for name, once in work.items():
                taken[name] = min(taken[name], once(batch))
        found = {name: max(2, round(seconds / (each * (len(pictures) // settings.batch)))) for name, each in taken.items()}
        kept.parent.mkdir(parents=True, exist_ok=True)
        held |= found
        kept.write_text(json.dumps(held))
        print({name: f"{1000 * each:.0f} ms of CPU a step, {found[name]} epochs" for name, each in taken.items()}, flush=True)
    return held | {COLD: held[CONTROL]}


def worker(name: str, ground: Ground) -> Callable[[Batch], float]:
    """A step of a net that is thrown away: a batch -> the CPU seconds that it took."""
    settings = ground.settings(VARIANTS.get(name))
    if name == CONTROL:
        network, step = bind(ARCHITECTURES, settings.target)(), adversarial(Threat.parse(settings.threat), steps=10)
    else:
        taught = frozen(load_model(ground.runs / "base" / "teacher").network)
        network = student_of(taught, bind(ARCHITECTURES, settings.arch)())
        step = mid(taught, against_student([(one.attack, one.threat) for one in settings.attacks()]), settings.meta())

    def once(batch: Batch) -> float:
        began = time.process_time()
        step(network, batch)["loss"].backward()
        return time.process_time() - began

    return once


def trained(name: str, ground: Ground, seconds: float, seed: int, held: Pictures) -> tuple[Model, list[dict[str, float]]]:
    """One net after its time, and its curve."""
    epochs, called = epochs_of(ground, seconds)[name], f"{name}_{seconds:g}"
    settings = ground.settings()
    out = ground.runs / f"{called}_{seed}"
    arch, stage = (settings.arch, "student") if name in VARIANTS else (settings.target, called)
    curve = Curve(out / "curve.json", epochs, held, arch, stage, ground.clock)
    if name in VARIANTS:
        return ground.student(called, VARIANTS[name] | {"epochs": epochs}, seed, curve.told), curve.points()
    step = adversarial(Threat.parse(settings.threat), steps=10)
    start = load_model(ground.runs / "base" / "target") if name == CONTROL else None
    return ground.classifier(called, step, seed, epochs, curve.told, start), curve.points()


def main() -> None:
    parser = argparse.ArgumentParser(description="Adaptive MID beside adversarial training: same net, same pictures, same CPU time.")
    parser.add_argument("--seconds", type=float, default=120.0, help="CPU seconds of training for each net")
    parser.add_argument("--examples", type=int, default=200, help="test pictures")
    parser.add_argument("--strong", type=int, default=100, help="test pictures for C&W, JSMA and AutoAttack")
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--minutes", type=float, default=None, help="end cleanly after so many, resumable")
    parser.add_argument("--nets", nargs="+", default=[CONTROL, *VARIANTS, COLD], choices=[CONTROL, *VARIANTS, COLD])
    parser.add_argument("--recipe", type=Path, default=ROOT / "recipes" / "mnist_mid_thin.toml")
    parser.add_argument("--runs", type=Path, default=ROOT / "runs" / "mid_thin")
    parser.add_argument("--write", action=argparse.BooleanOptionalAction, default=True, help="write benchmarks/results/mid_adaptive.json")
    given = parser.parse_args()
    ground = Ground(given.recipe, given.runs, Clock.of(given.minutes))
    settings = ground.settings()
    ground.student("published", {})  # the base, and what the others are compared with besides
    beyond = sets.load(settings.data, "train", first=(settings.examples or 0) + HELD)
    held = Pictures(beyond.images[-HELD:], beyond.labels[-HELD:], beyond.classes)
    nets, curves, missing = dict[str, Model](), dict[str, list[dict[str, float]]](), list[str]()
    for seed in range(given.seeds):
        for name in given.nets:
            try:
                ground.clock.check()
                nets[f"{name}_{seed}"], curves[f"{name}_{seed}"] = trained(name, ground, given.seconds, seed, held)
            except Over:
                missing.append(f"{name}, seed {seed}")
    if not nets:
        raise SystemExit("no net is trained yet; the same command goes on")
    strong = [Asked("autoattack(steps=30, queries=500)", "linf:0.3", given.strong)]
    asked = [one for one in unknown("linf:0.3", "l2:2", given.examples, given.strong) if not one.spec.startswith("autoattack")] + strong
    known = [Asked("pgd(steps=20)", "linf:0.3", given.examples)]
    pictures = sets.load(settings.data, "test", first=given.examples)
    said, unchanged, left = judged(nets, {}, known + asked, pictures, given.runs, ground.clock, columns=("white",))
    if given.write:
        concluded(said, unchanged, curves, [one.spec for one in asked], missing + left, given, settings)


def concluded(
    said: dict[str, Any],
    unchanged: dict[str, Any],
    curves: dict[str, list[dict[str, float]]],
    unknown_specs: list[str],
    missing: list[str],
    given: argparse.Namespace,
    settings: MidSettings,
) -> None:
    """The claim about the variant that held-out training pictures choose; nothing where it or the control is not measured."""
    at_end = {name: sum(c[-1].get("pgd", 0.0) for c in here) / len(here) for name in given.nets
              if (here := [c for key, c in curves.items() if key.rpartition("_")[0] == name])}  # fmt: skip
    measured = {name: flags for name in given.nets if (flags := mean_flags(said, name, "white", unknown_specs)) is not None}
    ready = [name for name in at_end if name in measured]
    chosen = max((name for name in ready if name not in CONTROLS), key=lambda name: at_end[name], default=None)
    control = max((name for name in ready if name in CONTROLS), key=lambda name: at_end[name], default=None)
    if chosen is None or control is None:
        print("mid_adaptive: not all of the claim is measured yet; the same command goes on")
        return
    apart = {name: paired(flags, measured[control]) for name, flags in measured.items() if name not in CONTROLS}
    draw(curves, PICTURES / "mid_adaptive.png")
    record(
        "mid_adaptive",
        "Adaptive MID above adversarial training of the same net on the same pictures in the same CPU time: white box, mean of unknown attacks.",
        apart[chosen]["value"],
        f"share of pictures, `{chosen}` less `{control}`",
        n=apart[chosen]["n"],
        interval=apart[chosen]["interval"],
        at_least=0.0,
        holds=apart[chosen]["interval"][0] > 0.0,
        details={
            "settings": settings.model_dump(mode="json", exclude={"folder", "device", "base"}),
            "seconds": given.seconds,
            "seeds": given.seeds,
            "chosen": chosen,
            "control": control,
            "held-out PGD accuracy at the end": at_end,
            "kinds": {name: SAID[name] for name in measured},
            "unknown": unknown_specs,
            "nets": over_seeds(said, given.nets),
            "mean of unknown": {name: float(flags.mean()) for name, flags in measured.items()},
            "above the control": apart,
            "unchanged": unchanged,
            "curves": curves,
            "missing": missing,
        },
    )


def draw(curves: dict[str, list[dict[str, float]]], to: Path) -> None:
    """Accuracy under PGD on held-out training pictures against CPU seconds, first seeds."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(1, 2, figsize=(9, 3.2), sharex=True)
    for key, points in curves.items():
        name, _, seed = key.rpartition("_")
        if seed == "0":
            looked = [one for one in points if "pgd" in one]
            for axis, what in zip(axes, ("pgd", "clean"), strict=True):
                style = {"color": "black", "linestyle": "--" if name == CONTROL else ":"} if name in (CONTROL, COLD) else {}
                axis.plot([one["seconds"] for one in looked], [100 * one[what] for one in looked], label=name, **style)
    for axis, title in zip(axes, ("PGD, 20 steps, Linf 0.3", "clean"), strict=True):
        axis.set(xlabel="CPU seconds of training", ylabel="held-out accuracy (%)", title=title, ylim=(0, 100))
    axes[0].legend(fontsize=8)
    figure.tight_layout()
    to.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(to, dpi=110)
    plt.close(figure)


if __name__ == "__main__":
    main()
