"""The challenge's step: MixUp and CutMix against loops, FGSM's four signs, what GCM does to them, and that every draw repeats."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from forearm.core.noise import Noise
from forearm.data.augment import augment
from forearm.data.batches import Batch, Pictures, Shuffled
from forearm.defenses.inference.resize_pad import placings
from forearm.defenses.training import challenge as module
from forearm.defenses.training.adversarial import standard
from forearm.defenses.training.challenge import BUDGETS, Ingredients, both_signs, challenge, cutmix, mixed_loss, mixup
from forearm.defenses.training.loop import Plan, Step, fit
from forearm.errors import SpecError
from forearm.models.convnext import convnext_cifar

N = 6


def noise(seed: int = 0) -> Noise:
    return Noise(seed, torch.zeros(1, dtype=torch.int64))


def batch(n: int = N, side: int = 16) -> Batch:
    generator = torch.Generator().manual_seed(0)
    return Batch(torch.rand(n, 3, side, side, generator=generator), torch.arange(n) % 3, torch.arange(10, 10 + n))


def net(drop_path: float = 0.3) -> nn.Module:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        made: nn.Module = convnext_cifar(classes=3, width=4, depths=(1, 1), drop_path=drop_path, head="mlp(hidden=(8,))")
    return made.train()


# --- MixUp and CutMix


def marked(n: int = N, height: int = 7, width: int = 5) -> tuple[Tensor, Tensor]:
    """Pictures whose every value says which they are: picture i is i everywhere; and labels that do too."""
    return torch.arange(n, dtype=torch.float64).reshape(n, 1, 1, 1).expand(n, 3, height, width).clone(), torch.arange(n)


def mixed_by_hand(x: Tensor, mixed: Tensor, other: Tensor, share: float) -> None:
    """The law of MixUp: every value, one by one, and a permutation."""
    assert sorted(other.tolist()) == list(range(len(x)))
    for i, j in enumerate(other.tolist()):
        for value in mixed[i].flatten().tolist():
            assert value == pytest.approx(share * i + (1.0 - share) * j)


def test_mixup_is_its_equation() -> None:
    x, y = marked()
    mixed, other, share = mixup(x, y, noise())
    mixed_by_hand(x, mixed, other, share)
    with pytest.raises(AssertionError):
        mixed_by_hand(x, mixed, other, 1.0 - share)  # the mutant weighs the other way round


def cut_by_hand(x: Tensor, mixed: Tensor, other: Tensor, share: float) -> None:
    """The law of CutMix: of each picture the same rectangle comes from the partner, the rest is its own, and `share` counts the rest."""
    n, c, h, w = x.shape
    rectangles = []
    for i, j in enumerate(other.tolist()):
        if i == j:
            continue
        foreign = {(row, column) for row in range(h) for column in range(w) if float(mixed[i, 0, row, column]) != i}
        for row in range(h):
            for column in range(w):
                assert mixed[i, :, row, column].tolist() == [float(j if (row, column) in foreign else i)] * c
        rectangles.append(foreign)
    assert all(one == rectangles[0] for one in rectangles)
    rows, columns = ({place[k] for place in rectangles[0]} for k in (0, 1))
    assert rectangles[0] == {(row, column) for row in rows for column in columns}
    assert all(not side or sorted(side) == list(range(min(side), max(side) + 1)) for side in (rows, columns))
    assert share == pytest.approx(1.0 - len(rectangles[0]) / (h * w))
    assert n > 1


def test_cutmix_is_a_rectangle_and_its_share() -> None:
    x, y = marked()
    for seed in range(20):
        cut_by_hand(x, *cutmix(x, y, noise(seed)))
    mixed, other, share = next(made for seed in range(20) if 0.2 < (made := cutmix(x, y, noise(seed)))[2] < 0.8)
    with pytest.raises(AssertionError):
        cut_by_hand(x, mixed, other, share - 1 / 35)  # the mutant counts a pixel more
    torn = mixed.clone()
    torn[0, :, 0, 0], torn[0, :, -1, -1] = float(other[0]), float(other[0])
    with pytest.raises(AssertionError):
        cut_by_hand(x, torn, other, share)


def test_shares_reach_from_end_to_end() -> None:
    x, y = marked(6, 16, 16)
    for mix, least in ((mixup, 0.1), (cutmix, 0.4)):  # of CutMix more is left: what lies outside is cut off
        shares = torch.tensor([mix(x, y, noise(seed))[2] for seed in range(300)])
        assert float(shares.min()) < least
        assert float(shares.max()) > 0.9
        assert 0.4 < float(shares.mean()) < 0.75
    centres = torch.stack([(cutmix(x, y, noise(seed))[0][0, 0] > 0).float() for seed in range(300)]).mean(0)
    assert float(centres.min()) > 0.03  # no place is spared


def test_the_mixed_loss_is_that_of_mixed_targets() -> None:
    logits, y, other = (
        torch.randn(4, 3, generator=torch.Generator().manual_seed(0)).double(),
        torch.tensor([0, 1, 2, 0]),
        torch.tensor([1, 1, 0, 2]),
    )
    target = 0.3 * F.one_hot(y, 3).double() + 0.7 * F.one_hot(other, 3).double()
    assert float(mixed_loss(logits, y, other, 0.3)) == pytest.approx(float(-(target * logits.log_softmax(1)).sum(1).mean()), rel=1e-12)
    assert float(mixed_loss(logits, y, other, 0.7)) != pytest.approx(float(mixed_loss(logits, y, other, 0.3)), rel=1e-3)


# --- FGSM regularisation


class Sum(nn.Module):
    """A linear classifier whose gradient is known."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(3, 3 * 16 * 16, generator=torch.Generator().manual_seed(1)) * 0.05)

    def forward(self, x: Tensor) -> Tensor:
        return x.flatten(1) @ self.weight.T


