"""The embedded models do their job on real pictures: the release is harder to attack than the picture, and a wrong sign would be told."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

import forearm
from forearm.attacks.pgd import pgd
from forearm.core.noise import Noise
from forearm.core.precision import fast, verdict
from forearm.core.quantize import release
from forearm.core.threat import Threat
from forearm.data import sets
from forearm.defenses.preemptive.mcgs import mcgs

THREAT = Threat.parse("linf:8/255")

pytestmark = pytest.mark.skipif(not (sets.root() / "cifar10").is_dir(), reason="needs CIFAR-10 (FOREARM_DATA)")


def pictures(n: int) -> tuple[Tensor, Tensor]:
    test = sets.load("cifar10", "test").first(n)
    return test.images.float() / 255, test.labels


def robust(x: Tensor, y: Tensor, steps: int) -> int:
    """How many pictures the backbone still gets right under PGD."""
    model = forearm.load_model("backbone")
    x_adv = pgd(model, x, y, threat=THREAT, noise=Noise.of(len(x), seed=1), steps=steps, twin=fast(model), stop=True)
    return int(verdict(model, x_adv, y)[0].sum())


def armed(x: Tensor, y: Tensor, copies: int) -> Tensor:
    twin = fast(forearm.load_model("backbone"))
    return release(mcgs(twin, x, y, threat=THREAT, noise=Noise.of(len(x)), copies=copies), x, THREAT)


def test_the_release_is_harder_to_attack() -> None:
    x, y = pictures(40)
    assert robust(armed(x, y, 2), y, 5) >= robust(x, y, 5) + 5


def test_a_release_towards_the_wrong_class_is_easier_to_attack() -> None:
    """The mutant: the same change made for another label must lose what the right one wins."""
    x, y = pictures(40)
    assert robust(armed(x, (y + 1) % 10, 2), y, 5) < robust(x, y, 5)


def test_decoupled_labels_come_from_the_labeller() -> None:
    x, y = pictures(20)
    _, reports = forearm.arm(x, defense="s_fgsm", threshold=0.0)
    labeller = forearm.load_model("labeller")
    with torch.inference_mode():
        said = labeller(x).argmax(1)
    assert [report.label for report in reports] == said.tolist()
    assert int((said == y).sum()) >= 16


@pytest.mark.slow
def test_mspd_gains_as_much_as_the_page_says() -> None:
    """200 pictures, 20 copies, PGD-20: at least ten points, as in the README's table."""
    x, y = pictures(200)
    assert robust(armed(x, y, 20), y, 20) >= robust(x, y, 20) + 20


@pytest.mark.slow
def test_a_short_training_beats_chance_and_resumes() -> None:
    """The recipe itself, small: four epochs on 2,000 pictures."""
    import tempfile
    from pathlib import Path

    from forearm.jobs.train import TrainSettings, train

    with tempfile.TemporaryDirectory() as folder:
        settings = TrainSettings(arch="preact_resnet(width=8)", epochs=4, examples=2000, batch=64, rate=0.05, average=0.9)
        train("standard", settings, Path(folder) / "tiny", stop_after=1)
        model = train("standard", settings, Path(folder) / "tiny")
        x, y = pictures(500)
        assert float((model(x).argmax(1) == y).float().mean()) > 0.25
