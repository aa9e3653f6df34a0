"""What must hold of every attack in the table. Each law has mutants that must fail it."""

from __future__ import annotations

import copy
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from forearm.attacks.table import ATTACKS, TRAITS, Attack
from forearm.core.gradients import input_gradient
from forearm.core.noise import Noise
from forearm.core.threat import Threat
from forearm.registry import bind

# Settings that keep a run short; an attack without a row runs with its defaults.
QUICK = {
    "pgd": "pgd(steps=8, restarts=2)",
    "apgd": "apgd(steps=20)",
    "apgd_dlr": "apgd_dlr(steps=20)",
    "apgd_t": "apgd_t(steps=10, targets=3)",
    "fab": "fab(steps=10)",
    "fab_t": "fab_t(steps=10, targets=3)",
    "square": "square(queries=60)",
    "autoattack": "autoattack(steps=8, queries=20, targets=2)",
    "carlini_wagner": "carlini_wagner(searches=4, steps=20, rate=0.04, weight=0.1)",
    "jsma": "jsma(share=0.3, pool=12)",
    "ddn": "ddn(steps=30)",
    "deepfool": "deepfool(steps=10)",
    "sta": "sta(steps=20)",
    "advdrop": "advdrop(steps=15, step=20.0, most=200.0)",
    "ssah": "ssah(steps=40, rate=0.01)",
    "spsa": "spsa(steps=10, probes=16)",
}
EPS = {"linf": 0.01, "l2": 0.1, "l1": 1.0}  # at these some examples of the net below fall and some stand
N = 7
CASES = [(name, norm) for name in ATTACKS for norm in TRAITS[name].norms]
every = pytest.mark.parametrize(("name", "norm"), CASES)


def attack_named(name: str) -> Attack:
    return bind(ATTACKS, QUICK.get(name, name))


def small_net() -> nn.Sequential:
    """A convolutional net of five classes for 12 x 12 pictures, in float64, with weights that depend on nothing else."""
    layers = [nn.BatchNorm2d(3, affine=False), nn.Conv2d(3, 6, 3, 2, 1), nn.SiLU(), nn.Conv2d(6, 8, 3, 2, 1), nn.SiLU()]
    net = nn.Sequential(*layers, nn.Flatten(), nn.Linear(72, 5)).double()
    net[0].running_mean.fill_(0.5)
    net[0].running_var.fill_(0.08)
    generator = torch.Generator().manual_seed(5)
    with torch.no_grad():
        for weight in net.parameters():
            weight.copy_(torch.randn(weight.shape, generator=generator, dtype=weight.dtype) / weight[0].numel() ** 0.5)
            weight.mul_(2.0 if weight.ndim > 1 else 0.0)
    return net.eval()


def pictures(n: int = N) -> Tensor:
    return torch.rand(n, 3, 12, 12, generator=torch.Generator().manual_seed(1), dtype=torch.float64)


@pytest.fixture(scope="module")
def net() -> nn.Sequential:
    return small_net()


@pytest.fixture(scope="module")
def x() -> Tensor:
    return pictures()


@pytest.fixture(scope="module")
def y(net: nn.Sequential, x: Tensor) -> Tensor:
    with torch.no_grad():
        return net(x).argmax(1)


def threat_of(norm: str, times: float = 1.0, targeted: bool = False) -> Threat:
    plain = Threat.parse(f"{norm}:{EPS[norm] * times}")
    return Threat(plain.norm, plain.eps, targeted)


def won(net: nn.Module, x_adv: Tensor, y: Tensor) -> Tensor:
    with torch.no_grad():
        return net(x_adv).argmax(1) != y


# the laws


def stays_inside(attack: Attack, net: nn.Module, x: Tensor, y: Tensor, threat: Threat) -> None:
    x_adv = attack(net, x, y, threat=threat, noise=Noise.of(len(x)))
    assert x_adv.shape == x.shape
    assert x_adv.dtype == x.dtype
    assert not x_adv.requires_grad
    assert bool(((x_adv >= 0) & (x_adv <= 1)).all())
    assert bool((threat.distance(x_adv, x) <= threat.eps * (1 + 1e-6)).all())


