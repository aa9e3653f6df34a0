"""Claim: five things that MID's theory says are so (T1 to T5): each is measured, drawn, and found to hold or not.

The nets of `mid_ablation` (a LeNet of a quarter of the published width on 4,000 MNIST pictures), pictures attacked on their target at Linf 0.3.
T1, alignment: gradients of the training loss for different attacks make a smaller angle with the meta-gradient than without. T2, manifold: the student's
features of an attacked picture are nearer to the teacher's clean ones than the teacher's own. T3, flatness: the second order ends where the loss rises
less under noise on the weights than without a meta-gradient. T4, low frequency: the student's input gradient lies lower than the target's and than that
of plain training on the same pool. T5, leave one family out: accuracy under known attacks less that under the family that was left out is smaller than
for plain training on the same pool. The value counts how many hold, that is, whose 95 % interval excludes zero on the side that the theory says.

    FOREARM_DATA=... python benchmarks/mid_theory.py [--examples 300] [--minutes 10]
"""

from __future__ import annotations

import argparse
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor

from claim import record
from forearm.data import sets
from forearm.data.batches import Pictures
from forearm.defenses.training.autoencoder import Coder
from forearm.defenses.training.mid import Weights, divergence
from forearm.models.autoencoder import Autoencoder
from forearm.models.load import Model, load_model
from mid_ablation import NETS
from mid_columns import PICTURES, ROOT, Asked, Clock, Ground, Over, crafted, paired, rights
from mid_probes import (
    alignment,
    cosine,
    free,
    gradient,
    neighbours,
    objective,
    parameters,
    passed,
    shaken,
    sharpness,
    spectrum,
    taylor_errors,
)

SHOWN = ("published", "far", "first", "no_meta", "erm")
PART = 25
FAMILIES = {"pgd": ("pgd(steps=10)", "targeted:pgd(steps=10)"), "mi_fgsm": ("mi_fgsm(steps=10)", "targeted:mi_fgsm(steps=10)")}
STEPS = [1e-4, 3e-4, 1e-3, 3e-3, 1e-2, 3e-2]
NOISES = [0.02, 0.05, 0.1, 0.2]
CUTS = [2, 3, 4, 6, 8, 10, 14]


@dataclass(frozen=True)
class Scene:
    """What all probes look at: the nets, the teacher, test pictures and their variants (clean, then each member) `m n c h w`."""

    nets: dict[str, Model]
    target: Model
    teacher: Model
    pictures: Pictures
    x: Tensor
    y: Tensor
    variants: Tensor

    def coder(self, name: str) -> Autoencoder:
        return cast(Autoencoder, self.nets[name].network)


def verdict_of(name: str, says: str, apart: dict[str, Any], sign: float = 1.0) -> dict[str, Any]:
    """A probe's answer, in a sentence that its interval makes: `apart` should be above 0, or below it where `sign` is -1."""
    low, high = sorted(sign * bound for bound in apart["interval"])
    found = "holds" if low > 0 else "does not hold (the opposite is measured)" if high < 0 else "cannot be told from no difference"
    edges = ", ".join(f"{bound:+.3g}" for bound in apart["interval"])
    return {
        "holds": low > 0,
        "apart": apart,
        "sentence": f"{name}: {says}: {found}; difference {apart['value']:+.3g} (95 % interval {edges}; n = {apart['n']}).",
    }