def slope(model: Sum, x: Tensor, y: Tensor) -> Tensor:
    """The gradient of the cross-entropy of a linear classifier: W^T (softmax(W x) - onehot(y))."""
    return ((model(x).softmax(1) - F.one_hot(y, 3)) @ model.weight).reshape(x.shape).detach()


def test_the_budgets_are_the_published_ones() -> None:
    assert (len(BUDGETS), BUDGETS[0], BUDGETS[-1]) == (20, 0.001, pytest.approx(0.08))
    assert torch.tensor(BUDGETS).diff().std() < 1e-6
    given = batch()
    drawn = {round(float((both_signs(Sum(), given.x, given.y, noise(seed))[0] - given.x).abs().max()), 4) for seed in range(150)}
    assert drawn == {round(eps, 4) for eps in BUDGETS}


def signs_of(given: Batch, four: Tensor) -> Tensor:
    """The signs of the changes where no clipping can hide them (`4 n c h w`)."""
    change = four - given.x
    return torch.where(((given.x > 0.1) & (given.x < 0.9)).expand_as(change), change.sign(), torch.zeros(()))


def test_both_signs_of_both_steps() -> None:
    model, given = Sum(), batch()
    four = both_signs(model, given.x, given.y, noise(3))
    signs = signs_of(given, four)
    inside = signs[0] != 0
    assert four.shape == (4, *given.x.shape)
    assert float(four.min()) >= 0.0
    assert float(four.max()) <= 1.0
    assert torch.equal(signs[0], -signs[1])
    assert torch.equal(signs[2], -signs[3])
    assert torch.equal(signs[0][inside], slope(model, given.x, given.y).sign()[inside])
    target = noise(3).stream("target").integers(torch.empty(1, N), 3)[0]
    assert torch.equal(signs[2][inside], slope(model, given.x, target).sign()[inside])
    loss = [float(F.cross_entropy(model(x), given.y).detach()) for x in (given.x, *four)]
    assert loss[1] > loss[0] > loss[2]
    aimed = [float(F.cross_entropy(model(x), target).detach()) for x in (given.x, *four)]
    assert aimed[3] > aimed[0] > aimed[4]


