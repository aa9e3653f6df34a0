"""AutoAttack: a cascade that is as strong as its strongest member."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from forearm.attacks.apgd import apgd, apgd_t
from forearm.attacks.autoattack import VERSIONS, autoattack
from forearm.attacks.fab import fab_t
from forearm.attacks.square import square
from forearm.core.gradients import Classifier
from forearm.core.noise import Noise
from forearm.core.precision import folded
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


@pytest.fixture(scope="module")
def convolved() -> nn.Module:
    """A net with batch norms to fold, in float32."""
    generator = torch.Generator().manual_seed(1)
    net = nn.Sequential(
        nn.Conv2d(3, 8, 3, bias=False), nn.BatchNorm2d(8), nn.SiLU(), nn.Conv2d(8, 8, 3, stride=2), nn.BatchNorm2d(8), nn.SiLU(),
        nn.Flatten(), nn.Linear(32, 6),
    )  # fmt: skip
    for name, weight in net.state_dict().items():
        if weight.is_floating_point():
            drawn = torch.randn(weight.shape, generator=generator)
            weight.copy_(drawn.abs() + 0.5 if name.endswith("running_var") else drawn / max(1, weight[0].numel()) ** 0.5)
    net.eval().requires_grad_(False)[-1].bias -= net(grey()).mean(0)  # it likes no class better than another
    return net


def grey() -> Tensor:
    return torch.rand(16, 3, 8, 8, generator=torch.Generator().manual_seed(4))


@pytest.mark.parametrize("norm", ["linf:0.02", "l2:0.2", "l1:1"])
def test_on_a_folded_copy_the_verdicts_are_the_same(convolved: nn.Module, norm: str) -> None:
    x, asked, copy = grey(), 0, folded(convolved)
    y = convolved(x).argmax(1)

    def counted(x: Tensor) -> Tensor:
        nonlocal asked
        asked += 1
        return copy(x)

    def attacked(**copies: Classifier) -> Tensor:
        return autoattack(convolved, x, y, threat=Threat.parse(norm), noise=Noise.of(16), steps=6, queries=30, targets=3, **copies)

    plain = wins(convolved, attacked(), y)
    assert torch.equal(wins(convolved, attacked(folded=counted), y), plain)
    assert 0 < int(plain.sum()) < 16
    assert asked > 20


def test_the_copy_of_another_net_wins_nothing(model: nn.Module) -> None:
    """A copy that calls every picture lost: were it believed, no member would try what the first one left."""
    x, y = sample(model)
    threat, noise = Threat.parse("linf:0.008"), Noise.of(len(x))

    def lost(x: Tensor) -> Tensor:
        return model(x).roll(1, 1)

    x_adv = autoattack(model, x, y, threat=threat, noise=noise, steps=3, queries=9, folded=lost)
    first = wins(model, apgd(model, x, y, threat=threat, noise=noise.stream("apgd"), steps=3), y)
    second = wins(model, apgd_t(model, x, y, threat=threat, noise=noise.stream("apgd_t"), steps=3), y)
    assert wins(lost, x, y).all()
    assert (second & ~first).any()
    assert torch.equal(wins(model, x_adv, y), first | second)
    assert not wins(model, x_adv, y).all()


def test_an_unknown_version_is_refused(model: nn.Module) -> None:
    x, y = sample(model, 2)
    with pytest.raises(SpecError, match="one of standard, plus, rand"):
        autoattack(model, x, y, threat=THREAT, noise=Noise.of(2), version="fast")