def t1(scene: Scene, axes: Any) -> dict[str, Any]:
    """Alignment of gradients, and how far the expansion that promises it is right."""
    teacher = cast(Coder, free(cast(Autoencoder, scene.teacher.network)))
    angles: dict[str, list[float]] = {}
    errors: list[list[float]] = []
    for name in scene.nets:
        net = free(scene.coder(name))
        for first in range(0, len(scene.y), PART):
            here = slice(first, first + PART)
            x, y = scene.x[here].double(), scene.y[here]
            losses = [objective(teacher, net, one[here].double(), x, y, Weights()) for one in scene.variants]
            angles.setdefault(name, []).append(alignment([gradient(loss, parameters(net)) for loss in losses]))
            if name == "published":
                errors.append(taylor_errors(losses[1], losses[-1], parameters(net), STEPS))
    mean = np.mean(errors, axis=0)
    axes[0].loglog(STEPS, mean, "o-", label="measured")
    axes[0].loglog(STEPS, [mean[0] * (a / STEPS[0]) ** 2 for a in STEPS], "--", color="grey", label="a squared")
    axes[0].set(title="error of the first-order expansion", xlabel="inner step a")
    axes[0].legend()
    bars(axes[1], "mean cosine of attacks' gradients", {name: np.asarray(values) for name, values in angles.items()})
    says = "gradients of different attacks are nearer to each other with the meta-gradient than without"
    found = verdict_of("T1", says, paired(np.asarray(angles["published"]), np.asarray(angles["no_meta"])))
    order = float(np.polyfit(np.log(STEPS[:4]), np.log(mean[:4]), 1)[0])
    return found | {"cosines": {name: float(np.mean(v)) for name, v in angles.items()}, "order of the error": order}


def t2(scene: Scene, axes: Any) -> dict[str, Any]:
    """Distance of features to the teacher's clean ones: the student's against the teacher's own."""
    teacher = cast(Autoencoder, scene.teacher.network)
    known = sets.load("mnist", "train", first=2000)
    with torch.no_grad():
        clean, x_adv = teacher.encoder(scene.x).features, scene.variants[1]
        bank = teacher.encoder(known.images.float() / 255.0).features
        given = {"teacher": teacher.encoder(x_adv).features}
        given |= {name: scene.coder(name).encoder(x_adv).features for name in scene.nets}
    near = {name: cosine(features, clean).double().numpy() for name, features in given.items()}
    agree = {name: neighbours(features, bank, known.labels, scene.y).numpy() for name, features in given.items()}
    for name in ("teacher", "published", "erm"):
        if name in near:
            axes[0].hist(near[name], bins=30, range=(-0.1, 1), histtype="step", label=name)
    axes[0].set(title="cosine to the clean teacher's features", xlabel="cosine", ylabel="attacked pictures")
    axes[0].legend()
    bars(axes[1], "10 nearest clean features of the same class", agree)
    says = "the student's features of attacked pictures are nearer to the teacher's clean ones than the teacher's own"
    table = {
        name: {
            "cosine": float(near[name].mean()),
            "KL": float(divergence(clean, given[name])),
            "neighbours": float(agree[name].mean()),
        }
        for name in given
    }
    return verdict_of("T2", says, paired(near["published"], near["teacher"])) | {"features": table}


def t3(scene: Scene, axes: Any) -> dict[str, Any]:
    """The loss of the labels under attack: its largest curvature, and its rise under noise on the weights."""
    teacher = cast(Coder, free(cast(Autoencoder, scene.teacher.network)))
    x, y = scene.x[: 4 * PART].double(), scene.y[: 4 * PART]
    labels = Weights(1.0, 0.0, 0.0)
    rises: dict[str, np.ndarray[Any, Any]] = {}
    curved: dict[str, float] = {}
    for name in scene.nets:
        net = free(scene.coder(name))
        loss = objective(teacher, net, scene.variants[1][: 4 * PART].double(), x, y, labels)
        at = parameters(net)
        curved[name] = sharpness(loss, at)
        with torch.no_grad():
            here = float(loss(at))
            rises[name] = np.asarray([[float(loss(shaken(at, size, seed))) - here for size in NOISES] for seed in range(20)])
        axes[0].plot(NOISES, rises[name].mean(0), "o-", label=name)
    axes[0].set(title="rise of the loss under weight noise", xlabel="noise, share of each tensor's length", ylabel="CE")
    axes[0].legend()
    axes[1].bar(list(curved), list(curved.values()))
    axes[1].set(title="largest eigenvalue of the Hessian")
    axes[1].tick_params(axis="x", rotation=30)
    says = "the loss rises less under weight noise of 10 % with the second-order meta-gradient than without one"
    found = verdict_of("T3", says, paired(rises["published"][:, 2], rises["no_meta"][:, 2]), -1.0)
    return found | {"largest eigenvalue": curved, "rise at 10 %": {name: float(rise[:, 2].mean()) for name, rise in rises.items()}}