def test_random_targets_are_every_class() -> None:
    counts = torch.bincount(noise(0).stream("target").integers(torch.empty(1, 600), 3)[0], minlength=3)
    assert int(counts.min()) > 150


def test_through_gcm_the_signs_are_a_hash_of_the_pixels() -> None:
    """The documented difference: as good as drawn, and the slope's sign is GCM's own times the model's; on the bare model the attack goes up."""
    model, given = Sum(), batch(32)
    bare, hashed = (both_signs(model, given.x, given.y, noise(3), through=through) for through in ("bare", "gcm"))
    inside = signs_of(given, bare)[0] != 0
    same = float((signs_of(given, bare)[0] == signs_of(given, hashed)[0])[inside].float().mean())
    assert 0.47 < same < 0.53
    gcm = (1.0 + 1e12 * torch.cos(1e20 * given.x)).sign()
    assert torch.equal(signs_of(given, hashed)[0][inside], (slope(model, given.x, given.y).sign() * gcm)[inside])
    clean, up, noisy = (float(F.cross_entropy(model(x), given.y).detach()) for x in (given.x, bare[0], hashed[0]))
    assert abs(noisy - clean) < 0.1 * (up - clean)


# --- the step


def counted(model: nn.Module, step: Step, given: Batch) -> tuple[dict[str, float], list[Tensor]]:
    """The step's values, and the pictures of each of the model's passes."""
    passes: list[Tensor] = []
    hook = model.register_forward_pre_hook(lambda _, given: passes.append(given[0].detach().clone()))
    values = step(model, given)
    hook.remove()
    return {name: float(value.detach()) for name, value in values.items()}, passes


ALL = Ingredients()


@pytest.mark.parametrize(
    ("ingredients", "names", "passes"),
    [
        (ALL, {"mixup", "cutmix", "fgsm"}, [N, N, N, N, 4 * N]),
        (replace(ALL, mixup=0.0), {"cutmix", "fgsm"}, [N, N, N, 4 * N]),
        (replace(ALL, mixup=0.0, cutmix=0.0), {"fgsm"}, [N, N, 4 * N]),
        (replace(ALL, fgsm=0.0), {"mixup", "cutmix"}, [N, N, N]),
        (Ingredients(0.0, 0.0, 0.0), set(), [N]),
        (replace(ALL, through="gcm", least=12 / 16), {"mixup", "cutmix", "fgsm"}, [N, N, N, N, 4 * N]),
    ],
)
def test_each_ingredient_can_be_left_out_with_its_passes(ingredients: Ingredients, names: set[str], passes: list[int]) -> None:
    values, seen = counted(net(), challenge(ingredients), batch())
    assert set(values) == {"loss", "accuracy"} | names
    assert [len(x) for x in seen] == passes


def test_the_loss_is_the_weighted_sum_and_ingredients_do_not_shift_each_other() -> None:
    whole, _ = counted(net(), challenge(Ingredients(0.5, 2.0, 3.0)), batch())
    label, _ = counted(net(), challenge(Ingredients(0.0, 0.0, 0.0)), batch())
    assert whole["loss"] == pytest.approx(label["loss"] + 0.5 * whole["mixup"] + 2.0 * whole["cutmix"] + 3.0 * whole["fgsm"])
    for name in ("mixup", "cutmix", "fgsm"):
        alone, _ = counted(net(), challenge(replace(Ingredients(0.0, 0.0, 0.0), **{name: 1.0})), batch())  # type: ignore[arg-type]
        assert alone[name] == whole[name]


