"""The embedded instant release does its job on real pictures: a target that nobody here trained is harder to attack on it, at every budget it serves."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

import forearm
from forearm.attacks.pgd import pgd
from forearm.core.noise import Noise
from forearm.core.precision import fast, verdict
from forearm.core.threat import Threat
from forearm.data import sets
from forearm.errors import SpecError

pytestmark = pytest.mark.skipif(not (sets.root() / "cifar10_weights").is_dir(), reason="needs CIFAR-10 and foreign weights (FOREARM_DATA)")

N = 60


def pictures() -> tuple[Tensor, Tensor]:
    test = sets.load("cifar10", "test", first=N)
    return test.images.float() / 255, test.labels


def robust(x: Tensor, y: Tensor, threat: Threat) -> int:
    """How many pictures an unseen target still gets right under PGD."""
    model = forearm.load_model(f"resnet2b={sets.root() / 'cifar10_weights/abcrown/resnet2b.pth'}")
    x_adv = pgd(model, x, y, threat=threat, noise=Noise.of(len(x), seed=1), steps=7, twin=fast(model), stop=True)
    return int(verdict(model, x_adv, y)[0].sum())


@pytest.mark.parametrize(("level", "more"), [(2, 1), (4, 3), (8, 6)])
def test_a_target_that_it_never_saw_is_harder_to_attack(level: int, more: int) -> None:
    """And the mutant, another label, is not."""
    x, y = pictures()
    threat = Threat.parse(f"linf:{level}/255")
    armed, reports = forearm.arm(x, defense="instant", threat=str(threat), label=y.tolist())
    assert {report.linf for report in reports} == {level}
    wrong, _ = forearm.arm(x, defense="instant", threat=str(threat), label=((y + 1) % 10).tolist())
    bare = robust(x, y, threat)
    assert robust(armed, y, threat) >= bare + more
    assert robust(wrong, y, threat) < bare + more


def test_it_says_that_photos_are_not_for_it() -> None:
    with pytest.raises(SpecError, match=r"cifar10_instant' was trained for other classes .* pictures of up to 64 pixels"):
        forearm.arm(torch.rand(1, 3, 96, 96), defense="instant")


def test_its_own_class_needs_no_label() -> None:
    x, y = pictures()
    own, _ = forearm.arm(x[:20], defense="instant(own=True)", label=((y[:20] + 1) % 10).tolist())
    same, _ = forearm.arm(x[:20], defense="instant(own=True)", label=y[:20].tolist())
    assert torch.equal(own, same)
    said = forearm.load_model("cifar10_instant")(x[:20]).argmax(1)
    told, _ = forearm.arm(x[:20], defense="instant", label=said.tolist())
    assert torch.equal(own, told)