def t4(scene: Scene, axes: Any) -> dict[str, Any]:
    """Which frequencies decide: accuracy on filtered clean pictures, and where the power of the input gradient lies."""
    every = {"target": scene.target, "teacher": scene.teacher} | {name: scene.nets[name] for name in ("published", "erm")}
    centre: dict[str, np.ndarray[Any, Any]] = {}
    filtered: dict[str, dict[str, list[float]]] = {}
    for name, net in every.items():
        power = spectrum(net, scene.x, scene.y)
        centre[name] = (power @ torch.arange(power.shape[1], dtype=power.dtype)).numpy()
        filtered[name] = {}
        for low, style in ((True, "-"), (False, "--")):
            here = [float(np.mean(rights(net, passed(scene.x, cut, low=low), scene.y))) for cut in CUTS]
            filtered[name]["low" if low else "high"] = here
            axes[0].plot(CUTS, here, style, label=f"{name}, {'low' if low else 'high'} pass", color=f"C{list(every).index(name)}")
        axes[1].plot(power.mean(0).numpy(), label=name)
    axes[0].set(title="accuracy on filtered pictures", xlabel="cut (cycles per picture)", ylim=(0, 1))
    axes[1].set(title="power of the input gradient", xlabel="cycles per picture")
    axes[0].legend(fontsize=7)
    axes[1].legend()
    apart = {other: paired(centre["published"], centre[other]) for other in ("target", "erm")}
    worse = max(apart, key=lambda other: apart[other]["interval"][1])
    found = verdict_of("T4", f"the student's input gradient lies at lower frequencies (cycles) than that of `{worse}`", apart[worse], -1.0)
    return found | {"centre": {n: float(c.mean()) for n, c in centre.items()}, "filtered": filtered, "against each": apart}


def t5(scene: Scene, axes: Any, ground: Ground) -> dict[str, Any]:
    """Accuracy under known attacks less that under a family that was left out: MID against plain training on the same pool."""
    gaps: dict[str, list[np.ndarray[Any, Any]]] = {"MID": [], "plain": []}
    table: dict[str, dict[str, dict[str, float]]] = {}
    n = len(scene.y)
    for family in FAMILIES:
        kept = tuple(spec for other, specs in FAMILIES.items() if other != family for spec in specs)
        base = ground.runs / f"base_without_{family}"
        for stage in ("target", "teacher"):
            if not (base / stage).is_dir():
                shutil.copytree(ground.runs / "base" / stage, base / stage)
        for kind, changed in (("MID", {}), ("plain", NETS["erm"])):
            net = ground.student(f"{kind}_without_{family}", changed | {"members": kept, "base": base})
            flags = {}
            for what, specs in (("known", kept), ("left out", FAMILIES[family])):
                made = [
                    crafted(scene.target, Asked(s, "linf:0.3", n).member, scene.pictures, n, ground.runs / "attacks" / "gray")
                    for s in specs
                ]
                flags[what] = np.mean([np.asarray(rights(net, one, scene.y), float) for one in made], axis=0)
            gaps[kind].append(flags["known"] - flags["left out"])
            table.setdefault(family, {})[kind] = {what: float(here.mean()) for what, here in flags.items()}
    for i, kind in enumerate(gaps):
        axes[0].bar([j + 0.4 * i for j in range(len(FAMILIES))], [100 * gap.mean() for gap in gaps[kind]], 0.35, label=kind)
    axes[0].set(title="known less left out (points)", xticks=[0.2, 1.2], xticklabels=[f"without {family}" for family in FAMILIES])
    axes[0].legend()
    for i, kind in enumerate(gaps):
        axes[1].bar([j + 0.4 * i for j in range(len(FAMILIES))], [100 * table[f][kind]["left out"] for f in FAMILIES], 0.35, label=kind)
    axes[1].set(
        title="accuracy under the family left out (%)", xticks=[0.2, 1.2], xticklabels=[f"without {f}" for f in FAMILIES], ylim=(0, 100)
    )
    axes[1].legend()
    says = "the gap from known attacks to a family that was left out is smaller with MID than with plain training"
    ours, plain = (np.mean(gaps[kind], axis=0) for kind in ("MID", "plain"))
    return verdict_of("T5", says, paired(ours, plain), -1.0) | {"families": table}


