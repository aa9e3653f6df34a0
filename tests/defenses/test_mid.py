"""The objective of MID: each term against its equation, the meta-gradient against finite differences, and the known defects, each seen."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.func import functional_call

from forearm.core.threat import Threat
from forearm.data.batches import Batch
from forearm.defenses.training import mid as module
from forearm.defenses.training.mid import (
    ORDERS,
    Meta,
    Weights,
    against_student,
    agreement,
    batch_key,
    consistency,
    divergence,
    held_out,
    label_consistency,
    meta_objective,
    mid,
    pixel_distance,
    refreshed,
)
from forearm.errors import SpecError
from forearm.models.autoencoder import Autoencoder, Code, frozen, resnet_autoencoder, student_of
from forearm.models.lenet import lenet_autoencoder

Parameters = dict[str, Tensor]


class Smooth(nn.Module):
    """An encoder without corners, so that finite differences are exact: `n 1 4 4` -> features `n 3 2 2`."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(1, 3, 3, 2, 1)

    def forward(self, x: Tensor) -> Code:
        return Code(torch.tanh(self.conv(x)))


class Up(nn.Module):
    """Its decoder."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.ConvTranspose2d(3, 1, 4, 2, 1)

    def forward(self, code: Code) -> Tensor:
        made: Tensor = self.conv(code.features)
        return made


def tiny(seed: int) -> Autoencoder:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return Autoencoder(Smooth(), Up(), nn.Sequential(nn.Flatten(), nn.Linear(12, 3))).double()


def teacher_and_student() -> tuple[Autoencoder, Autoencoder]:
    teacher = tiny(0)
    frozen(teacher)
    return teacher, student_of(teacher, tiny(1))


def batch(n: int = 3, seed: int = 0) -> Batch:
    generator = torch.Generator().manual_seed(seed)
    return Batch(torch.rand(n, 1, 4, 4, generator=generator, dtype=torch.float64), torch.arange(n) % 3, torch.arange(n) + seed)


def variants(model: nn.Module, given: Batch, key: int = 0) -> Tensor:
    """Clean and four attacks that differ in kind, so that each held-out draw gives another objective."""
    x = given.x
    return torch.stack([x, (x + 0.2).clamp(0, 1), x * 0.5, 1.0 - x, x.flip(3)])


def small_parameters(student: Autoencoder) -> Parameters:
    return {name: value.detach().clone().requires_grad_() for name, value in student.encoder.named_parameters()}


# --- the three consistencies and the pixel term


def test_divergence_is_its_equation_counted_one_by_one() -> None:
    generator = torch.Generator().manual_seed(0)
    a, b = torch.randn(2, 3, 2, 2, generator=generator).double(), torch.randn(2, 3, 2, 2, generator=generator).double()
    total = 0.0
    for n in range(2):
        for i in range(2):
            for j in range(2):
                p, q = a[n, :, i, j].exp() / a[n, :, i, j].exp().sum(), b[n, :, i, j].exp() / b[n, :, i, j].exp().sum()
                total += float((p * (p / q).log()).sum())
    assert float(divergence(a, b)) == pytest.approx(total / 8, rel=1e-12)
    assert float(divergence(a, b, "element")) == pytest.approx(total / 24, rel=1e-12)
    assert float(divergence(a, a)) == pytest.approx(0.0, abs=1e-15)
    assert float(divergence(a, a + 5.0)) == pytest.approx(0.0, abs=1e-14)
    assert float(divergence(a, b)) != pytest.approx(float(divergence(b, a)), rel=1e-3)


def log_target(reference: Tensor, features: Tensor, scale: str = "position") -> Tensor:
    """The authors' cyclic term: a logarithm where a probability belongs."""
    return F.kl_div(F.log_softmax(features, 1), F.log_softmax(reference, 1), reduction="none").mean()