def test_a_step_repeats_touches_nothing_and_trains_everything() -> None:
    model, given = net(), batch()
    state, step = torch.get_rng_state(), challenge(replace(ALL, least=12 / 16))
    first, seen = counted(model, step, given)
    assert torch.equal(torch.get_rng_state(), state)
    assert model.training
    assert all(part.training for part in model.modules())
    assert all(p.grad is None for p in model.parameters())
    torch.rand(3)
    second, again = counted(model, step, given)
    assert first == second
    assert all(torch.equal(a, b) for a, b in zip(seen, again, strict=True))
    step(model, given)["loss"].backward()  # type: ignore[no-untyped-call]
    assert all(p.grad is not None for p in model.parameters())
    assert first != counted(model, challenge(replace(ALL, least=12 / 16), seed=1), given)[0]
    assert first != counted(model, step, Batch(given.x, given.y, given.ids.flip(0)))[0]  # another order is another epoch


def test_the_gradient_pass_is_in_eval_mode() -> None:
    model, modes = net(), list[bool]()
    model.register_forward_pre_hook(lambda one, _: modes.append(one.training))
    challenge()(model, batch())
    assert modes == [True, True, True, False, True]


def placed(seen: list[Tensor], given: Tensor) -> None:
    """The law of the second stage: each pass shows its pictures at one of the published places."""
    choices = placings(16, 16, 12 / 16)
    assert any(torch.equal(choice(given), seen[0]) for choice in choices)
    assert all(not x[:, :, -1].any() for x in seen)
    assert all(not x[:, :, :, -1].any() for x in seen)


def test_the_second_stage_places_every_pass() -> None:
    given = batch()
    placed(counted(net(), challenge(replace(ALL, least=12 / 16)), given)[1], given.x)
    with pytest.raises(AssertionError):
        placed(counted(net(), challenge(ALL), given)[1], given.x)


def test_places_come_with_their_chances() -> None:
    choices = placings(32, 32, 26 / 32)
    drawn = [module._drawn(choices, noise(seed)) for seed in range(3000)]
    gaps = torch.bincount(torch.tensor([one.gap for one in drawn]), minlength=7)[1:]
    assert len(choices) == 91
    assert float((gaps / 500).sub(1.0).abs().max()) < 0.2  # six gaps, alike
    assert len({(one.gap, one.top, one.left) for one in drawn}) == 91


@pytest.mark.parametrize(
    "values", [{"mixup": -1.0}, {"cutmix": -0.1}, {"fgsm": -1.0}, {"through": "other"}, {"least": 1.0}, {"least": 0.0}]
)
def test_wrong_ingredients_are_refused(values: dict[str, Any]) -> None:
    with pytest.raises(SpecError, match="challenge: got") as error:
        Ingredients(**values)
    assert "\n" not in str(error.value)


# --- a run


def run(folder: Path, step: Step, stop_after: int | None = None) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(0)
    labels = torch.arange(24) % 3
    images = torch.randint(0, 120, (24, 3, 16, 16), generator=generator) + 60 * labels.reshape(-1, 1, 1, 1)
    batches = Shuffled(Pictures(images.to(torch.uint8), labels, ("a", "b", "c")), 12, augment("crop_flip"))
    plan = Plan(
        2, rate=0.01, average=0.5, bf16=False, weight_decay=1e-3, optimizer="adamax", schedule="step(every=1, factor=0.5)", backbone=0.1
    )
    return fit(net(), step, batches, plan, folder=folder, stop_after=stop_after).state_dict()


def same(step: Step, tmp_path: Path) -> bool:
    """Whether a run that was broken off ends with the weights of an undisturbed one, whatever torch's generator was at."""
    whole = run(tmp_path / "whole", step)
    run(tmp_path / "parts", step, stop_after=1)
    torch.rand(1)
    parts = run(tmp_path / "parts", step)
    return all(torch.equal(whole[name], parts[name]) for name in whole)


def test_a_resumed_run_gives_the_same_weights_with_dropout_and_stochastic_depth(tmp_path: Path) -> None:
    assert same(challenge(replace(ALL, through="gcm", least=12 / 16)), tmp_path / "challenge")
    torch.manual_seed(0)
    assert not same(standard(), tmp_path / "mutant")  # dropout from the global generator
