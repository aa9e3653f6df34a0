"""What must hold of every defence at test time, each law with mutants that fail it; and the facts of each method."""

from __future__ import annotations

import copy
import inspect
from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import forearm
from forearm.attacks.pgd import pgd
from forearm.core import channel
from forearm.core.gradients import Classifier, finite_difference_gradient, input_gradient
from forearm.core.noise import Noise
from forearm.core.precision import exact, fast, fold
from forearm.core.threat import Threat
from forearm.defenses.inference.anti_adversary import AntiAdversary
from forearm.defenses.inference.conceal import Concealment, conceal
from forearm.defenses.inference.hardened import Hardened
from forearm.defenses.inference.resize_pad import Placing, RandomPlacing, placings, resize_pad
from forearm.defenses.inference.table import INFERENCE
from forearm.errors import InputError, SpecError
from forearm.models.lenet import lenet_autoencoder
from forearm.registry import bind, resolve

# Options that suit pictures of 12 pixels; a defence without a row runs with its defaults.
QUICK = {
    "resize_pad": "resize_pad(least=0.7)",
    "total_variation": "total_variation(steps=5)",
    "anti_adversary": "anti_adversary(rate=0.02)",
    "noise": "noise(eps=0.05)",
}
BLIND = ("jpeg", "bit_depth")  # flat almost everywhere: there is no slope to compare with
HARDEN = {name: row.harden for name, row in INFERENCE.items()}
UNMASK = {name: row.unmask for name, row in INFERENCE.items() if row.unmask}
every = pytest.mark.parametrize("name", INFERENCE)

Harden = Callable[[nn.Module], nn.Module]


def harden_named(name: str) -> Harden:
    return bound(HARDEN, name)


def unmask_named(name: str) -> Callable[[nn.Module], Classifier]:
    return bound(UNMASK, name)


def bound(table: dict[str, str], name: str) -> Callable[..., Any]:
    """A row with the options that suit these tests; a student stands for the trained one that a spec would name."""
    wrap = bind(table, QUICK.get(name, name))
    return partial(wrap, student=small_student()) if name == "regenerate" else wrap


def small_student() -> nn.Module:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(7)
        return lenet_autoencoder(channels=3, side=12).double()


def small_net() -> nn.Sequential:
    """A convolutional net of five classes in float64, with weights that depend on nothing else."""
    layers = [nn.BatchNorm2d(3, affine=False), nn.Conv2d(3, 6, 3, 2, 1), nn.BatchNorm2d(6), nn.SiLU(), nn.Conv2d(6, 8, 3, 2, 1), nn.SiLU()]
    net = nn.Sequential(*layers, nn.Flatten(), nn.Linear(72, 5)).double()
    generator = torch.Generator().manual_seed(5)
    with torch.no_grad():
        for weight in net.parameters():
            weight.copy_(torch.randn(weight.shape, generator=generator, dtype=weight.dtype) / weight[0].numel() ** 0.5)
            weight.mul_(2.0 if weight.ndim > 1 else 0.5)
        for norm in (net[0], net[2]):
            norm.running_mean.fill_(0.5)
            norm.running_var.fill_(0.2)
        net[2].weight.abs_().add_(1.0)
    return net.eval()