def moves_towards_the_reference(apart: Callable[[Tensor, Tensor], Tensor]) -> None:
    """The law: finite, positive apart, and descent on the features brings their softmax to the reference's."""
    generator = torch.Generator().manual_seed(1)
    reference = 2.0 * torch.randn(4, 5, 2, 2, generator=generator).double()
    features = torch.randn(4, 5, 2, 2, generator=generator).double().requires_grad_()
    begin = float((features.detach().softmax(1) - reference.softmax(1)).abs().max())
    for _ in range(300):
        loss = apart(reference, features)
        assert bool(loss.isfinite())
        assert float(loss.detach()) >= -1e-12
        (slope,) = torch.autograd.grad(loss, features)
        features = (features - 20.0 * slope).detach().requires_grad_()
    assert float((features.detach().softmax(1) - reference.softmax(1)).abs().max()) < 0.1 * begin


def test_divergence_moves_features_towards_the_reference() -> None:
    moves_towards_the_reference(divergence)


def test_a_log_target_is_seen() -> None:
    with pytest.raises(AssertionError):
        moves_towards_the_reference(log_target)


def test_no_term_is_lost_for_far_features() -> None:
    """Probabilities that underflow: 0 log 0 is 0, not a number that is none."""
    a = torch.tensor([[[[300.0]], [[-300.0]]]], requires_grad=True)
    value = divergence(a, -a.detach())
    assert float(value.detach()) == pytest.approx(600.0)
    assert bool(torch.autograd.grad(value, a)[0].isfinite().all())


def test_the_other_terms() -> None:
    logits, y = torch.tensor([[2.0, 0.0], [0.0, 1.0]]), torch.tensor([0, 0])
    assert float(label_consistency(logits, y)) == pytest.approx(float(-(logits.log_softmax(1)[:, 0]).mean()))
    assert float(pixel_distance(torch.full((1, 1, 2, 2), 0.25), torch.ones(1, 1, 2, 2))) == pytest.approx(0.75)


def test_agreement_is_the_divergence_of_answers_counted_one_by_one() -> None:
    """Of the student's own clean answers to each variant's, with a gradient of both sides."""
    logits = torch.randn(6, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64).requires_grad_()
    total = 0.0
    for member in range(3):
        for i in range(2):
            p, q = logits[i].detach().softmax(0), logits[2 * member + i].detach().softmax(0)
            total += float((p * (p / q).log()).sum()) / 6
    value = agreement(logits, 2)
    assert float(value.detach()) == pytest.approx(total, rel=1e-12)
    (slope,) = torch.autograd.grad(value, logits)
    assert bool((slope.abs().sum(1) > 0).all())
    reversed_total = agreement(logits.detach().flip(0), 2)
    assert float(reversed_total) != pytest.approx(total, rel=1e-3)
    teacher, student = teacher_and_student()
    given = batch()
    code, clean = student.encoder(variants(student, given).flatten(0, 1)), teacher.encoder(given.x).features
    without, said = consistency(teacher, code, given.x, clean, given.y, Weights())
    with_it, _ = consistency(teacher, code, given.x, clean, given.y, Weights(agreement=3.0))
    torch.testing.assert_close(with_it, without + 3.0 * agreement(said, len(given.x)))


def test_consistency_adds_each_term_with_its_weight_and_takes_the_mean_over_members() -> None:
    teacher, student = teacher_and_student()
    given = batch()
    pool = variants(student, given)
    clean = teacher.encoder(given.x).features
    code = student.encoder(pool.flatten(0, 1))
    made = []
    for one in pool:
        c = student.encoder(one)
        again = teacher.encoder(teacher.decoder(c)).features
        made.append([
            F.cross_entropy(teacher.head(c.features), given.y), divergence(clean, c.features), divergence(clean, again),
            (teacher.decoder(c) - given.x).abs().mean(),
        ])  # fmt: skip
    terms = torch.stack([torch.stack(row) for row in made]).mean(0).detach()
    for weights in (Weights(1, 0, 0, 0), Weights(0, 1, 0, 0), Weights(0, 0, 1, 0), Weights(0, 0, 0, 1), Weights(0.5, 1.5, 0.8, 20.0)):
        expected = float((torch.tensor([weights.label, weights.adversarial, weights.cyclic, weights.pixels]) * terms).sum())
        assert float(consistency(teacher, code, given.x, clean, given.y, weights)[0].detach()) == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize("weights", [Weights(1, 0, 0, 0), Weights(0, 1, 0, 0), Weights(0, 0, 1, 0), Weights(0, 0, 0, 1)])
