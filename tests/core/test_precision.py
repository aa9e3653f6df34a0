"""The fast twin and the exact verdict: equal where they must be, and the model itself never touched."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from forearm.core import precision
from forearm.core.gradients import input_gradient
from forearm.core.precision import exact, fast, fold, full_precision, native_bf16, verdict
from forearm.models.preact_resnet import preact_resnet
from forearm.models.resnet9 import resnet9


class Shared(nn.Module):
    """One convolution before two norms, one norm twice, and a pair that folds."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.twice = nn.Conv2d(3, 3, 3, padding=1), nn.Conv2d(3, 3, 3, padding=1)
        self.free = nn.Conv2d(3, 4, 3)
        self.one, self.two, self.again, self.last = (nn.BatchNorm2d(c) for c in (3, 3, 3, 4))

    def forward(self, x: Tensor) -> Tensor:
        out = self.conv(x)
        out = self.one(out) + self.two(out).tanh()
        out = self.again(self.twice(self.again(self.twice(out)))).relu()
        logits: Tensor = self.last(self.free(out)).mean((2, 3))
        return logits


class Aliased(nn.Module):
    """The same norm under two names; forward uses the second."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.first = nn.Conv2d(3, 5, 3, bias=False), nn.BatchNorm2d(5)
        self.second = self.first

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.second(self.conv(x)).mean((2, 3))
        return logits


class Untraceable(nn.Module):
    """Control flow on values, which a trace cannot follow."""

    def __init__(self) -> None:
        super().__init__()
        self.body = tiny()

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.body(x)
        return logits if float(x.detach().sum()) > 0 else -logits


class Random(nn.Module):
    """A model that draws at every pass."""

    def __init__(self) -> None:
        super().__init__()
        self.body = tiny()

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.body(x)
        return logits + torch.rand(())


def tiny() -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(3, 6, 3, bias=False), nn.BatchNorm2d(6), nn.ReLU(), nn.Conv2d(6, 8, 3), nn.BatchNorm2d(8, affine=False),
        nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 5),
    )  # fmt: skip


def strided() -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(3, 6, 4, 2, 1, bias=False), nn.BatchNorm2d(6), nn.ReLU(), nn.Conv2d(6, 8, 3, 2), nn.ReLU(), nn.AdaptiveAvgPool2d(2),
        nn.Flatten(), nn.Linear(32, 5),
    )  # fmt: skip


MODELS: dict[str, Callable[[], nn.Module]] = {
    "tiny": tiny,
    "strided": strided,
    "preact_resnet": lambda: preact_resnet(width=4),
    "resnet9": lambda: resnet9(width=4),
    "shared": Shared,
    "aliased": Aliased,
    "untraceable": Untraceable,
}
FOLDED = {"tiny": 2, "strided": 1, "preact_resnet": 8, "resnet9": 8, "shared": 1, "aliased": 1, "untraceable": 0}


def made(name: str) -> nn.Module:
    """A network with batch norms far from the identity, in train mode."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(1)
        model = MODELS[name]()
        for norm in model.modules():
            if isinstance(norm, nn.BatchNorm2d):
                assert norm.running_mean is not None
                assert norm.running_var is not None
                norm.running_mean.normal_(0, 0.3)
                norm.running_var.uniform_(0.3, 2.0)
                if norm.affine:
                    nn.init.uniform_(norm.weight, 0.5, 1.5)
                    nn.init.normal_(norm.bias, 0, 0.3)
    return model


def pictures(n: int = 6) -> Tensor:
    return torch.rand(n, 3, 32, 32, generator=torch.Generator().manual_seed(2))


def norms(model: nn.Module) -> int:
    return len([m for m in model.modules() if isinstance(m, nn.BatchNorm2d)])


@pytest.mark.parametrize("name", MODELS)
def test_folding_changes_no_logit(name: str) -> None:
    model, x = made(name).double(), pictures().double()
    expected = copy.deepcopy(model).eval()(x)
    folded = fold(model)
    torch.testing.assert_close(folded(x), expected.detach(), rtol=0, atol=1e-10)
    assert norms(model) - norms(folded) == FOLDED[name]
    assert not folded.training
    assert not any(p.requires_grad for p in folded.parameters())


