"""AutoAttack: a cascade that is as strong as its strongest member."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from forearm.attacks.apgd import apgd, apgd_t
from forearm.attacks.autoattack import VERSIONS, autoattack
from forearm.attacks.fab import fab_t
from forearm.attacks.square import square
from forearm.core.noise import Noise
from forearm.core.threat import Threat
from forearm.errors import SpecError

THREAT = Threat.parse("linf:0.01")


@pytest.fixture(scope="module")
def model() -> nn.Module:
    generator = torch.Generator().manual_seed(0)
    net = nn.Sequential(nn.Flatten(), nn.Linear(192, 32), nn.SiLU(), nn.Linear(32, 6)).double()
    for weight in net.parameters():
        weight.data = 2 * torch.randn(weight.shape, generator=generator, dtype=torch.float64) / weight.shape[-1] ** 0.5
    return net


def sample(model: nn.Module, n: int = 24) -> tuple[Tensor, Tensor]:
    x = torch.rand(n, 3, 8, 8, generator=torch.Generator().manual_seed(4), dtype=torch.float64)
    return x, model(x).argmax(1)


def wins(model: nn.Module, x_adv: Tensor, y: Tensor) -> Tensor:
    return model(x_adv).argmax(1) != y


def test_holds_what_its_members_win(model: nn.Module) -> None:
    x, y = sample(model, 12)
    noise = Noise.of(len(x))
    whole = wins(model, autoattack(model, x, y, threat=THREAT, noise=noise, steps=12, queries=30), y)
    alone = (
        apgd(model, x, y, threat=THREAT, noise=noise.stream("apgd"), steps=12),
        apgd_t(model, x, y, threat=THREAT, noise=noise.stream("apgd_t"), steps=12),
        fab_t(model, x, y, threat=THREAT, noise=noise.stream("fab_t"), steps=12),
        square(model, x, y, threat=THREAT, noise=noise.stream("square"), queries=30),
    )
    union = torch.stack([wins(model, x_adv, y) for x_adv in alone]).any(0)
    assert torch.equal(whole, union)
    assert 0 < int(whole.sum()) < len(x)


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("norm", ["linf:0.01", "l2:0.2", "l1:2"])
def test_every_version_runs_in_every_norm(model: nn.Module, version: str, norm: str) -> None:
    x, y = sample(model, 6)
    threat = Threat.parse(norm)
    x_adv = autoattack(model, x, y, threat=threat, noise=Noise.of(6), version=version, steps=5, queries=10, targets=2, copies=2)
    assert (threat.distance(x_adv, x) > 0).all()


def test_square_gets_past_a_model_without_gradients(model: nn.Module) -> None:
    """A model that is cut into steps stops every gradient attack; the black-box member is what remains."""
    x, y = sample(model)

    def stepped(x: Tensor) -> Tensor:
        return model((x * 64).round() / 64)

    y = stepped(x).argmax(1)
    threat = Threat.parse("linf:0.05")
    x_adv = autoattack(stepped, x, y, threat=threat, noise=Noise.of(len(x)), steps=5, queries=150, targets=2)
    white = apgd(stepped, x, y, threat=threat, noise=Noise.of(len(x)), steps=5)
    assert int((stepped(x_adv).argmax(1) != y).sum()) > int((stepped(white).argmax(1) != y).sum())


def test_an_unknown_version_is_refused(model: nn.Module) -> None:
    x, y = sample(model, 2)
    with pytest.raises(SpecError, match="one of standard, plus, rand"):
        autoattack(model, x, y, threat=THREAT, noise=Noise.of(2), version="fast")