def ignores_its_batch(attack: Attack, net: nn.Module, x: Tensor, y: Tensor, threat: Threat) -> None:
    together = attack(net, x, y, threat=threat, noise=Noise.of(len(x)))
    for i in (0, 3, 6):
        alone = attack(net, x[i : i + 1], y[i : i + 1], threat=threat, noise=Noise.of(1, first=i))
        assert torch.allclose(alone[0], together[i], atol=1e-6, rtol=0), i


def is_deterministic(attack: Attack, net: nn.Module, x: Tensor, y: Tensor, threat: Threat) -> None:
    first = attack(net, x, y, threat=threat, noise=Noise.of(len(x), seed=3))
    assert torch.equal(first, attack(net, x, y, threat=threat, noise=Noise.of(len(x), seed=3)))


def touches_nothing(attack: Attack, net: nn.Module, x: Tensor, y: Tensor, threat: Threat) -> None:
    state = copy.deepcopy(net.state_dict())
    modes = [m.training for m in net.modules()]
    wanted = [p.requires_grad for p in net.parameters()]
    x_before, y_before = x.clone(), y.clone()
    torch.manual_seed(11)
    generator = torch.get_rng_state()
    attack(net, x, y, threat=threat, noise=Noise.of(len(x)))
    assert torch.equal(generator, torch.get_rng_state())
    assert torch.equal(x, x_before)
    assert not x.requires_grad
    assert torch.equal(y, y_before)
    assert modes == [m.training for m in net.modules()]
    assert wanted == [p.requires_grad for p in net.parameters()]
    assert all(p.grad is None for p in net.parameters())
    assert all(torch.equal(value, state[key]) for key, value in net.state_dict().items())
    assert not any(m._forward_hooks or m._forward_pre_hooks or m._backward_hooks for m in net.modules())
    assert torch.is_grad_enabled()


def more_is_never_weaker(attack: Attack, net: nn.Module, x: Tensor, y: Tensor, norm: str) -> None:
    """Fourfold steps of eps: far beyond what the attack's own draws can turn."""
    counts = []
    for times in (0.1, 0.4, 1.6, 6.4):
        x_adv = attack(net, x, y, threat=threat_of(norm, times), noise=Noise.of(len(x)))
        counts.append(int(won(net, x_adv, y).sum()))
    assert counts == sorted(counts), counts
    assert counts[-1] > counts[0], counts


def never_gives_up(attack: Attack, net: nn.Module, x: Tensor, y: Tensor, threat: Threat) -> None:
    """Where nothing wins, what comes back is the attack's best point and not the picture."""
    x_adv = attack(net, x, y, threat=threat, noise=Noise.of(len(x)))
    lost = ~won(net, x_adv, y)
    assert lost.any()
    assert bool((threat.distance(x_adv, x)[lost] > 0).all())


def reaches_the_target(attack: Attack, net: nn.Module, x: Tensor, y: Tensor, norm: str) -> None:
    """All examples but one at most come nearer to their target classes, and some arrive."""
    with torch.no_grad():
        goal = net(x).topk(2, dim=1).indices[:, 1]
        threat = threat_of(norm, 4.0, targeted=True)
        x_adv = attack(net, x, goal, threat=threat, noise=Noise.of(len(x)))
        before, after = threat.margin(net(x), goal), threat.margin(net(x_adv), goal)
    assert int((after > before).sum()) >= len(x) - 1, (before, after)
    assert int((after > 0).sum()) >= 2, after


class Linear(nn.Module):
    """Logits (0, w . x + b): the margin of class 1 falls by at most eps |w|_dual, and by exactly that at the best point."""

    def __init__(self, x: Tensor) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(2)
        self.w = torch.randn(x[0].numel(), generator=generator, dtype=x.dtype)

    def forward(self, x: Tensor) -> Tensor:
        z = x.flatten(1) @ self.w
        return torch.stack([torch.zeros_like(z), z], 1)