def test_a_wrong_fold_would_be_seen() -> None:
    """The mutant: batch norms left out."""
    model, x = made("tiny").double(), pictures().double()
    without: Any = copy.deepcopy(model).eval()
    without[1], without[4] = nn.Identity(), nn.Identity()
    assert float((without(x) - copy.deepcopy(model).eval()(x)).detach().abs().max()) > 1e-3


def test_parts_with_hooks_stay() -> None:
    model = made("tiny")
    model[0].register_forward_hook(lambda module, inputs, output: 2 * output)  # type: ignore[index]
    x = pictures()
    folded = fold(model)
    assert norms(folded) == 1
    torch.testing.assert_close(folded(x), copy.deepcopy(model).eval()(x).detach(), rtol=1e-4, atol=1e-5)


def test_a_random_model_stays_random_and_draws_nothing_meanwhile() -> None:
    with torch.random.fork_rng(devices=[]):
        model, x = Random(), pictures(2)
        before = torch.get_rng_state()
        folded = fold(model)
        assert torch.equal(torch.get_rng_state(), before)
        assert not torch.equal(folded(x), folded(x))
        assert norms(folded) == 0


@pytest.mark.parametrize("name", ["tiny", "strided", "preact_resnet", "resnet9"])
def test_the_twin_points_where_the_model_points(name: str) -> None:
    model, x = made(name).eval(), pictures(8)
    y = model(x).argmax(1)
    exact_gradient, _ = input_gradient(model, x, y)
    for bf16, share, tolerance in ((False, 0.999, 1e-4), (True, 0.93, 0.2)):
        gradient, logits = input_gradient(fast(model, bf16=bf16), x, y)
        large = exact_gradient.abs() > 0.1 * exact_gradient.abs().amax((1, 2, 3), keepdim=True)
        agreement = (gradient.sign() == exact_gradient.sign())[large].double().mean()
        assert float(agreement) >= share
        assert gradient.dtype == torch.float32
        assert logits.dtype == torch.float32
        torch.testing.assert_close(logits, model(x).detach(), rtol=0.02 if bf16 else 1e-4, atol=tolerance)
    other = input_gradient(fast(made(name).apply(reverse), bf16=False), x, y)[0]  # the mutant: another model
    assert float((other.sign() == exact_gradient.sign())[large].double().mean()) < 0.93


def reverse(module: nn.Module) -> None:
    if isinstance(module, nn.Conv2d):
        module.weight.data = module.weight.data.flip(0)


def test_bf16_is_really_used_and_only_when_asked_for() -> None:
    model, x = made("preact_resnet").eval(), pictures()
    expected = exact(model)(x)
    assert float((fast(model, bf16=True)(x) - expected).abs().max()) > 1e-5
    assert float((fast(model, bf16=False)(x) - expected).abs().max()) < 1e-5
    default = fast(model)(x)
    assert torch.equal(default, fast(model, bf16=native_bf16(torch.device("cpu")))(x))


@pytest.mark.parametrize("name", MODELS)
def test_the_folded_copy_is_the_model_up_to_rounding(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """On hardware with bf16 too, where the fast twin is not."""
    monkeypatch.setattr(precision, "native_bf16", lambda device: True)
    model, x = made(name).eval(), pictures()
    expected = exact(model)(x)
    found = precision.folded(model)(x)
    assert found.dtype == torch.float32
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)
    assert float((fast(model)(x) - expected).abs().max()) > 1e-4  # the mutant: bf16 where the hardware has it


def test_a_float64_model_stays_float64() -> None:
    model, x = made("tiny").double(), pictures().double()
    expected = copy.deepcopy(model).eval()(x).detach()
    for found in (fast(model, bf16=True)(x), precision.folded(model)(x), exact(model)(x)):
        assert found.dtype == torch.float64
        torch.testing.assert_close(found, expected, rtol=0, atol=1e-10)


def test_the_twin_takes_any_memory_layout() -> None:
    twin, x = fast(made("tiny"), bf16=False), pictures()
    strided = x.permute(0, 2, 3, 1).contiguous().permute(0, 3, 1, 2)
    assert torch.equal(twin(x), twin(strided))