def test_every_term_reaches_the_student_and_none_the_teacher(weights: Weights) -> None:
    """The cyclic term too: through the frozen decoder and the frozen encoder of the teacher."""
    teacher, student = teacher_and_student()
    step = mid(teacher, variants, Meta(train=weights, test=weights))
    step(student, batch())["loss"].backward()  # type: ignore[no-untyped-call]
    assert all(p.grad is not None and float(p.grad.abs().sum()) > 0 for p in student.encoder.parameters())
    assert all(p.grad is None for p in (*teacher.parameters(), *student.head.parameters(), *student.decoder.parameters()))


# --- the meta objective


def objectives(seed: int = 0) -> tuple[Callable[[Parameters], Tensor], Callable[[Parameters], Tensor], Parameters]:
    """L_train and L_test of a tiny student in float64, written without the module's step."""
    teacher, student = teacher_and_student()
    given = batch(seed=seed)
    pool = variants(student, given)
    clean = teacher.encoder(given.x).features

    def loss(x: Tensor, weights: Weights) -> Callable[[Parameters], Tensor]:
        def value(parameters: Parameters) -> Tensor:
            return consistency(teacher, functional_call(student.encoder, parameters, (x,)), given.x, clean, given.y, weights)[0]

        return value

    return loss(pool[:4].flatten(0, 1), Weights(1, 1.5, 0.8)), loss(pool[4], Weights()), small_parameters(student)


def reference(train: Callable[[Parameters], Tensor], test: Callable[[Parameters], Tensor], at: Parameters, rate: float) -> Parameters:
    """The gradient of L_train(theta) + L_test(theta - rate grad L_train(theta)) by central differences, the inner gradient by them too."""
    width = 1e-4

    def differences(f: Callable[[Parameters], float], where: Parameters) -> Parameters:
        slopes = {name: torch.zeros_like(value) for name, value in where.items()}
        for name, value in where.items():
            for i in range(value.numel()):
                ends = []
                for sign in (1.0, -1.0):
                    moved = {key: other.detach().clone() for key, other in where.items()}
                    moved[name].view(-1)[i] += sign * width
                    ends.append(f(moved))
                slopes[name].view(-1)[i] = (ends[0] - ends[1]) / (2 * width)
        return slopes

    def whole(parameters: Parameters) -> float:
        inner = differences(lambda p: float(train(p).detach()), parameters)
        moved = {name: value - rate * inner[name] for name, value in parameters.items()}
        return float(train(parameters).detach()) + float(test(moved).detach())

    return differences(whole, at)


def far(found: tuple[Tensor, ...], expected: Parameters) -> float:
    """The largest difference, as a share of the largest entry."""
    scale = max(float(value.abs().max()) for value in expected.values())
    return max(float((a - b).abs().max()) for a, b in zip(found, expected.values(), strict=True)) / scale


def gradient(order: str, rate: float = 0.5) -> tuple[Tensor, ...]:
    train, test, parameters = objectives()
    return torch.autograd.grad(meta_objective(train, test, parameters, rate=rate, order=order)[0], tuple(parameters.values()))


@pytest.fixture(scope="module")
def expected() -> Parameters:
    train, test, parameters = objectives()
    return reference(train, test, parameters, rate=0.5)


def test_the_second_order_gradient_is_that_of_finite_differences(expected: Parameters) -> None:
    assert far(gradient("second"), expected) < 1e-6


@pytest.mark.parametrize("order", ["first", "none", "detached"])
def test_the_lower_orders_are_other_gradients(order: str, expected: Parameters) -> None:
    """The law has teeth: what leaves the inner step's slope, the inner step or the meta-test out is told apart by far."""
    assert far(gradient(order), expected) > 1e-3