def bars(axis: Any, title: str, values: dict[str, np.ndarray[Any, Any]]) -> None:
    """Means with their 95 % intervals."""
    halves = [1.96 * one.std(ddof=1) / len(one) ** 0.5 for one in values.values()]
    axis.bar(list(values), [one.mean() for one in values.values()], yerr=halves)
    axis.set(title=title)
    axis.tick_params(axis="x", rotation=30)


def scene_of(ground: Ground, n: int) -> Scene:
    """The nets that are there or have to be trained, and the pictures."""
    nets = {name: ground.student(name, NETS[name]) for name in SHOWN}
    settings = ground.settings()
    target, teacher = (load_model(ground.runs / "base" / name) for name in ("target", "teacher"))
    pictures = sets.load(settings.data, "test", first=n)
    x = pictures.images.float() / 255.0
    made = [
        crafted(target, Asked(one.spec, settings.threat, n).member, pictures, n, ground.runs / "attacks" / "gray")
        for one in settings.attacks()
    ]
    return Scene(nets, target, teacher, pictures, x, pictures.labels, torch.stack([x, *made]))


def main() -> None:
    parser = argparse.ArgumentParser(description="What MID's theory says, measured.")
    parser.add_argument("--examples", type=int, default=300, help="test pictures")
    parser.add_argument("--minutes", type=float, default=None, help="end cleanly after so many, resumable")
    parser.add_argument("--recipe", type=Path, default=ROOT / "recipes" / "mnist_mid_thin.toml")
    parser.add_argument("--runs", type=Path, default=ROOT / "runs" / "mid_thin")
    parser.add_argument("--write", action=argparse.BooleanOptionalAction, default=True, help="write benchmarks/results/mid_theory.json")
    given = parser.parse_args()
    ground = Ground(given.recipe, given.runs, Clock.of(given.minutes))
    try:
        scene = scene_of(ground, given.examples)
        probes: dict[str, Callable[[Any], dict[str, Any]]] = {
            "T1": lambda axes: t1(scene, axes),
            "T2": lambda axes: t2(scene, axes),
            "T3": lambda axes: t3(scene, axes),
            "T4": lambda axes: t4(scene, axes),
            "T5": lambda axes: t5(scene, axes, ground),
        }
        found = {
            name: drawn(probe, (PICTURES if given.write else given.runs) / f"mid_{name.lower()}.png") for name, probe in probes.items()
        }
    except Over:
        raise SystemExit("mid_theory: not all is measured yet; the same command goes on") from None
    for one in found.values():
        print(one["sentence"], flush=True)
    if given.write:
        record(
            "mid_theory",
            "What MID's theory says of alignment, manifold, flatness, frequency and families left out (T1 to T5) is found in trained nets.",
            float(sum(one["holds"] for one in found.values())),
            "of five probes hold",
            n=given.examples,
            at_least=5.0,
            details={"probes": found, "seeds": 1},
        )


def drawn(probe: Callable[[Any], dict[str, Any]], to: Path) -> dict[str, Any]:
    """A probe with its figure of two parts."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(1, 2, figsize=(9, 3.4))
    found = probe(axes)
    figure.tight_layout()
    to.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(to, dpi=110)
    plt.close(figure)
    return found


if __name__ == "__main__":
    main()