def batch(n: int = 6, side: int = 12) -> tuple[Tensor, Tensor]:
    x = torch.rand(n, 3, side, side, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    return x, torch.arange(n) % 5


def seeded(model: Classifier, seed: int = 0) -> Classifier:
    """`model` with torch's generator at the same place in every pass, and left where it was."""

    def classify(x: Tensor) -> Tensor:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            return model(x)

    return classify


# the laws


def answers(harden: Harden, random: bool) -> None:
    """Finite logits of the model's shape and type; the same twice, unless the defence is random: then not, in eval mode."""
    model, (x, _) = small_net(), batch()
    for net, given in ((harden(model), x), (harden(copy.deepcopy(model).float()), x.float())):
        first, second = net(given), net(given)
        assert first.shape == (len(x), 5)
        assert first.dtype == given.dtype
        assert bool(first.isfinite().all())
        if random:
            assert not all(torch.equal(net(given), first) for _ in range(20))
            assert torch.equal(seeded(net)(given), seeded(net)(given))
        else:
            assert torch.equal(first, second)


def touches_nothing(harden: Harden, random: bool) -> None:
    """Weights, modes, pictures and, where it is not random, the generator are as they were."""
    model, (x, y) = small_net(), batch()
    model[2].train()  # a part may be in another mode than the whole
    state = copy.deepcopy(model.state_dict())
    modes = [part.training for part in model.modules()]
    wanted = [p.requires_grad for p in model.parameters()]
    kept, generator = x.clone(), torch.get_rng_state()
    net = harden(model)
    assert [part.training for part in model.modules()] == modes
    model[2].eval()
    with torch.no_grad():
        net(x)
        assert not torch.is_grad_enabled()
    input_gradient(net, x, y)
    now = model.state_dict()
    assert list(now) == list(state)
    assert all(torch.equal(now[key], value) for key, value in state.items())
    assert [p.requires_grad for p in model.parameters()] == wanted
    assert all(p.grad is None for p in model.parameters())
    assert torch.equal(x, kept)
    assert random or torch.equal(torch.get_rng_state(), generator)


def keeps_the_state_dict(harden: Harden, random: bool) -> None:
    """Key for key the model's, both ways, alone and inside a larger model."""
    model = small_net()
    state = {key: value.clone() for key, value in model.state_dict().items()}
    net = harden(model)
    held = net.state_dict()
    assert list(held) == list(state)
    assert all(torch.equal(held[key], value) for key, value in state.items())
    other = {key: value + 1 for key, value in state.items()}
    assert not any(net.load_state_dict(other))
    assert all(torch.equal(value, other[key]) for key, value in model.state_dict().items())
    with pytest.raises(RuntimeError, match=r"Missing key.*7\.bias"):
        net.load_state_dict({key: value for key, value in state.items() if key != "7.bias"})
    larger, plain = nn.Sequential(net, nn.ReLU()), nn.Sequential(model, nn.ReLU())
    assert list(larger.state_dict()) == list(plain.state_dict())
    larger.load_state_dict({f"0.{key}": value for key, value in state.items()})
    assert all(torch.equal(value, state[key]) for key, value in model.state_dict().items())
    with pytest.raises(RuntimeError, match="Unexpected key"):
        larger.load_state_dict({**{f"0.{key}": value for key, value in state.items()}, "0.nothing": torch.zeros(1)})


def passes_its_mode_on(harden: Harden, random: bool) -> None:
    """train() and eval() reach the model, and a pass in training mode moves the statistics of batch norm."""
    model, (x, _) = small_net(), batch()
    net = harden(model)
    assert not net.training
    net.train()
    assert all(part.training for part in model.modules())
    before = model[0].running_mean.clone()
    assert bool(net(x).isfinite().all())
    assert not torch.equal(model[0].running_mean, before)
    net.eval()
    assert not any(part.training for part in (*model.modules(), *net.modules()))
    assert harden(small_net().train()).training
    net.half()
    assert all(p.dtype == torch.float16 for p in model.parameters())


def copies_apart(harden: Harden, random: bool) -> None:
    """A deep copy has weights of its own, so that folded and exact copies are copies."""
    model, (x, _) = small_net(), batch()
    net = harden(model)
    expected = seeded(net)(x)
    twins = [copy.deepcopy(net), fold(net), exact(net)]
    with torch.no_grad():
        for weight in model.parameters():
            weight.zero_()
    assert not torch.allclose(seeded(net)(x), expected)
    for twin in twins:
        torch.testing.assert_close(seeded(twin)(x), expected)


LAWS = [answers, touches_nothing, keeps_the_state_dict, passes_its_mode_on, copies_apart]


@every
@pytest.mark.parametrize("law", LAWS)
def test_every_defence_keeps_the_law(law: Callable[[Harden, bool], None], name: str) -> None:
    law(harden_named(name), INFERENCE[name].random)


class Plain(nn.Module):
    """A mutant: a wrapper whose keys are its own."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, x: Tensor) -> Tensor:
        return self.model(x)


class Captured(nn.Module):
    """A mutant: the model is no part of it."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.classify = lambda x: model(x)

    def forward(self, x: Tensor) -> Tensor:
        return self.classify(x)


class Remoded(Hardened):
    """A mutant: all parts of the model get the mode of the whole."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__(model, nn.Identity())
        self.train(model.training)


class Half(Plain):
    """A mutant: half of the logits."""

    def forward(self, x: Tensor) -> Tensor:
        return self.model(x)[:, :2]


class Draws(Plain):
    """A mutant: random, though its row says it is not."""

    def forward(self, x: Tensor) -> Tensor:
        return self.model(x + 1e-3 * torch.rand_like(x))


MUTANTS = [
    (answers, Half, False),
    (answers, Draws, False),
    (answers, Plain, True),
    (touches_nothing, Remoded, False),
    (touches_nothing, Draws, False),
    (touches_nothing, lambda model: Plain(model.requires_grad_(False)), False),
    (touches_nothing, lambda model: Plain(model.train()), False),
    (keeps_the_state_dict, Plain, False),
    (keeps_the_state_dict, Captured, False),
    (passes_its_mode_on, Captured, False),
    (passes_its_mode_on, lambda model: Plain(copy.deepcopy(model)), False),
    (copies_apart, Captured, False),
    (copies_apart, lambda model: Plain(copy.deepcopy(model)), False),
]


@pytest.mark.parametrize(("law", "mutant", "random"), MUTANTS)
def test_every_law_fails_a_mutant(law: Callable[[Harden, bool], None], mutant: Harden, random: bool) -> None:
    with pytest.raises((AssertionError, RuntimeError)):
        law(mutant, random)


@every
def test_the_attacker_has_the_options_of_the_defence(name: str) -> None:
    assert INFERENCE[name].unmask is not None
    options = [
        {p.name: p.default for p in inspect.signature(resolve(table, name)).parameters.values() if p.default is not p.empty}
        for table in (HARDEN, UNMASK)
    ]
    assert options[0] == options[1]
    assert INFERENCE[name].paper


# what an attacker who knows differentiates


def slopes_agree(harden: Harden, unmask: Callable[[nn.Module], Classifier], random: bool) -> None:
    """The gradient of `unmask` is not zero, and it is the slope of the hardened model's own values (its mean probability, where it draws)."""
    model, (x, y) = small_net(), batch(3)
    gradient, _ = input_gradient(seeded(unmask(model)), x, y)
    assert bool((gradient.flatten(1).abs().amax(1) > 1e-4).all())
    net = seeded(unmask(model)) if random else harden(model)
    slope = finite_difference_gradient(net, x, y, step=1e-6, directions=20, noise=Noise.of(3))
    rows = torch.linalg.qr(Noise.of(3).normal(x.flatten(1)[:, None].expand(-1, 20, -1)).transpose(1, 2)).Q
    projected = (rows @ (rows.transpose(1, 2) @ gradient.flatten(1)[:, :, None])).reshape(x.shape)
    cosine = F.cosine_similarity(slope.flatten(1), projected.flatten(1))
    assert bool((cosine > 0.99).all()), cosine


@pytest.mark.parametrize("name", [name for name in INFERENCE if name not in (*BLIND, "anti_adversary")])
def test_the_informed_gradient_is_the_slope(name: str) -> None:
    slopes_agree(harden_named(name), unmask_named(name), INFERENCE[name].random)


@pytest.mark.parametrize(
    ("harden", "unmask"),
    [
        (conceal, conceal),  # the concealed gradient itself
        (harden_named("bit_depth"), harden_named("bit_depth")),  # zero
        (harden_named("gaussian"), lambda model: model),  # another model
    ],
)
def test_the_law_of_slopes_fails_a_mutant(harden: Harden, unmask: Callable[[nn.Module], Classifier]) -> None:
    with pytest.raises(AssertionError):
        slopes_agree(harden, unmask, False)


@pytest.mark.parametrize("name", BLIND)
def test_where_there_is_no_slope_it_is_the_models_at_the_purified_picture(name: str) -> None:
    model, (x, y) = small_net(), batch()
    purified = bind(channel.CHANNELS, name)(x, noise=Noise.of(len(x)))
    assert not torch.equal(purified, x)
    gradient, logits = input_gradient(unmask_named(name)(model), x, y)
    expected, wanted = input_gradient(model, purified, y)
    assert torch.equal(gradient, expected)
    assert torch.equal(logits, wanted)
    assert torch.equal(harden_named(name)(model)(x), wanted)
    hidden, _ = input_gradient(harden_named(name)(model), x, y)
    assert not hidden.any()


@pytest.mark.parametrize("name", [name for name, row in INFERENCE.items() if row.random])
def test_what_is_random_is_attacked_in_its_mean(name: str) -> None:
    """The mean probability over 400 draws of the hardened model is what `unmask` says (over 400 draws too, where it draws), within five deviations."""
    model, (x, _) = small_net(), batch(2)
    net, informed = harden_named(name)(model), unmask_named(name)(model)
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        torch.manual_seed(0)
        drawn = torch.stack([net(x).softmax(1) for _ in range(400)])
        mean = torch.stack([informed(x).exp() for _ in range(20)])
    error = (drawn.var(0) / 400 + mean.var(0) / 20).sqrt()
    assert bool(((drawn.mean(0) - mean.mean(0)).abs() < 5 * error + 1e-9).all())
    bare = model(x).softmax(1)  # the mutant
    assert not bool(((drawn.mean(0) - bare).abs() < 5 * error + 1e-9).all())


def test_adversarial_examples_of_the_bare_model_are_those_of_the_concealed_one() -> None:
    """Who differentiates the concealed model wins nothing; who knows wins what there is to win."""
    model = small_net().float()
    x, _ = batch(40)
    x = x.float()
    y = model(x).argmax(1)
    concealed, threat = forearm.conceal(model), Threat.parse("linf:8/255")

    def still_right(asked: nn.Module) -> float:
        x_adv = pgd(asked, x, y, threat=threat, noise=Noise.of(40), steps=10)
        return float((concealed(x_adv).argmax(1) == y).float().mean())

    known, unknown = still_right(unmask_named("conceal")(model)), still_right(concealed)
    assert known < 0.3
    assert unknown > 0.7


def test_adversarial_examples_of_the_bare_model_fool_the_anti_adversary() -> None:
    model, (x, _) = small_net(), batch(40)
    y = model(x).argmax(1)
    pushed = harden_named("anti_adversary")(model)
    x_adv = pgd(unmask_named("anti_adversary")(model), x, y, threat=Threat.parse("linf:8/255"), noise=Noise.of(40), steps=10)
    fooled = model(x_adv).argmax(1) != y
    assert int(fooled.sum()) > 20
    assert float((pushed(x_adv).argmax(1) != y)[fooled].float().mean()) > 0.9


# gradient concealment


def grey_levels(dtype: torch.dtype = torch.float32) -> Tensor:
    return (torch.arange(256) / 255.0).to(dtype)


def concealed_slope(net: nn.Module, x: Tensor) -> Tensor:
    leaf = x.clone().requires_grad_()
    (slope,) = torch.autograd.grad(net(leaf).sum(), leaf)
    return slope


def test_the_table_of_signs() -> None:
    """130 grey levels have a positive slope and 126 a negative one, about 1e12 large; 0 and 255 are both positive."""
    net, x = conceal(nn.Identity()), grey_levels()
    slope = concealed_slope(net, x)
    assert (int((slope > 0).sum()), int((slope < 0).sum())) == (130, 126)
    assert bool((slope[[0, 255]] > 0).all())
    assert 0.9e12 < float(slope.abs().max()) <= 1.0001e12
    assert int((concealed_slope(conceal(nn.Identity(), omega=1e10), x) > 0).sum()) != 130  # the mutant


def test_the_forward_pass_is_the_identity_but_for_rounding() -> None:
    x = grey_levels()
    change = conceal(nn.Identity())(x) - x
    assert int((change != 0).sum()) == 42
    assert float(change.abs().max()) <= 1.5e-8
    assert int((conceal(nn.Identity(), epsilon=1e-6)(x) != x).sum()) != 42  # the mutant


def test_float64_has_another_table_and_bfloat16_keeps_its_pictures() -> None:
    single = concealed_slope(conceal(nn.Identity()), grey_levels()) > 0
    double = concealed_slope(conceal(nn.Identity()), torch.arange(256).double() / 255) > 0
    assert 0.4 < float((single == double).float().mean()) < 0.6
    x = grey_levels(torch.bfloat16)
    made = conceal(nn.Identity())(x)
    assert made.dtype == torch.bfloat16
    assert torch.equal(made, x)
    assert float(concealed_slope(conceal(nn.Identity()), x).float().abs().max()) > 1e11


def test_float16_and_values_without_a_phase_are_refused() -> None:
    net = conceal(nn.Identity())
    with pytest.raises(InputError, match=r"conceal: got float16 pictures.*for example x\.float\(\)"):
        net(torch.rand(1, 3, 4, 4).half())
    for bad, told in ((float("nan"), "NaN"), (float("inf"), "inf"), (1e19, "1e\\+19")):
        x = torch.rand(1, 3, 4, 4)
        x[0, 1, 2, 3] = bad
        with pytest.raises(InputError, match=rf"conceal: got {told} in the pictures; .* for example"):
            net(x)


@pytest.mark.parametrize("options", [{"omega": 0.0}, {"omega": 1e39}, {"omega": float("nan")}, {"epsilon": -1e-8}, {"epsilon": "a"}])
def test_constants_that_float32_cannot_hold_are_refused(options: dict[str, Any]) -> None:
    with pytest.raises(SpecError, match=r"conceal: got (omega|epsilon)=.*; .*for example"):
        conceal(nn.Identity(), **options)


def test_the_early_variant_passes_no_gradient_by_the_identity() -> None:
    """Its slope is that of the plain one less 1."""
    x = torch.rand(64, generator=torch.Generator().manual_seed(0))
    early = concealed_slope(conceal(nn.Identity(), omega=1e10, epsilon=1e-6, detached=True), x)
    plain = concealed_slope(conceal(nn.Identity(), omega=1e10, epsilon=1e-6), x)
    torch.testing.assert_close(early, 1e4 * torch.cos(1e10 * x))
    assert not torch.equal(early, plain)
    assert torch.equal(conceal(nn.Identity(), detached=True)(x), conceal(nn.Identity())(x))


def test_it_conceals_under_bfloat16_autocast() -> None:
    """The sine stays in float32, so the pictures the model sees are the same."""
    net, x = conceal(nn.Identity()), grey_levels()
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(net(x), conceal(nn.Identity())(x))


def test_fast_copies_are_folded_behind_it() -> None:
    net = conceal(small_net().float())
    assert sum(isinstance(part, nn.BatchNorm2d) for part in fold(net).modules()) == 1  # the first one has no convolution before it
    x = batch()[0].float()
    torch.testing.assert_close(fast(net, bf16=False)(x), net(x), rtol=1e-4, atol=1e-4)


def test_torch_export_keeps_the_sine() -> None:
    net, x = conceal(nn.Flatten()).eval(), grey_levels().reshape(2, 2, 8, 8)
    exported = torch.export.export(net, (x,)).module()
    assert torch.equal(exported(x), net(x))
    assert int((exported(x) != x.flatten(1)).sum()) == 42
    model = conceal(small_net().float())
    pictures = batch()[0].float()
    torch.testing.assert_close(torch.export.export(model, (pictures,)).module()(pictures), model(pictures))


@pytest.mark.slow
def test_torch_compile_keeps_the_exact_sine() -> None:
    net, x = conceal(nn.Identity()), grey_levels()
    compiled = torch.compile(net, fullgraph=True)
    assert torch.equal(compiled(x), net(x))
    assert torch.equal(concealed_slope(compiled, x).sign(), concealed_slope(net, x).sign())


def test_it_is_a_front_door() -> None:
    assert forearm.conceal is conceal
    assert isinstance(forearm.conceal(nn.Identity()), nn.Module)


def test_the_concealment_holds_no_weights() -> None:
    assert not Concealment(1e20, 1e-8, False).state_dict()


# random resize-and-pad


def test_there_are_91_placings() -> None:
    """6 sides; a gap of g pixels has g^2 places, as the published draw leaves its upper end out."""
    found = placings(224, 224)
    assert len(set(found)) == len(found) == 91
    assert sum(one.chance for one in found) == pytest.approx(1.0)
    assert {224 - one.gap for one in found} == {218, 219, 220, 221, 222, 223}
    for gap in range(1, 7):
        assert sum(one.chance for one in found if one.gap == gap) == pytest.approx(1 / 6)
    assert len(placings(32, 32)) == 1
    assert len(placings(32, 32, 26 / 32)) == 91
    assert len(placings(40, 32, 26 / 32)) == 91
    assert len(placings(2, 2)) == 1


def test_a_placing_is_a_small_picture_among_zeros() -> None:
    x = torch.rand(2, 3, 6, 8, generator=torch.Generator().manual_seed(2)) + 0.1
    made = Placing(2, 0, 1, 1.0)(x)
    assert made.shape == x.shape
    rows, columns = torch.tensor([0, 1, 3, 4]), torch.tensor([0, 1, 2, 4, 5, 6])  # floor(i 6 / 4), floor(i 8 / 6)
    assert torch.equal(made[:, :, :4, 1:7], x[:, :, rows][:, :, :, columns])
    made[:, :, :4, 1:7] = 0.0
    assert not made.any()


def test_the_draws_follow_the_chances() -> None:
    """Over 6000 draws every configuration comes as often as its chance says, within five deviations."""
    x = torch.arange(1.0, 145.0).reshape(1, 1, 12, 12)
    layer, n = RandomPlacing(0.75), 6000
    choices = placings(12, 12, 0.75)
    assert len(choices) == 14
    known = {choice(x).numpy().tobytes(): choice for choice in choices}
    counts = dict.fromkeys(choices, 0)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(1)
        for _ in range(n):
            counts[known[layer(x).numpy().tobytes()]] += 1

    def fits(chance: Callable[[Placing], float]) -> bool:
        return all(abs(count - n * chance(one)) < 5 * (n * chance(one)) ** 0.5 for one, count in counts.items())

    assert fits(lambda one: one.chance)
    assert not fits(lambda one: 1 / 14)  # the mutant: all configurations alike


def test_one_draw_serves_the_batch() -> None:
    x = torch.rand(1, 3, 12, 12).expand(8, -1, -1, -1)
    made = RandomPlacing(0.6)(x)
    assert all(torch.equal(made[0], made[i]) for i in range(8))


@pytest.mark.parametrize("least", [0.0, 1.0, -1, "a"])
def test_other_ratios_are_refused(least: Any) -> None:
    with pytest.raises(SpecError, match=r"resize_pad: got least=.*; .*for example"):
        resize_pad(nn.Identity(), least=least)


def test_a_single_pixel_is_refused() -> None:
    with pytest.raises(InputError, match=r"resize_pad: got 1 x 5 pixels; .*for example"):
        resize_pad(nn.Identity())(torch.rand(1, 3, 5, 1))


# purifiers and the anti-adversary layer


@pytest.mark.parametrize("name", ["jpeg", "bit_depth", "median", "gaussian", "total_variation"])
def test_a_purifier_is_its_channel(name: str) -> None:
    x = batch()[0].float()
    expected = bind(channel.CHANNELS, QUICK.get(name, name))(x, noise=Noise.of(len(x)))
    torch.testing.assert_close(harden_named(name)(nn.Identity())(x), expected, rtol=0, atol=1e-6)
    assert not torch.allclose(x, expected)


@pytest.mark.parametrize(
    "spec",
    [
        "jpeg(quality=0)", "bit_depth(bits=9)", "median(size=0)", "gaussian(sigma=0)", "total_variation(weight=0)", "noise(eps=2)",
        "anti_adversary(steps=-1)", "anti_adversary(rate=0)", "anti_adversary(steps=1.5)",
    ],
)  # fmt: skip
def test_wrong_options_are_refused_when_they_are_given(spec: str) -> None:
    for table in (HARDEN, UNMASK) if not spec.startswith("anti") else (HARDEN,):
        with pytest.raises(SpecError, match=r"\w+: got .*; .*for example"):
            bind(table, spec)(nn.Identity())


def test_noise_fills_its_range() -> None:
    x = torch.full((2, 3, 40, 40), 0.5)
    change = bind(HARDEN, "noise(eps=0.1)")(nn.Identity())(x) - x
    assert 0.099 < float(change.abs().max()) <= 0.1 + 1e-6
    assert float(change.min()) < -0.099


def test_the_anti_adversary_goes_down_the_loss_of_its_own_label() -> None:
    """Against a second, slow way of writing the published loop."""
    model, (x, _) = small_net(), batch()
    y = model(x).argmax(1)
    pushed = x.clone()
    for _ in range(3):
        leaf = pushed.clone().requires_grad_()
        (slope,) = torch.autograd.grad(F.cross_entropy(model(leaf), y), leaf)
        pushed = pushed - 0.02 * slope.sign()
    layer = AntiAdversary(model, 3, 0.02)
    torch.testing.assert_close(x + layer.push(x), pushed)
    torch.testing.assert_close(layer(x), model(pushed))
    before, after = (F.cross_entropy(model(z), y, reduction="none") for z in (x, pushed))
    assert bool((after < before).all())
    assert torch.equal(AntiAdversary(model, 0, 0.02)(x), model(x))
    assert torch.equal(layer(x).argmax(1), y)