@pytest.mark.parametrize("make", [fold, fast, precision.folded, exact], ids=lambda f: f.__name__)
@pytest.mark.parametrize("name", MODELS)
def test_the_model_is_not_modified(make: Callable[[nn.Module], Callable[[Tensor], Tensor]], name: str) -> None:
    model = made(name)
    state = copy.deepcopy(model.state_dict())
    flags = [p.requires_grad for p in model.parameters()]
    x, y = pictures(), torch.zeros(6, dtype=torch.int64)
    input_gradient(make(model), x, y)
    assert model.training
    assert all(m.training for m in model.modules())
    assert [p.requires_grad for p in model.parameters()] == flags
    assert all(p.grad is None for p in model.parameters())
    assert list(model.state_dict()) == list(state)
    assert all(torch.equal(v, state[k]) for k, v in model.state_dict().items())
    assert all(v.dtype == state[k].dtype for k, v in model.state_dict().items())


@pytest.mark.parametrize("make", [fast, precision.folded, exact], ids=lambda f: f.__name__)
def test_later_training_does_not_reach_a_twin(make: Callable[[nn.Module], Callable[[Tensor], Tensor]]) -> None:
    model, x = made("tiny"), pictures()
    twin = make(model)
    before = twin(x)
    with torch.no_grad():
        for p in model.parameters():
            p.add_(1.0)
    assert torch.equal(twin(x), before)
    assert not torch.equal(make(model)(x), before)


def test_exact_is_float32_under_autocast() -> None:
    model, x = made("preact_resnet").eval(), pictures()
    expected = model(x).detach()
    with torch.autocast("cpu", torch.bfloat16):
        lowered = model(x)
        assert lowered.dtype == torch.bfloat16  # the mutant: no guard
        found = exact(model)(x)
        right, logits = verdict(model, x, expected.argmax(1))
    assert found.dtype == logits.dtype == torch.float32
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-6)
    torch.testing.assert_close(logits, expected, rtol=0, atol=1e-6)
    assert bool(right.all())


def test_exact_turns_half_weights_and_pictures_into_float32() -> None:
    model = made("tiny").half()
    x = pictures().half()
    assert torch.equal(exact(model)(x), copy.deepcopy(model).float().eval()(x.float()))


def test_full_precision_forbids_and_restores() -> None:
    backends: Any = torch.backends
    kinds = (backends.mkldnn.matmul, backends.mkldnn.conv, backends.cuda.matmul, backends.cudnn.conv, backends.cudnn.rnn)
    before = [kind.fp32_precision for kind in kinds]
    kinds[0].fp32_precision = "bf16"
    try:
        with torch.autocast("cpu", torch.bfloat16), full_precision(torch.device("cpu")):
            assert {kind.fp32_precision for kind in kinds} == {"ieee"}
            assert not torch.is_autocast_enabled("cpu")
        assert [kind.fp32_precision for kind in kinds] == ["bf16", *before[1:]]
        with pytest.raises(RuntimeError, match="inside"):
            fail_inside()
        assert [kind.fp32_precision for kind in kinds] == ["bf16", *before[1:]]
    finally:
        kinds[0].fp32_precision = before[0]
    assert [kind.fp32_precision for kind in kinds] == before


def fail_inside() -> None:
    with full_precision(torch.device("cpu")):
        raise RuntimeError("inside")


def test_a_verdict_needs_a_strict_and_finite_lead() -> None:
    logits = torch.tensor([[2.0, 1.0, 0.0], [1.0, 1.0, 0.0], [float("nan"), 0.0, 0.0], [0.0, float("nan"), 0.0], [0.0, 3.0, 1.0]])
    y = torch.tensor([0, 0, 0, 0, 0])
    right, found = verdict(lambda x: logits, torch.zeros(5, 3, 2, 2), y)
    assert right.tolist() == [True, False, False, False, False]
    assert not found.requires_grad
    by_argmax = logits.argmax(1) == y  # the mutant: a tie and a NaN count for the model
    assert by_argmax.tolist()[:3] == [True, True, True]


def test_verdict_leaves_no_graph() -> None:
    model, x = made("tiny").eval(), pictures()
    _, logits = verdict(model, x.requires_grad_(), torch.zeros(6, dtype=torch.int64))
    assert not logits.requires_grad


def test_native_bf16_names_the_hardware() -> None:
    able = torch.cpu.get_capabilities()
    assert native_bf16(torch.device("cpu")) == bool(able.get("avx512_bf16") or able.get("amx_bf16"))
    assert native_bf16(torch.device("meta")) is False
