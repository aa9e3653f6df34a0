"""The ensemble as one classifier, and the looks of one backbone that are made of it."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from forearm.core.gradients import Classifier, input_gradient
from forearm.core.losses import cross_entropy
from forearm.core.noise import Noise
from forearm.core.publishing import family
from forearm.core.threat import Threat
from forearm.defenses.preemptive.ensemble import Ensemble, combine, ensemble
from forearm.defenses.preemptive.looks import Coarse, Mirrored, looks
from forearm.defenses.preemptive.protector import PREEMPTIVE
from forearm.defenses.preemptive.reversion import revert
from forearm.defenses.preemptive.single_step import s_fgsm
from forearm.errors import SpecError
from forearm.registry import bind

THREAT = Threat.parse("linf:8/255")
Y = torch.tensor([0, 3, 4])


def net(seed: int, scale: float = 1.0) -> nn.Module:
    """A small net; `scale` multiplies its logits, as a less or more confident training would."""
    torch.manual_seed(seed)
    last = nn.Linear(36, 5)
    layers = nn.Conv2d(3, 6, 3, padding=1), nn.Tanh(), nn.Conv2d(6, 4, 3, stride=2), nn.Tanh(), nn.Flatten(), last
    with torch.no_grad():
        last.weight.mul_(scale)
        assert last.bias is not None
        last.bias.mul_(scale)
    return nn.Sequential(*layers).double().requires_grad_(False)


def pictures() -> Tensor:
    return Noise.of(3, seed=11).uniform(torch.empty(3, 3, 7, 8, dtype=torch.float64))


def own_directions(members: list[nn.Module], x: Tensor) -> Tensor:
    """The mean of each member's cross-entropy gradient over its L1 size, one picture and one member at a time."""
    rows = []
    for i in range(len(x)):
        total = torch.zeros_like(x[i])
        for member in members:
            z = x[i : i + 1].clone().requires_grad_()
            (gradient,) = torch.autograd.grad(-torch.log_softmax(member(z), 1)[0, Y[i]], z)
            total += gradient[0] / gradient.abs().sum() / len(members)
        rows.append(total)
    return torch.stack(rows)


@pytest.mark.parametrize("scales", [(1.0, 1.0), (1.0, 40.0), (0.01, 1.0)])
def test_the_gradient_is_the_mean_of_the_members_own_directions(scales: tuple[float, float]) -> None:
    members = [net(1, scales[0]), net(2, scales[1])]
    gradient, _ = input_gradient(Ensemble(tuple(members)), pictures(), Y)
    assert torch.allclose(gradient, own_directions(members, pictures()), atol=1e-12)


def mean_logits(members: tuple[Classifier, ...]) -> Classifier:
    return lambda x: torch.stack([member(x) for member in members]).mean(0)


def mean_probabilities(members: tuple[Classifier, ...]) -> Classifier:
    return lambda x: torch.stack([member(x).softmax(1) for member in members]).mean(0).log()


@pytest.mark.parametrize("mutant", [mean_logits, mean_probabilities])
def test_other_ensembles_follow_the_loudest(mutant: Callable[[tuple[Classifier, ...]], Classifier]) -> None:
    """Without the normalising, one member decides nearly every sign; with it, both have their say."""
    members = [net(1), net(2, 40.0)]
    wanted = own_directions(members, pictures()).sign()
    loud, _ = input_gradient(mutant(tuple(members)), pictures(), Y)
    alone = [own_directions([member], pictures()).sign() for member in members]
    assert float((loud.sign() == wanted).double().mean()) < 0.9
    assert max(float((loud.sign() == one).double().mean()) for one in alone) > 0.9
    assert max(float((wanted == one).double().mean()) for one in alone) < 0.85


def test_the_logits_are_those_of_the_mixture() -> None:
    members = net(1), net(2, 3.0), net(3)
    said = Ensemble(members)(pictures())
    assert torch.allclose(said.exp(), torch.stack([m(pictures()).softmax(1) for m in members]).mean(0), atol=1e-12)
    assert torch.allclose(said.exp().sum(1), torch.ones(3, dtype=torch.float64))


def test_one_member_is_itself_but_for_the_size() -> None:
    x, model = pictures(), net(1)
    ours = s_fgsm(Ensemble((model,)), x, Y, threat=THREAT, noise=Noise.of(3))
    assert torch.equal(ours, s_fgsm(model, x, Y, threat=THREAT, noise=Noise.of(3)))


def test_a_confident_member_is_not_lost() -> None:
    """A member that gives its label 1e-20 of what the other gives still has half of the direction, in float32."""
    members = [net(1).float(), net(2).float()]

    def sure_of_another(x: Tensor) -> Tensor:
        logits: Tensor = members[1](x)
        return logits + 46.0 * (1.0 - nn.functional.one_hot(Y, 5))

    x = pictures().float()
    gradient, _ = input_gradient(Ensemble((members[0], sure_of_another)), x, Y)
    alone, _ = input_gradient(Ensemble((members[0],)), x, Y)
    rest = 2.0 * gradient - alone
    assert torch.allclose(rest.flatten(1).abs().sum(1), torch.ones(3), atol=1e-4)


