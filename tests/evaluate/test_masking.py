"""The verdict separates models that hide their gradients from models that do not, and each probe sees what it is for."""

from __future__ import annotations

import copy
import json
from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn

import forearm
from forearm.core.noise import Noise
from forearm.core.threat import Threat
from forearm.data import sets
from forearm.defenses.inference.conceal import conceal
from forearm.errors import InputError, SpecError
from forearm.evaluate import masking as verdicts
from forearm.evaluate import probes
from forearm.evaluate.contests import Arena, Contests, contests
from forearm.evaluate.masking import DECISIVE, Masking, masking, of_contests
from forearm.evaluate.probes import Asked
from tests.evaluate.controls import POSITIVE, SMALL, Detached, Hidden, Noised, Saturated, chosen, confident, crops, shapes, small

N = 16
WIDE = Threat.parse("linf:16/255")  # at which the small nets lose most pictures, the robust ones some
EMBEDDED = ["cifar10_backbone", "cifar10_labeller", "photo_backbone", "photo_labeller", "photo_target"]
FOREIGN = {
    "resnet20_a": "akamaster/resnet20-12fca82f.th",
    "resnet2b": "abcrown/resnet2b.pth",
    "cnn_a_adv4": "abcrown/cifar_cnn_a_adv4.model",
}


@pytest.fixture(scope="module")
def pool() -> tuple[Tensor, Tensor]:
    return shapes(120, 1)


@pytest.fixture(scope="module")
def net() -> nn.Module:
    return small("small rectified")


