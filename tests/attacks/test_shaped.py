"""FFA, STA, AdvDrop, SSAH and SPSA: their own transforms, and that these do what they say."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from forearm.attacks.advdrop import dct_matrix, quantised, soft_round
from forearm.attacks.feature import ffa, representation
from forearm.attacks.spatial import roughness, sta, warped
from forearm.attacks.spsa import estimated_gradient
from forearm.attacks.ssah import low_frequencies, ssah
from forearm.core.noise import Noise
from forearm.core.threat import Threat

X = torch.rand(4, 3, 12, 12, generator=torch.Generator().manual_seed(1), dtype=torch.float64)


def net() -> nn.Sequential:
    generator = torch.Generator().manual_seed(0)
    centre = nn.BatchNorm2d(3, affine=False)
    centre.running_mean.fill_(0.5)
    body = nn.Sequential(centre, nn.Conv2d(3, 4, 3, 2, 1), nn.SiLU(), nn.Flatten())
    model = nn.Sequential(body, nn.Linear(144, 8), nn.SiLU(), nn.Linear(8, 4))
    for weight in model.parameters():
        gain = 0.0 if weight.ndim == 1 else 4.0
        weight.data = gain * torch.randn(weight.shape, generator=generator) / weight[0].numel() ** 0.5
    return model.double().eval()


def test_representation_is_what_goes_into_the_last_linear_layer() -> None:
    model = net()
    phi, logits = representation(model, X)
    assert torch.equal(phi, model[:3](X))
    assert torch.equal(logits, model(X))
    assert torch.equal(representation(model, X, "0")[0], model[0](X).flatten(1))
    bare, same = representation(lambda x: model(x), X)
    assert bare is same
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in model.modules())


def test_ffa_moves_the_features_away_or_to_a_guide() -> None:
    model, threat = net(), Threat.parse("linf:0.05")
    y = model(X).argmax(1)
    own, _ = representation(model, X)
    away, _ = representation(model, ffa(model, X, y, threat=threat, noise=Noise.of(4)))
    random, _ = representation(model, threat.sample(X, Noise.of(4)))
    assert ((away - own).norm(dim=1) >= (random - own).norm(dim=1)).all()  # equal where no step raised the margin
    assert ((away - own).norm(dim=1) > 1.5 * (random - own).norm(dim=1)).sum() >= 2
    goal, _ = representation(model, X.flip(0))
    target = Threat(threat.norm, threat.eps, targeted=True)
    near, _ = representation(model, ffa(model, X, y.flip(0), threat=target, noise=Noise.of(4), guide=X.flip(0)))
    assert ((near - goal).norm(dim=1) < (own - goal).norm(dim=1)).sum() >= 3  # the highest margin need not be nearest
    assert (near - goal).norm() < (own - goal).norm()


def test_a_flow_of_whole_pixels_shifts_the_picture() -> None:
    flow = torch.zeros(4, 2, 12, 12, dtype=torch.float64)
    assert torch.allclose(warped(X, flow), X, atol=1e-12)
    flow[:, 0] = 1.0
    assert torch.allclose(warped(X, flow)[..., :-1], X[..., 1:], atol=1e-12)
    assert torch.allclose(warped(X, flow)[..., -1], X[..., -1], atol=1e-12)
    assert (roughness(flow) < 1e-4).all()
    flow[:, 1, 5, 5] = 1.0
    assert torch.allclose(roughness(flow), torch.full((4,), 8.0 / 144, dtype=torch.float64), atol=1e-4)


def test_sta_bends_the_flow_and_wins_without_a_ball() -> None:
    model = net()
    y = model(X).argmax(1)
    x_adv = sta(model, X, y, threat=Threat.parse("linf:1"), noise=Noise.of(4), rate=0.2, steps=40)
    assert (model(x_adv).argmax(1) != y).sum() >= 3


def test_dct_is_orthonormal_and_a_fine_table_keeps_the_picture() -> None:
    basis = dct_matrix(8)
    assert torch.allclose(basis @ basis.T, torch.eye(8, dtype=torch.float64), atol=1e-12)
    table = torch.full((4, 3, 1, 1, 8, 8), 1e-6, dtype=torch.float64)
    assert torch.allclose(quantised(X, table), X, atol=1e-6)
    coarse = quantised(X, torch.full_like(table, 1e5))
    assert not coarse.any()  # every frequency is rounded to 0


def test_the_staircase_is_smooth_and_close_to_rounding() -> None:
    r = torch.linspace(-3.2, 3.2, 1001, dtype=torch.float64).requires_grad_()
    (slope,) = torch.autograd.grad(soft_round(r).sum(), r)
    assert (slope > 0).all()
    away = (r - r.floor() - 0.5).abs() > 0.25
    assert ((soft_round(r) - r.round())[away].abs() < 0.1).all()


def test_low_frequencies_are_block_means() -> None:
    low = low_frequencies(X)
    assert torch.allclose(low[0, 0, :2, :2], X[0, 0, :2, :2].mean().expand(2, 2))
    assert torch.allclose(low_frequencies(low), low)
    odd = X[:, :, :7, :5]
    assert low_frequencies(odd).shape == odd.shape


def test_ssah_spares_the_low_frequencies() -> None:
    model = net()
    y = model(X).argmax(1)
    sizes = []
    for weight in (0.0, 1.0):
        x_adv = ssah(model, X, y, threat=Threat.parse("linf:1"), noise=Noise.of(4), rate=0.02, steps=60, smoothness=weight)
        change = x_adv - X
        sizes.append(low_frequencies(change).norm() / change.norm())
        assert (model(x_adv).argmax(1) != y).sum() >= 2
    assert sizes[1] < 0.7 * sizes[0]


def test_spsa_estimates_the_gradient() -> None:
    """On a linear margin each probe is exact along its direction: the mean of many points along w."""
    w = torch.randn(432, generator=torch.Generator().manual_seed(2), dtype=torch.float64)

    def linear(x: Tensor) -> Tensor:
        z = x.flatten(1) @ w
        return torch.stack([torch.zeros_like(z), z], 1)

    y = torch.zeros(4, dtype=torch.long)
    kept = {"threat": Threat.parse("linf:0.1"), "reach": 0.01}
    g = estimated_gradient(linear, X, y, noise=Noise.of(4), probes=2048, **kept)  # type: ignore[arg-type]
    cosine = nn.functional.cosine_similarity(g.flatten(1), w.expand(4, -1))
    assert (cosine > 0.75).all()
    assert torch.allclose(g.flatten(1).mean(0) @ w / w.square().sum(), torch.ones((), dtype=torch.float64), atol=0.2)