def test_agreement_leaves_out_who_contradicts() -> None:
    rows = torch.stack([input_gradient(net(seed), pictures(), Y)[0] for seed in (1, 2, 3)])
    one, two, _ = rows / rows.flatten(2).abs().sum(2)[:, :, None, None, None]
    assert torch.allclose(combine(torch.stack([one, one, -one]), "agreement"), one, atol=1e-15)
    assert torch.allclose(combine(torch.stack([one, one, -one]), "even"), one / 3, atol=1e-15)
    assert torch.allclose(combine(torch.stack([one, -one]), "agreement"), torch.zeros_like(one), atol=1e-15)  # nobody agrees: even
    sum_of_cosines = torch.zeros_like(one)
    for i in range(3):  # the weights by hand, for two members of one mind and a third
        group = [one[i], one[i], two[i]]
        mean = sum(group) / 3
        cosines = [float((g * mean).sum() / (g.norm() * mean.norm())) for g in group]
        assert min(cosines) > 0
        sum_of_cosines[i] = sum(c * g for c, g in zip(cosines, group, strict=True)) / sum(cosines)
    assert torch.allclose(combine(torch.stack([one, one, two]), "agreement"), sum_of_cosines, atol=1e-14)


def test_an_example_does_not_depend_on_the_others() -> None:
    for weights in ("even", "agreement"):
        model = Ensemble((net(1), net(2, 5.0), net(3)), weights)
        whole, _ = input_gradient(model, pictures(), Y)
        alone, _ = input_gradient(model, pictures()[1:2], Y[1:2])
        assert torch.allclose(whole[1:2], alone, atol=1e-14)


def test_ensembles_of_ensembles_and_a_vanished_member() -> None:
    def constant(x: Tensor) -> Tensor:
        return (0.0 * x).flatten(1)[:, :5]

    inner = Ensemble((net(1), net(2)))
    gradient, _ = input_gradient(Ensemble((inner, constant)), pictures(), Y)
    lone, _ = input_gradient(inner, pictures(), Y)
    assert bool(gradient.isfinite().all())
    assert torch.equal(gradient.sign(), lone.sign())


def test_what_is_no_ensemble() -> None:
    with pytest.raises(SpecError, match="ensemble: got no members"):
        Ensemble(())
    with pytest.raises(SpecError, match="ensemble: got the weights 'loud'; one of even, agreement"):
        Ensemble((net(1),), "loud")


@pytest.mark.parametrize(
    "spec", ["ensemble", "s_fgsm", "s_pgd(steps=3)", "mspd(copies=2)", "bilevel(steps=2, inner=2)", "looks", "polish(steps=2)"]
)
def test_every_protector_takes_one(spec: str) -> None:
    """It hardens for both members at once: the margin of each grows."""
    members, x = (net(1), net(2, 20.0)), pictures()
    armed = bind(PREEMPTIVE, spec)(Ensemble(members), x, Y, threat=THREAT, noise=Noise.of(3))
    assert float(THREAT.distance(armed, x).max()) <= THREAT.eps * (1 + 1e-9)
    for member in members:
        assert float(cross_entropy(member(armed), Y).sum()) < float(cross_entropy(member(x), Y).sum())


# The release that is made with one


def test_the_ensembles_release_is_one_step_of_the_members_own_directions() -> None:
    """In float64 beside the slow reference. The mutants: two steps of half the size, and the gradient of the first member alone."""
    members, x = [net(1), net(2, 40.0)], pictures()
    made = ensemble(Ensemble(tuple(members)), x, Y, threat=THREAT, noise=Noise.of(3))
    assert torch.allclose(made, (x - THREAT.eps * own_directions(members, x).sign()).clamp(0.0, 1.0), atol=1e-12)
    for model, steps in ((Ensemble(tuple(members)), 2), (members[0], 1)):
        mutant = bind(PREEMPTIVE, f"s_pgd(steps={steps}, step={1 / steps})")(model, x, Y, threat=THREAT, noise=Noise.of(3))
        assert float((mutant - made).abs().max()) > 1e-3


def test_a_release_that_survives_has_a_member_for_each_chain() -> None:
    """The mutants: no chain, and one chain of the two alone."""
    torch.manual_seed(3)
    member = nn.Sequential(nn.Conv2d(3, 6, 3, 2), nn.Tanh(), nn.Flatten(), nn.Linear(6 * 15 * 15, 5)).double().requires_grad_(False)
    x = 0.25 + 0.5 * Noise.of(3, seed=2).uniform(torch.empty(3, 3, 32, 32, dtype=torch.float64))

    def armed(survive: str) -> Tensor:
        return ensemble(Ensemble((member,)), x, Y, threat=THREAT, noise=Noise.of(3), survive=survive)

    chains = [family(text)[0] for text in ("jpeg:50", "resize:16")]
    wanted = s_fgsm(Ensemble(tuple(lambda z, c=c: member(c.soft(z)) for c in chains)), x, Y, threat=THREAT, noise=Noise.of(3))  # type: ignore[misc]
    made = armed("jpeg:50|resize:16")
    assert torch.allclose(made, wanted, atol=1e-12)
    assert torch.equal(armed("none"), s_fgsm(member, x, Y, threat=THREAT, noise=Noise.of(3)))
    for mutant in ("none", "jpeg:50", "resize:16"):
        assert float((armed(mutant) - made).abs().max()) > THREAT.eps