@pytest.fixture(scope="module")
def shown(net: nn.Module, pool: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
    return chosen(net, *pool, N)


def judged(model: nn.Module, x: Tensor, y: Tensor, threat: Threat = WIDE, bare: nn.Module | None = None) -> Masking:
    return masking(model, x, y, threat=threat, noise=Noise.of(len(x)), bare=bare)


def flagged(verdict: Masking) -> set[str]:
    return {one.name for one in verdict.evidence if one.flagged}


def told(verdict: Masking, name: str) -> float:
    (value,) = [one.value for one in verdict.evidence if one.name == name]
    assert value is not None
    return value


# the bar: all controls are separated


@pytest.mark.parametrize("base", SMALL)
@pytest.mark.parametrize("hiding", POSITIVE)
def test_what_hides_gradients_is_masked(hiding: str, base: str, pool: tuple[Tensor, Tensor]) -> None:
    model = POSITIVE[hiding](small(base))
    x, y = chosen(model, *pool, N)
    assert len(x) >= 8
    verdict = judged(model, x, y)
    assert verdict.masked, verdict


@pytest.mark.parametrize("base", SMALL)
def test_small_nets_are_not(base: str, pool: tuple[Tensor, Tensor]) -> None:
    net = small(base)
    verdict = judged(net, *chosen(net, *pool, N), bare=net)
    assert not verdict.masked, verdict


@pytest.mark.parametrize("name", EMBEDDED)
def test_embedded_models_are_not(name: str) -> None:
    model = forearm.load_model(name)
    x, y = confident(model, crops(model.size), 10)
    verdict = judged(model, x, y, Threat.parse("linf:8/255"))
    assert not verdict.masked, verdict
    assert not flagged(verdict), verdict


@pytest.mark.parametrize("name", FOREIGN)
def test_foreign_models_are_not(name: str) -> None:
    file, folder = sets.root() / "cifar10_weights" / FOREIGN[name], sets.root() / "cifar10"
    if not (file.is_file() and folder.is_dir()):
        pytest.skip(f"no {file} or no {folder}")
    model = forearm.load_model(f"{name}={file}")
    test = sets.load("cifar10", "test").first(40)
    verdict = judged(model, *chosen(model, test.images.float() / 255, test.labels, N), Threat.parse("linf:8/255"))
    assert not verdict.masked, verdict


def test_noise_that_turns_no_gradient_is_not(net: nn.Module, pool: tuple[Tensor, Tensor]) -> None:
    class Still(Hidden):
        def forward(self, x: Tensor) -> Tensor:
            out: Tensor = self.net(x + 1e-4 * torch.randn_like(x))
            return out

    model = Still(net)
    verdict = judged(model, *chosen(model, *pool, N), bare=net)
    assert not verdict.masked, verdict
    assert told(verdict, "averaging") == 0.0
    assert told(verdict, "draws") > 0.99


@pytest.mark.slow
@pytest.mark.parametrize("hiding", POSITIVE)
@pytest.mark.parametrize("name", ["cifar10_backbone", "photo_target"])
def test_what_hides_gradients_of_embedded_models_is_masked(name: str, hiding: str) -> None:
    bare = forearm.load_model(name)
    model = POSITIVE[hiding](bare)
    x, y = chosen(model, *confident(bare, crops(bare.size), 60), N)
    assert judged(model, x, y, Threat.parse("linf:8/255"), bare=bare).masked


# each piece of evidence, by what it is for


def test_concealed_gradients_are_seen_four_ways(net: nn.Module, shown: tuple[Tensor, Tensor]) -> None:
    verdict = judged(conceal(net), *shown, bare=net)
    assert {"differences", "scale", "sign_flips", "transfer"} <= flagged(verdict)
    assert "zero_gradient" not in flagged(verdict)


def test_a_saturated_net_has_no_gradient_and_loses_all_the_same(net: nn.Module, shown: tuple[Tensor, Tensor]) -> None:
    """Attacks go on by the margin's gradient: only the raw cross-entropy shows what is wrong."""
    verdict = judged(Saturated(net), *shown)
    assert flagged(verdict) == {"zero_gradient"}
    assert told(verdict, "zero_gradient") == 1.0
    assert told(judged(net, *shown), "zero_gradient") == 0.0


def test_a_cut_graph_fails_without_a_bound(net: nn.Module, shown: tuple[Tensor, Tensor]) -> None:
    verdict = judged(Detached(net), *shown)
    assert {"zero_gradient", "differences", "unbounded"} <= flagged(verdict)
    assert told(verdict, "unbounded") < 0.2
    assert told(judged(net, *shown), "unbounded") == 1.0


def test_answers_beat_gradients_where_there_are_none(net: nn.Module, shown: tuple[Tensor, Tensor]) -> None:
    wide = Threat.parse("linf:64/255")
    assert "black_box" in flagged(judged(Detached(net), *shown, wide))
    assert "black_box" not in flagged(judged(net, *shown, wide))


def test_a_gradient_on_the_grid_alone_lets_one_step_win(net: nn.Module, shown: tuple[Tensor, Tensor]) -> None:
    class OnGrid(Hidden):
        """Has a gradient at pictures of 8 bits, and none between."""

        def forward(self, x: Tensor) -> Tensor:
            level = x.detach() * 255.0
            on = ((level - level.round()).abs() < 1e-3).flatten(1).all(1).view(-1, 1, 1, 1)
            out: Tensor = self.net(torch.where(on, x, x.detach()))
            return out

    x, y = (shown[0] * 255.0).round() / 255.0, shown[1]
    odd = Threat.parse("linf:0.0617")
    assert "one_step" in flagged(judged(OnGrid(net), x, y, odd))
    assert "one_step" not in flagged(judged(net, x, y, odd))


def test_a_gradient_that_is_not_finite_is_told(net: nn.Module, shown: tuple[Tensor, Tensor]) -> None:
    class Rooted(Hidden):
        """The identity, whose derivative at a black pixel is infinity times 0."""

        def forward(self, x: Tensor) -> Tensor:
            out: Tensor = self.net(x + (x.sqrt() - x.sqrt()))
            return out

    x, y = shown[0].clone(), shown[1]
    x[0, :, 0, 0] = 0.0
    asked = Asked(Rooted(net))
    assert probes.infinite(asked, x, y, noise=Noise.of(N)).tolist() == [True] + [False] * (N - 1)
    assert not probes.infinite(Asked(net), x, y, noise=Noise.of(N)).any()
    assert "infinite_gradient" in flagged(judged(Rooted(net), x, y))


def test_a_random_gradient_of_a_fixed_answer_is_seen(net: nn.Module, shown: tuple[Tensor, Tensor]) -> None:
    class Wavering(Hidden):
        def forward(self, x: Tensor) -> Tensor:
            out: Tensor = self.net(x.detach() + torch.randn_like(x) * (x - x.detach()))
            return out

    model, noise = Wavering(net), Noise.of(N)
    assert not probes.random(Asked(model), shown[0], noise=noise)
    assert "draws" in flagged(judged(model, *shown))


def test_randomness_is_told_from_its_absence(net: nn.Module, shown: tuple[Tensor, Tensor]) -> None:
    noise = Noise.of(N)
    assert probes.random(Asked(Noised(net)), shown[0], noise=noise)
    assert not probes.random(Asked(net), shown[0], noise=noise)
    assert torch.allclose(probes.agreement(Asked(net), *shown, noise=noise, draws=3), torch.ones(N, dtype=torch.float64))
    assert float(probes.agreement(Asked(Noised(net)), *shown, noise=noise, draws=3).median()) < 0.9
    assert probes.agreement(Asked(Detached(net)), *shown, noise=noise, draws=3).tolist() == [1.0] * N


def test_differences_know_the_gradient_of_a_linear_model() -> None:
    """cosine 1 and the right scale; the mutants turn one or the other."""

    class Linear(nn.Module):
        def __init__(self, turn: float = 1.0, part: float = 1.0) -> None:
            super().__init__()
            self.weight, self.turn, self.part = torch.linspace(-1.0, 1.0, 48, dtype=torch.float64), turn, part

        def forward(self, x: Tensor) -> Tensor:
            kept = torch.arange(48, device=x.device).view(3, 4, 4) < 48 * self.part
            seen = torch.where(kept, x, x.detach()) * self.turn + (1.0 - self.turn) * x.detach()
            z = seen.flatten(1) @ self.weight
            return torch.stack([z, -z], 1)

    x, y = torch.full((3, 3, 4, 4), 0.5, dtype=torch.float64), torch.zeros(3, dtype=torch.long)

    def both(model: nn.Module) -> tuple[float, float]:
        cosine, scale = probes.slopes(Asked(model), x, y, noise=Noise.of(3), directions=400, reach=0.01)
        return float(cosine.mean()), float(scale.mean())

    assert both(Linear()) == pytest.approx((1.0, 1.0), abs=0.1)
    assert both(Linear(turn=-1.0)) == pytest.approx((-1.0, 1.0), abs=0.1)
    assert both(Linear(turn=100.0)) == pytest.approx((1.0, 100.0), rel=0.1)
    assert 0.6 < both(Linear(part=0.5))[0] < 0.85  # half of the squares: 0.71
    assert both(Linear(part=0.0)) == (0.0, 0.0)


def test_flips_are_the_share_of_turned_signs() -> None:
    class Hashed(nn.Module):
        """The margin's gradient is +-1 by the last bits of each of the first `some` pixels, 1 at the others."""

        def __init__(self, some: int) -> None:
            super().__init__()
            self.some = some

        def forward(self, x: Tensor) -> Tensor:
            flat = x.flatten(1)
            sign = torch.where(torch.sin(1e9 * flat.detach()) < 0.0, -1.0, 1.0)
            sign[:, self.some :] = 1.0
            z = (flat * sign).sum(1)
            return torch.stack([z, -z], 1)

    x, y = torch.rand(4, 3, 20, 20, generator=torch.Generator().manual_seed(0)), torch.zeros(4, dtype=torch.long)
    share = [float(probes.flips(Asked(Hashed(some)), x, y, noise=Noise.of(4), shift=1e-6).mean()) for some in (0, 600, 1200)]
    assert share[0] == 0.0
    assert share[1] == pytest.approx(0.25, abs=0.1)
    assert share[2] == pytest.approx(0.5, abs=0.15)


def who(*won: int, n: int = 20) -> Tensor:
    which = torch.zeros(n, dtype=torch.bool)
    which[list(won)] = True
    return which


def test_leads_are_counted_and_bounded() -> None:
    some, none = who(0, 1, 2), who()
    even = Contests(some, some, some, some, some, some, ~none, some, some, some)
    assert not any(one.flagged for one in of_contests(even))
    for changes, name in (
        ({"one_step": who(0, 1, 2, 3, 4, 5)}, "one_step"),
        ({"black": who(3, 4, 5, 6, 7, 8)}, "black_box"),
        ({"transferred": ~none}, "transfer"),
        ({"averaged": ~none}, "averaging"),
        ({"few_half": ~none}, "half_radius"),
        ({"few_double": none}, "radius"),
        ({"few": who(0, 1, 2, 3, 4, 5), "few_double": ~none}, "steps"),
        ({"twice": none}, "restarts"),
        ({"unbounded": some}, "unbounded"),
    ):
        assert {one.name for one in of_contests(replace(even, **changes)) if one.flagged} == {name}
    within = replace(even, black=who(0, 1, 2, 3, 4))  # two more: chance
    assert not any(one.flagged for one in of_contests(within))


def test_what_does_not_apply_has_no_value(net: nn.Module, shown: tuple[Tensor, Tensor]) -> None:
    values = {one.name: one.value for one in judged(net, *shown).evidence}
    assert {name for name, value in values.items() if value is None} == {"transfer", "averaging", "restarts"}
    assert set(values) > DECISIVE


def test_averaging_wins_what_single_draws_miss(net: nn.Module, shown: tuple[Tensor, Tensor]) -> None:
    class Turned(Hidden):
        """Answers with a little noise, and a gradient that points forward in three draws of five."""

        def forward(self, x: Tensor) -> Tensor:
            turn = 1.0 if float(torch.rand(())) < 0.6 else -1.0
            seen = x.detach() + turn * (x - x.detach()) + 1e-3 * torch.randn_like(x)
            out: Tensor = self.net(seen)
            return out

    x, y = shown
    arena = Arena(Asked(Turned(net)), x, y, Noise.of(N), 4)
    fought = contests(arena, threat=WIDE, steps=10, few=3, queries=5, bare=None)
    assert fought.averaged is not None
    assert int(fought.averaged.sum()) > int(fought.many.sum())


# what must hold of any verdict


@pytest.mark.parametrize("threat", ["l2:1.5", "l1:25"])
def test_other_norms(threat: str, net: nn.Module, shown: tuple[Tensor, Tensor]) -> None:
    bound = Threat.parse(threat)
    assert not judged(net, *shown, bound, bare=net).masked
    assert {"differences", "transfer"} <= flagged(judged(conceal(net), *shown, bound, bare=net))


def test_the_same_noise_gives_the_same_verdict_and_leaves_no_trace(net: nn.Module, shown: tuple[Tensor, Tensor]) -> None:
    model = Noised(net)
    weights = copy.deepcopy(model.state_dict())
    x, y = shown[0].clone(), shown[1].clone()
    torch.manual_seed(3)
    before = torch.get_rng_state()
    first = judged(model, *shown)
    assert torch.equal(torch.get_rng_state(), before)
    torch.manual_seed(4)
    assert judged(model, *shown) == first
    assert judged(model, *shown) != masking(model, *shown, threat=WIDE, noise=Noise.of(N, seed=1))
    assert all(torch.equal(value, weights[name]) for name, value in model.state_dict().items())
    assert torch.equal(x, shown[0])
    assert torch.equal(y, shown[1])
    assert all(parameter.grad is None for parameter in model.parameters())


def test_a_verdict_survives_json(net: nn.Module, shown: tuple[Tensor, Tensor]) -> None:
    verdict = judged(Detached(net), *shown)
    assert Masking.from_dict(json.loads(json.dumps(verdict.to_dict(), allow_nan=False))) == verdict


def test_passes_are_those_of_the_model(net: nn.Module, shown: tuple[Tensor, Tensor]) -> None:
    class Counted(Hidden):
        forward_, backward_ = 0, 0

        def forward(self, x: Tensor) -> Tensor:
            self.forward_ += len(x)
            if x.requires_grad:
                x.register_hook(self.back)
            out: Tensor = self.net(x)
            return out

        def back(self, gradient: Tensor) -> None:
            self.backward_ += len(gradient)

    model = Counted(net)
    verdict = judged(model, *shown, bare=None)
    assert verdict.passes == model.forward_ + model.backward_
    assert 100 * N < verdict.passes < 250 * N


def test_pictures_that_are_wrong_are_left_out(net: nn.Module, shown: tuple[Tensor, Tensor]) -> None:
    x, y = shown
    wrong = y.clone()
    wrong[5:] = (y[5:] + 1) % 5
    verdict = judged(net, x, wrong)
    assert verdict.n == 5
    assert verdict.evidence == judged(net, x[:5], y[:5]).evidence
    with pytest.raises(InputError, match="none of the 16 pictures"):
        judged(net, x, (y + 1) % 5)


def test_threats_without_a_verdict_are_refused(net: nn.Module, shown: tuple[Tensor, Tensor]) -> None:
    for threat in ("targeted:linf:8/255", "linf:0"):
        with pytest.raises(SpecError, match="untargeted"):
            judged(net, *shown, Threat.parse(threat))


def test_bounds_lie_between_what_is_honest_and_what_is_not() -> None:
    assert 0.0 < verdicts.MOST_ZERO < 1.0
    assert 0.0 < verdicts.LEAST_COSINE < 1.0
    assert 0.01 < verdicts.MOST_FLIPS < 0.5
    assert verdicts.QUERIES > verdicts.STEPS > verdicts.FEW > 1