@pytest.mark.parametrize("pixels", [0.0, 20.0])
def test_the_second_order_passes_through_pooling_and_unpooling(pixels: float) -> None:
    """The LeNet of MNIST along one direction: maxima and their places, the cyclic term and the pixel term, all twice differentiated."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        teacher, student = (lenet_autoencoder(side=8, classes=3).double() for _ in range(2))
    frozen(teacher)
    student_of(teacher, student)
    generator = torch.Generator().manual_seed(0)
    given = Batch(torch.rand(2, 1, 8, 8, generator=generator, dtype=torch.float64), torch.tensor([0, 2]), torch.arange(2))
    step = mid(teacher, variants, Meta(rate=0.3, train=Weights(1, 1.5, 0.8, pixels), test=Weights(1, 1, 1, pixels)))
    step(student, given)["loss"].backward()  # type: ignore[no-untyped-call]
    weights = list(student.encoder.parameters())
    direction = [torch.randn(p.shape, generator=generator, dtype=torch.float64) for p in weights]
    slope = sum(float((p.grad * d).sum()) for p, d in zip(weights, direction, strict=True) if p.grad is not None)
    ends = []
    for sign in (1e-7, -2e-7):  # wider ends meet corners of the ReLU
        with torch.no_grad():
            for p, d in zip(weights, direction, strict=True):
                p += sign * d
        ends.append(float(step(student, given)["loss"].detach()))
    assert slope == pytest.approx((ends[0] - ends[1]) / 2e-7, rel=1e-5)


def detached_gradient(
    train: Callable[[Parameters], Tensor], test: Callable[[Parameters], Tensor], parameters: Parameters, *, rate: float, order: str
) -> tuple[Tensor, Tensor]:
    """The authors' defect: the fast weights are leaves, so the meta-test loss is added and teaches nothing."""
    known = train(parameters)
    inner = torch.autograd.grad(known, tuple(parameters.values()), retain_graph=True)
    fast = {n: (p - rate * g).detach().requires_grad_() for (n, p), g in zip(parameters.items(), inner, strict=True)}
    return known + test(fast), known


def test_a_detached_meta_test_is_seen(expected: Parameters) -> None:
    train, test, parameters = objectives()
    total, known = detached_gradient(train, test, parameters, rate=0.5, order="second")
    found = torch.autograd.grad(total, tuple(parameters.values()), retain_graph=True)
    assert far(found, expected) > 1e-3
    alone = torch.autograd.grad(known, tuple(parameters.values()))
    assert all(torch.equal(a, b) for a, b in zip(found, alone, strict=True))
    assert all(torch.equal(a, b) for a, b in zip(found, gradient("detached"), strict=True))  # what the `released` preset is for


def test_the_orders_by_their_equations() -> None:
    train, test, parameters = objectives()
    values = tuple(parameters.values())
    inner = torch.autograd.grad(train(parameters), values)
    moved = {n: (p - 0.5 * g).detach().requires_grad_() for (n, p), g in zip(parameters.items(), inner, strict=True)}
    ahead = torch.autograd.grad(test(moved), tuple(moved.values()))
    for found, a, b in zip(gradient("first"), inner, ahead, strict=True):
        torch.testing.assert_close(found, a + b)
    here = torch.autograd.grad(test(parameters), values)
    for found, a, b in zip(gradient("none"), inner, here, strict=True):
        torch.testing.assert_close(found, a + b)


def test_the_objective_aligns_gradients_to_first_order_in_the_rate() -> None:
    """L_train + L_test - rate <grad L_train, grad L_test> + O(rate^2): halving the rate quarters the rest."""
    train, test, parameters = objectives()
    values = tuple(parameters.values())
    known, unknown = torch.autograd.grad(train(parameters), values), torch.autograd.grad(test(parameters), values)
    inner = sum(float((a * b).sum()) for a, b in zip(known, unknown, strict=True))
    plain = float((train(parameters) + test(parameters)).detach())
    rest = [float(meta_objective(train, test, parameters, rate=rate)[0].detach()) - plain + rate * inner for rate in (0.02, 0.01)]
    assert rest[0] / rest[1] == pytest.approx(4.0, rel=0.1)


