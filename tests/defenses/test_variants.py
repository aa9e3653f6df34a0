"""What MSPD's keywords beyond the paper do: other draws, other aims, shaped gradients, a polish. And that the defaults are still MSPD."""

from __future__ import annotations

import hashlib

import pytest
import torch
from torch import Tensor, nn

from forearm.core.losses import cross_entropy, margin
from forearm.core.noise import Noise
from forearm.core.threat import Threat
from forearm.defenses.preemptive import aims
from forearm.defenses.preemptive.mcgs import DRAWS, draws, mcgs
from forearm.defenses.preemptive.polish import polish
from forearm.errors import SpecError

THREAT = Threat.parse("linf:8/255")
EPS = THREAT.eps
Y = torch.tensor([1, 1])


def linear(x: Tensor) -> Tensor:
    """Class 1 grows with the first half of the columns and falls with the others."""
    sign = torch.where(torch.arange(x.shape[3]) < x.shape[3] // 2, 1.0, -1.0).to(x)
    score = (x * sign).mean((1, 2, 3))
    return torch.stack([-score, score], 1)


def grey(side: int = 40) -> Tensor:
    return torch.full((2, 3, side, side), 0.5, dtype=torch.float64)


def drawn(draw: str, copies: int, seed: int = 0, grid: tuple[int, int] | None = None) -> Tensor:
    return torch.stack(list(draws(grey(), copies, draw=draw, threat=THREAT, noise=Noise.of(2, seed=seed), grid=grid)))


# Draws


@pytest.mark.parametrize("draw", DRAWS)
def test_each_copy_alone_is_uniform_in_the_ball(draw: str) -> None:
    for copy in drawn(draw, 5):
        share = (copy.flatten() / EPS).sort().values
        assert bool((share.abs() <= 1.0).all())
        expected = torch.linspace(-1.0, 1.0, len(share), dtype=torch.float64)
        assert float((share - expected).abs().max()) < 0.05  # Kolmogorov-Smirnov: 0.028 at p = .01


def test_opposite_pairs_cancel() -> None:
    pairs = drawn("antithetic", 6)
    assert torch.equal(pairs[0::2], -pairs[1::2])
    assert float((pairs[0] - pairs[2]).abs().mean()) > 0.3 * EPS
    assert len(drawn("antithetic", 5)) == 5
    assert float(drawn("uniform", 6).mean(0).abs().max()) > 0.1 * EPS


def test_strata_hold_one_copy_each() -> None:
    parts = ((drawn("stratified", 8) / EPS + 1.0) * 4.0).floor().clamp(0, 7).sort(0).values
    assert torch.equal(parts, torch.arange(8, dtype=parts.dtype).reshape(-1, 1, 1, 1, 1).expand_as(parts))
    order = drawn("stratified", 8).argmax(0).flatten()
    assert float((order.bincount(minlength=8) / len(order) - 1 / 8).abs().max()) < 0.02  # any copy may be the highest
    together = drawn("uniform", 8)
    assert not torch.equal(((together / EPS + 1.0) * 4.0).floor().sort(0).values, parts)


def spread_of_the_forward_epoch(draw: str, copies: int) -> float:
    """The standard deviation of a pixel's move where the gradient's sign is stable, in units of eps."""
    moved = mcgs(linear, grey(), Y, threat=THREAT, noise=Noise.of(2, seed=3), forward=1, backward=0, copies=copies, draw=draw) - grey()
    assert abs(float(moved.abs().mean()) / EPS - 0.75) < 0.01
    return float(moved.abs().std()) / EPS


def test_variance_of_the_forward_epoch_in_closed_form() -> None:
    """A copy's move is 1 + min(u, 0): variance 5/48 alone; a pair's mean is 1 - |u|/2: variance 1/48 for two copies, 2.5 times less."""
    assert abs(spread_of_the_forward_epoch("uniform", 10) - (5 / 48 / 10) ** 0.5) < 0.003
    assert abs(spread_of_the_forward_epoch("antithetic", 10) - (1 / 48 / 5) ** 0.5) < 0.003
    assert spread_of_the_forward_epoch("stratified", 10) < 0.25 * (1 / 48 / 5) ** 0.5


@pytest.mark.parametrize("draw", DRAWS)
def test_draws_do_not_depend_on_the_batch_or_on_parts(draw: str, monkeypatch: pytest.MonkeyPatch) -> None:
    x = Noise.of(2, seed=9).uniform(grey(8))
    whole = mcgs(linear, x, Y, threat=THREAT, noise=Noise.of(2, seed=5), copies=5, draw=draw)
    alone = mcgs(linear, x[1:], Y[1:], threat=THREAT, noise=Noise(5, torch.tensor([1])), copies=5, draw=draw)
    assert torch.allclose(whole[1:], alone, atol=1e-12)
    monkeypatch.setattr("forearm.defenses.preemptive.mcgs.PIXELS_AT_ONCE", 2 * x.numel())
    assert torch.allclose(mcgs(linear, x, Y, threat=THREAT, noise=Noise.of(2, seed=5), copies=5, draw=draw), whole, atol=1e-12)


@pytest.mark.parametrize("draw", DRAWS)
def test_a_grid_repeats_them_over_its_cells(draw: str) -> None:
    for copy in drawn(draw, 3, grid=(4, 5)):
        assert torch.equal(copy[:, :, :10, :8], copy[:, :, :1, :1].expand(2, 3, 10, 8))


def test_what_is_no_draw() -> None:
    with pytest.raises(SpecError, match="draw: got 'sobol'; one of uniform, antithetic, stratified"):
        drawn("sobol", 2)
    with pytest.raises(SpecError, match="draw: got 'stratified' for l2"):
        mcgs(linear, grey(4), Y, threat=Threat.parse("l2:0.5"), noise=Noise.of(2), draw="stratified")


# Defaults


def test_the_defaults_are_still_mspd() -> None:
    """The bytes of a release made before these keywords existed."""
    x = Noise.of(2, seed=1).uniform(torch.empty(2, 3, 8, 8, dtype=torch.float64))
    armed = mcgs(linear, x, Y, threat=THREAT, noise=Noise.of(2, seed=4), copies=3)
    assert hashlib.sha256(armed.numpy().tobytes()).hexdigest() == "74e30fe9de230cde65420789f256f5bd013095773e5891b613dd3087f20108c4"


# Aims and shapes


def logits() -> tuple[Tensor, Tensor]:
    torch.manual_seed(0)
    return torch.randn(6, 5, dtype=torch.float64) * 3.0, torch.tensor([0, 1, 2, 3, 4, 0])


def test_the_aims_are_one_family() -> None:
    """own - competitor, the competitor at temperature t: the strongest at 0, the log-sum-exp at 1, the mean at infinity."""
    z, y = logits()
    others = torch.stack([row[[k for k in range(5) if k != label]] for row, label in zip(z, y.tolist(), strict=True)])
    own = z.gather(1, y[:, None]).squeeze(1)

    def soft(t: float) -> Tensor:
        return t * (torch.logsumexp(others / t, 1) - torch.log(torch.tensor(4.0 if t > 100 else 1.0))) - own

    assert torch.allclose(aims.aim_named("margin")(z, y), soft(1e-3), atol=1e-2)
    assert torch.allclose(aims.aim_named("ce")(z, y), torch.nn.functional.softplus(soft(1.0)))
    assert torch.allclose(aims.aim_named("runners")(z, y), soft(1e5), atol=1e-3)
    assert aims.aim_named("margin") is margin
    assert aims.aim_named("ce") is cross_entropy


def test_the_backward_aim_changes_the_backward_epoch_alone() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Flatten(), nn.Linear(192, 16), nn.Tanh(), nn.Linear(16, 5)).double().requires_grad_(False)
    x, y = Noise.of(2, seed=9).uniform(grey(8)), torch.tensor([0, 1])

    def made(forward: int, backward: int, aim: str, back: str) -> Tensor:
        return mcgs(
            model, x, y, threat=THREAT, noise=Noise.of(2), copies=2, forward=forward, backward=backward, aim=aim, back=back
        )  # fmt: skip

    assert torch.equal(made(1, 0, "ce", "margin"), made(1, 0, "ce", "ce"))
    assert torch.equal(made(0, 1, "margin", "ce"), made(0, 1, "ce", "ce"))
    assert not torch.equal(made(1, 1, "ce", "margin"), made(1, 1, "ce", "ce"))
    assert not torch.equal(made(1, 1, "runners", "ce"), made(1, 1, "ce", "ce"))