# Looks


def test_a_step_over_the_looks_by_hand() -> None:
    """The mean of the four normalised gradients, each brought back to the picture by hand."""
    model, x = net(1), pictures()

    def down_and_up(z: Tensor) -> Tensor:
        small = nn.functional.interpolate(z, (5, 6), mode="bilinear", antialias=True)
        return nn.functional.interpolate(small, (7, 8), mode="bilinear", antialias=True)

    ways: list[Callable[[Tensor], Tensor]] = [lambda z: z, down_and_up, lambda z: z.flip(3), lambda z: down_and_up(z.flip(3))]
    total = torch.zeros_like(x)
    for way in ways:
        for i in range(3):
            z = x[i : i + 1].clone().requires_grad_()
            (gradient,) = torch.autograd.grad(-torch.log_softmax(model(way(z)), 1)[0, Y[i]], z)
            total[i] += gradient[0] / gradient.abs().sum()
    wanted = (x - THREAT.eps * total.sign()).clamp(0.0, 1.0)
    assert torch.allclose(looks(model, x, Y, threat=THREAT, noise=Noise.of(3)), wanted, atol=1e-12)
    assert not torch.allclose(s_fgsm(model, x, Y, threat=THREAT, noise=Noise.of(3)), wanted, atol=1e-3)


def test_without_looks_it_is_the_single_step() -> None:
    model, x = net(1), pictures()
    ours = looks(model, x, Y, threat=THREAT, noise=Noise.of(3), coarse=1.0, mirror=False)
    assert torch.equal(ours, s_fgsm(model, x, Y, threat=THREAT, noise=Noise.of(3)))


def test_a_mirrored_picture_gets_the_mirrored_change() -> None:
    """With both looks there is no left and right any more; a single step of the net alone has them."""
    model, x = net(1), pictures()
    one, other = (looks(model, z, Y, threat=THREAT, noise=Noise.of(3), coarse=1.0) for z in (x, x.flip(3)))
    assert float((one - other.flip(3)).abs().max()) < 1e-12
    one, other = (s_fgsm(model, z, Y, threat=THREAT, noise=Noise.of(3)) for z in (x, x.flip(3)))
    assert float((one - other.flip(3)).abs().max()) > 1e-3


def test_a_coarse_look_cannot_see_what_is_fine() -> None:
    rows, columns = torch.meshgrid(torch.arange(16), torch.arange(16), indexing="ij")
    board = (0.5 + 0.1 * (-1.0) ** (rows + columns)).expand(1, 3, 16, 16).double()
    seen: list[Tensor] = []

    def model(z: Tensor) -> Tensor:
        seen.append(z)
        return z.flatten(1)[:, :5]

    Coarse(model, (8, 8))(board)
    Mirrored(model)(board)
    assert float(seen[0][..., 2:-2, 2:-2].std()) < 0.1 * float(seen[1][..., 2:-2, 2:-2].std())
    assert torch.equal(seen[1], board.flip(3))


@pytest.mark.parametrize(("options", "gradients"), [({}, 4), ({"mirror": False}, 2), ({"coarse": 1.0}, 2), ({"steps": 3}, 12)])
def test_cost_in_gradients(options: dict[str, float], gradients: int) -> None:
    calls, model = 0, net(1)

    def counting(x: Tensor) -> Tensor:
        nonlocal calls
        calls += 1
        logits: Tensor = model(x)
        return logits

    looks(counting, pictures(), Y, threat=THREAT, noise=Noise.of(3), **options)  # type: ignore[arg-type]
    assert calls == gradients


@pytest.mark.parametrize("coarse", [0.0, -1.0, 1.5])
def test_a_share_out_of_range(coarse: float) -> None:
    with pytest.raises(SpecError, match="coarse: got"):
        looks(net(1), pictures(), Y, threat=THREAT, noise=Noise.of(3), coarse=coarse)


def test_reversion_of_a_step_over_looks() -> None:
    """Who knows everything finds the looks' step again from the release, where the signs have not turned."""
    model, x = net(1, 0.05), 0.25 + 0.5 * pictures()
    y = model(x).argmax(1)
    armed = looks(model, x, y, threat=THREAT, noise=Noise.of(3))
    back = revert(model, armed, protector=looks, threat=THREAT, noise=Noise.of(3))
    assert float(((back - x).abs() < 1e-9).double().mean()) > 0.9