# --- the step


def spied_step(seed: int, known: Meta = Meta()) -> tuple[int, list[Tensor]]:
    """Which member the step should hold out, and the pictures that its two losses see: known, then unknown."""
    teacher, student = teacher_and_student()
    given = batch(seed=seed)
    fed: list[Tensor] = []
    handle = student.encoder.register_forward_pre_hook(lambda _, inputs: fed.append(inputs[0].detach().clone()))
    mid(teacher, variants, known)(student, given)
    handle.remove()
    return held_out(batch_key(given), 4, known.seed), fed


def the_unknown_alone_is_held_out(look: Callable[[int], tuple[int, list[Tensor]]]) -> None:
    """The law: the meta-test loss sees the held-out member, the meta-training loss all others, the clean pictures always."""
    met = set()
    for seed in range(12):
        unknown, (train, test) = look(seed)
        given = batch(seed=seed)
        pool = variants(nn.Identity(), given)
        assert torch.equal(test, pool[unknown])
        assert torch.equal(train, torch.cat([one for i, one in enumerate(pool) if i != unknown]))
        assert torch.equal(train[: len(given.x)], given.x)
        met.add(unknown)
    assert len(met) > 2


def stale_index(seed: int) -> tuple[int, list[Tensor]]:
    """The authors' defect: the meta-test batch is that of the loop's last index, whichever attack was drawn."""
    unknown, (train, _) = spied_step(seed)
    last = 4
    return unknown, [train, variants(nn.Identity(), batch(seed=seed))[last]]


def test_the_unknown_alone_is_held_out() -> None:
    the_unknown_alone_is_held_out(spied_step)


def test_a_stale_index_is_seen() -> None:
    with pytest.raises(AssertionError):
        the_unknown_alone_is_held_out(stale_index)


def test_draws_are_those_of_the_batch_and_uniform() -> None:
    draws = [held_out(batch_key(batch(seed=seed)), 4, 0) for seed in range(400)]
    assert draws == [held_out(batch_key(batch(seed=seed)), 4, 0) for seed in range(400)]
    counts = [draws.count(i) for i in range(1, 5)]
    assert sum(counts) == 400
    assert min(counts) > 70  # 100 expected, deviation 8.7
    assert draws != [held_out(batch_key(batch(seed=seed)), 4, 1) for seed in range(400)]


@pytest.mark.parametrize("order", ORDERS)
def test_a_step_lowers_what_it_says_it_lowers(order: str) -> None:
    teacher, student = teacher_and_student()
    step = mid(teacher, variants, Meta(order=order))
    first = step(student, batch())["loss"]
    first.backward()  # type: ignore[no-untyped-call]
    with torch.no_grad():
        for p in student.encoder.parameters():
            assert p.grad is not None
            p -= 0.05 * p.grad
    assert float(step(student, batch())["loss"].detach()) < float(first.detach())


def test_the_sum_over_members_counts_each_in_full() -> None:
    teacher, student = teacher_and_student()
    values = {total: mid(teacher, variants, Meta(order="detached", total=total))(student, batch())["loss"] for total in ("mean", "sum")}
    torch.testing.assert_close(values["sum"], 4 * values["mean"])


@contextmanager
def leaky() -> Iterator[None]:
    """The mutant: theta' runs with the student's own buffers."""

    real = module.functional_call
    module.functional_call = lambda encoder, parameters, args: real(  # type: ignore[attr-defined]
        encoder, {n: v for n, v in parameters.items() if n in dict(encoder.named_parameters())}, args
    )
    try:
        yield
    finally:
        module.functional_call = real  # type: ignore[attr-defined]