def test_luma_changes_all_channels_alike() -> None:
    x = 0.2 + 0.6 * Noise.of(2, seed=9).uniform(grey(8))

    def coloured(z: Tensor) -> Tensor:
        score = (z * torch.tensor([3.0, -1.0, -1.0]).to(z).reshape(3, 1, 1)).mean((1, 2, 3))
        return torch.stack([-score, score], 1)

    change = mcgs(coloured, x, Y, threat=THREAT, noise=Noise.of(2), copies=1, spread=0.0, shape="luma") - x
    assert float((change - change.mean(1, keepdim=True)).abs().max()) < 1e-12
    assert float(change.abs().min()) > 0.9 * EPS
    free = mcgs(coloured, x, Y, threat=THREAT, noise=Noise.of(2), copies=1, spread=0.0) - x
    assert float((free - free.mean(1, keepdim=True)).abs().max()) > EPS


def test_low_keeps_flat_gradients_and_removes_checkers() -> None:
    rows, columns = torch.meshgrid(torch.arange(9), torch.arange(9), indexing="ij")
    board = ((-1.0) ** (rows + columns)).double().expand(1, 2, 9, 9)
    assert torch.allclose(aims.low(torch.full_like(board, 3.0)), torch.full_like(board, 3.0))
    assert float(aims.low(board)[..., 2:-2, 2:-2].abs().max()) < 1e-12
    point = torch.zeros(1, 1, 9, 9, dtype=torch.float64)
    point[..., 4, 4] = 256.0
    spread = aims.low(point)[0, 0, 2:7, 2:7]
    row = torch.tensor([1.0, 4.0, 6.0, 4.0, 1.0], dtype=torch.float64)
    assert torch.allclose(spread, row[:, None] * row)