def finds_the_linear_optimum(attack: Attack, norm: str) -> None:
    """On a linear model success is possible if and only if eps |w|_dual exceeds the margin: with 10 % to spare it must be found.

    The pictures are far enough from black and white for the box to play no part.
    """
    x = 0.3 + 0.4 * pictures()
    model = Linear(x)
    with torch.no_grad():
        z = model(x)
    y, margin = z.argmax(1), (z[:, 1] - z[:, 0]).abs()
    dual = model.w.abs().sum() if norm == "linf" else model.w.norm()
    for i in range(3):
        for times, expected in ((0.95, False), (1.1, True)):
            threat = Threat(Threat.parse(f"{norm}:1").norm, float(times * margin[i] / dual))
            x_adv = attack(model, x[i : i + 1], y[i : i + 1], threat=threat, noise=Noise.of(1, first=i))
            assert bool(won(model, x_adv, y[i : i + 1])) is expected, (i, times)


@every
def test_stays_in_the_ball_and_the_box(name: str, norm: str, net: nn.Module, x: Tensor, y: Tensor) -> None:
    for times in (0.5, 40.0):  # the second ball is larger than the box for many pixels
        stays_inside(attack_named(name), net, x, y, threat_of(norm, times))


@every
def test_does_not_depend_on_its_batch(name: str, norm: str, net: nn.Module, x: Tensor, y: Tensor) -> None:
    ignores_its_batch(attack_named(name), net, x, y, threat_of(norm))


@every
def test_is_deterministic_and_touches_nothing(name: str, norm: str, net: nn.Module, x: Tensor, y: Tensor) -> None:
    is_deterministic(attack_named(name), net, x, y, threat_of(norm))
    touches_nothing(attack_named(name), net, x, y, threat_of(norm))


@every
def test_more_eps_is_never_weaker(name: str, norm: str, net: nn.Module, x: Tensor, y: Tensor) -> None:
    more_is_never_weaker(attack_named(name), net, x, y, norm)


@every
def test_failure_does_not_return_the_picture(name: str, norm: str, net: nn.Module, x: Tensor, y: Tensor) -> None:
    never_gives_up(attack_named(name), net, x, y, threat_of(norm, 0.05))


@pytest.mark.parametrize(("name", "norm"), [case for case in CASES if TRAITS[case[0]].targeted])
def test_a_targeted_threat_goes_to_its_target(name: str, norm: str, net: nn.Module, x: Tensor, y: Tensor) -> None:
    reaches_the_target(attack_named(name), net, x, y, norm)


GREEDY = ("jsma",)  # moves few values fully: not the optimum, even of a linear model


@pytest.mark.parametrize(
    ("name", "norm"),
    [
        (name, norm)
        for name, norm in CASES
        if norm in ("linf", "l2") and TRAITS[name].kind in ("gradient", "minimal") and name not in GREEDY
    ],
)
def test_finds_the_optimum_of_a_linear_model(name: str, norm: str) -> None:
    finds_the_linear_optimum(attack_named(name), norm)


# the mutants: a sound attack, broken in one way each


def sound(model: nn.Module, x: Tensor, y: Tensor, *, threat: Threat, noise: Noise) -> Tensor:
    gradient, _ = input_gradient(model, x, y)
    return threat.project(x + threat.eps * threat.norm.steepest(gradient), x)


def leaves_the_ball(model: nn.Module, x: Tensor, y: Tensor, *, threat: Threat, noise: Noise) -> Tensor:
    gradient, _ = input_gradient(model, x, y)
    return (x + 1.01 * threat.eps * threat.norm.steepest(gradient)).clamp(0, 1)


def leaves_the_box(model: nn.Module, x: Tensor, y: Tensor, *, threat: Threat, noise: Noise) -> Tensor:
    gradient, _ = input_gradient(model, x, y)
    return x + threat.eps * threat.norm.steepest(gradient)


def looks_at_neighbours(model: nn.Module, x: Tensor, y: Tensor, *, threat: Threat, noise: Noise) -> Tensor:
    gradient, _ = input_gradient(model, x, y)
    return threat.project(x + threat.eps * threat.norm.steepest(gradient - gradient.mean(0) / 2), x)


def draws_by_position(model: nn.Module, x: Tensor, y: Tensor, *, threat: Threat, noise: Noise) -> Tensor:
    return threat.sample(x, Noise.of(len(x)))


def uses_the_global_generator(model: nn.Module, x: Tensor, y: Tensor, *, threat: Threat, noise: Noise) -> Tensor:
    return threat.project(x + threat.eps * torch.randn_like(x), x)