def statistics_seen(meta: Meta) -> int:
    """How often the student's batch norm was updated by one step."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        teacher, student = (resnet_autoencoder(classes=3, width=2, blocks=(1, 1, 1, 1)) for _ in range(2))
    frozen(teacher)
    student_of(teacher, student).train()
    teacher_before = {name: value.clone() for name, value in teacher.state_dict().items()}
    given = Batch(torch.rand(4, 3, 16, 16, generator=torch.Generator().manual_seed(0)), torch.arange(4) % 3, torch.arange(4))
    mid(teacher, variants, meta)(student, given)["loss"].backward()  # type: ignore[no-untyped-call]
    assert all(torch.equal(value, teacher_before[name]) for name, value in teacher.state_dict().items())
    assert not any(p.grad is None for p in student.encoder.parameters())
    return int(student.encoder.get_buffer("bn1.num_batches_tracked"))


def test_batch_norm_sees_the_known_members_and_not_the_trial_weights() -> None:
    assert statistics_seen(Meta()) == 1
    with leaky():
        assert statistics_seen(Meta()) == 2


def test_members_against_the_student_follow_it() -> None:
    """They attack the weights of this moment, without a trace in them; untargeted from the truth, targeted to the aim."""
    met: list[tuple[bool, Tensor]] = []

    def attack(model: nn.Module, x: Tensor, y: Tensor, *, threat: Threat, noise: object) -> Tensor:
        met.append((model.training, y))
        with torch.enable_grad():
            point = x.detach().requires_grad_()
            (slope,) = torch.autograd.grad(model(point).square().sum(), point)
        return threat.project(x + threat.eps * slope.sign(), x)

    student = lenet_autoencoder(channels=1, side=8).train()
    given = Batch(torch.rand(3, 1, 8, 8, generator=torch.Generator().manual_seed(0)), torch.tensor([1, 2, 3]), torch.arange(3))
    threat = Threat.parse("linf:0.1")
    members = against_student([(attack, threat), (attack, Threat(threat.norm, threat.eps, True))], aim=7)
    pool = members(student, given, 5)
    assert pool.shape == (3, 3, 1, 8, 8)
    assert torch.equal(pool[0], given.x)
    assert [mode for mode, _ in met] == [False, False]
    assert student.training
    assert [y.tolist() for _, y in met] == [[1, 2, 3], [7, 7, 7]]
    assert not pool.requires_grad
    assert all(p.grad is None for p in student.parameters())
    with torch.no_grad():
        for p in student.encoder.parameters():
            p.neg_()
    assert not torch.equal(members(student, given, 5)[1], pool[1])


def test_a_refreshed_pool_attacks_the_student_of_the_epochs_beginning() -> None:
    student, given = lenet_autoencoder(channels=1, side=8), batch()

    def members(model: nn.Module, asked: Batch, key: int) -> Tensor:
        return torch.stack([p.detach().sum() for p in model.parameters()]).sum() + key

    def met(every: int) -> list[float]:
        pool, seen = refreshed(members, every), []
        for step in range(6):
            seen.append(float(pool(student, given, 0)))
            with torch.no_grad():
                next(student.parameters()).fill_(float(step))
        return seen

    fresh, kept = met(1), met(3)
    assert len(set(fresh)) == 6
    assert [len(set(part)) for part in (kept[:3], kept[3:])] == [1, 1]
    assert kept[0] != kept[3]
    assert kept[3] == fresh[3]


@pytest.mark.parametrize("options", [{"order": "third"}, {"scale": "pixel"}, {"total": "max"}])
def test_wrong_options_are_refused(options: dict[str, str]) -> None:
    with pytest.raises(SpecError, match="mid: got"):
        Meta(**options)  # type: ignore[arg-type]


def test_a_student_has_its_teachers_head_and_decoder_and_its_own_encoder() -> None:
    teacher, student = teacher_and_student()
    x = batch().x
    assert torch.equal(teacher.head(torch.ones(1, 3, 2, 2).double()), student.head(torch.ones(1, 3, 2, 2).double()))
    assert not torch.equal(teacher(x), student(x))
    copied = student_of(teacher, tiny(1), copy_encoder=True)
    assert torch.equal(teacher(x), copied(x))
    assert torch.equal(teacher.regenerate(x), copied.regenerate(x))
    assert {name for name, p in copied.named_parameters() if p.requires_grad} == {"encoder.conv.weight", "encoder.conv.bias"}
    assert float(student.regenerate(x).detach().min()) >= 0.0