def test_what_is_no_aim_or_shape() -> None:
    with pytest.raises(SpecError, match="aim: got 'mse'; one of ce, margin, runners"):
        mcgs(linear, grey(4), Y, threat=THREAT, noise=Noise.of(2), aim="mse")
    with pytest.raises(SpecError, match="aim: got 'mse'"):
        mcgs(linear, grey(4), Y, threat=THREAT, noise=Noise.of(2), back="mse")
    with pytest.raises(SpecError, match="shape: got 'round'; one of none, luma, low"):
        mcgs(linear, grey(4), Y, threat=THREAT, noise=Noise.of(2), shape="round")


# Polish


def test_the_polish_by_hand() -> None:
    """No copies to speak of (spread by a linear model's constant sign), then the printed formula, step by step in float64."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Flatten(), nn.Linear(192, 16), nn.Tanh(), nn.Linear(16, 5)).double().requires_grad_(False)
    x, y = Noise.of(2, seed=9).uniform(grey(8)), torch.tensor([0, 1])

    def gradient(z: Tensor) -> Tensor:
        z = z.clone().requires_grad_()
        (g,) = torch.autograd.grad(torch.nn.functional.cross_entropy(model(z), y, reduction="sum"), z)
        return g

    wanted = mcgs(model, x, y, threat=THREAT, noise=Noise.of(2), copies=2)
    for k in range(3):
        z = wanted
        for _ in range(2):
            z = (wanted + (z + 0.6 * EPS * gradient(z).sign() - wanted).clamp(-EPS, EPS)).clamp(0.0, 1.0)
        moved = wanted - 0.3 * (1.0 - k / 3) * EPS * gradient(z).sign()
        wanted = (x + (moved - x).clamp(-EPS, EPS)).clamp(0.0, 1.0)
    ours = polish(model, x, y, threat=THREAT, noise=Noise.of(2), steps=3)
    assert float((ours - wanted).abs().max()) < 1e-12
    assert float((ours - mcgs(model, x, y, threat=THREAT, noise=Noise.of(2), copies=2)).abs().max()) > 0.01 * EPS


def test_the_polish_costs_forty_gradients() -> None:
    pictures = 0

    def counting(x: Tensor) -> Tensor:
        nonlocal pictures
        pictures += len(x)
        return linear(x)

    polish(counting, grey(4), Y, threat=THREAT, noise=Noise.of(2))
    assert pictures == 2 * 40