def fills_parameter_gradients(model: nn.Module, x: Tensor, y: Tensor, *, threat: Threat, noise: Noise) -> Tensor:
    model = copy.copy(model)  # the parameters are the same objects
    nn.functional.cross_entropy(model(x), y).backward()
    return sound(model, x, y, threat=threat, noise=noise)


def writes_into_x(model: nn.Module, x: Tensor, y: Tensor, *, threat: Threat, noise: Noise) -> Tensor:
    return x.add_(threat.eps / 2).clamp_(0, 1)


def changes_the_mode(model: nn.Module, x: Tensor, y: Tensor, *, threat: Threat, noise: Noise) -> Tensor:
    return sound(model.train(), x, y, threat=threat, noise=noise)


def leaves_a_hook(model: nn.Module, x: Tensor, y: Tensor, *, threat: Threat, noise: Noise) -> Tensor:
    model.register_forward_hook(lambda *_: None)
    return sound(model, x, y, threat=threat, noise=noise)


def wastes_a_larger_ball(model: nn.Module, x: Tensor, y: Tensor, *, threat: Threat, noise: Noise) -> Tensor:
    small = Threat(threat.norm, min(threat.eps, 4e-3 * EPS[threat.norm.name] ** 2 / threat.eps), threat.targeted)
    return sound(model, x, y, threat=small, noise=noise)


def returns_the_picture(model: nn.Module, x: Tensor, y: Tensor, *, threat: Threat, noise: Noise) -> Tensor:
    x_adv = sound(model, x, y, threat=threat, noise=noise)
    return torch.where(won(model, x_adv, y)[:, None, None, None], x_adv, x)


def forgets_the_target(model: nn.Module, x: Tensor, y: Tensor, *, threat: Threat, noise: Noise) -> Tensor:
    return sound(model, x, y, threat=threat, noise=noise)


def uses_most_of_the_ball(model: nn.Module, x: Tensor, y: Tensor, *, threat: Threat, noise: Noise) -> Tensor:
    return sound(model, x, y, threat=Threat(threat.norm, 0.9 * threat.eps), noise=noise)


Law = Callable[[Attack, nn.Module, Tensor, Tensor], None]
LAWS: dict[str, Law] = {
    "inside": lambda a, net, x, y: stays_inside(a, net, x, y, threat_of("linf", 4.0)),
    "batch": lambda a, net, x, y: ignores_its_batch(a, net, x, y, threat_of("linf")),
    "deterministic": lambda a, net, x, y: is_deterministic(a, net, x, y, threat_of("linf")),
    "nothing": lambda a, net, x, y: touches_nothing(a, net, x, y, threat_of("linf")),
    "more": lambda a, net, x, y: more_is_never_weaker(a, net, x, y, "linf"),
    "gives_up": lambda a, net, x, y: never_gives_up(a, net, x, y, threat_of("linf", 0.05)),
    "target": lambda a, net, x, y: reaches_the_target(a, net, x, y, "linf"),
    "linear": lambda a, net, x, y: finds_the_linear_optimum(a, "linf"),
}


@pytest.mark.parametrize("law", [law for law in LAWS if law != "target"])
def test_a_sound_attack_passes(law: str) -> None:
    net, x = small_net(), pictures()
    LAWS[law](sound, net, x, net(x).argmax(1))


@pytest.mark.parametrize(
    ("law", "mutant"),
    [
        ("inside", leaves_the_ball),
        ("inside", leaves_the_box),
        ("batch", looks_at_neighbours),
        ("batch", draws_by_position),
        ("deterministic", uses_the_global_generator),
        ("nothing", uses_the_global_generator),
        ("nothing", fills_parameter_gradients),
        ("nothing", writes_into_x),
        ("nothing", changes_the_mode),
        ("nothing", leaves_a_hook),
        ("more", wastes_a_larger_ball),
        ("gives_up", returns_the_picture),
        ("target", forgets_the_target),
        ("linear", uses_most_of_the_ball),
    ],
)
def test_a_mutant_fails(law: str, mutant: Attack) -> None:
    net, x = small_net(), pictures()
    y = net(x).argmax(1)
    with pytest.raises(AssertionError):
        LAWS[law](mutant, net, x, y)


def test_every_attack_has_its_traits() -> None:
    assert set(ATTACKS) == set(TRAITS)
