"""Concealment before any kind of classifier: what goes in and out, what is kept, and where it can be taken to."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import forearm
from forearm.core.gradients import input_gradient
from forearm.defenses.inference.hardened import Hardened
from forearm.errors import InputError
from forearm.models.architectures import ARCHITECTURES
from forearm.registry import bind

PROBE = "linear probe"
NETS = {  # name -> architecture; the probe is a linear layer on the pixels
    PROBE: "",
    "residual": "preact_resnet(width=4, blocks=(1, 1))",
    "mobile": "mobilenet_v2",
    "autoencoder": "resnet_autoencoder(width=4)",
    "ConvNeXt": "convnext_cifar(width=4, depths=(1, 1), drop_path=0.2, head='mlp(hidden=(6,))')",
    "transformer": "vit(width=16, depth=1, heads=2)",
}
every = pytest.mark.parametrize("name", NETS)


def net(name: str) -> nn.Module:
    """One of them with fresh weights, in eval mode."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        made: nn.Module = nn.Sequential(nn.Flatten(), nn.Linear(3072, 10)) if name == PROBE else bind(ARCHITECTURES, NETS[name])(classes=10)
    return made.eval()


def pictures(n: int = 6) -> tuple[Tensor, Tensor]:
    """On the 8-bit grid, with labels."""
    generator = torch.Generator().manual_seed(3)
    return torch.randint(0, 256, (n, 3, 32, 32), generator=generator).float() / 255.0, torch.arange(n)


@every
def test_the_logits_stay_and_the_signs_of_the_gradient_do_not(name: str) -> None:
    model, (x, y) = net(name), pictures()
    bare, _ = input_gradient(model, x, y)

    def agreeing(concealed: nn.Module) -> float:
        gradient, logits = input_gradient(concealed, x, y)
        torch.testing.assert_close(logits, model(x).detach(), rtol=1e-4, atol=1e-4)
        return float((gradient.sign() == bare.sign())[bare != 0].float().mean())

    assert 0.45 < agreeing(forearm.conceal(model)) < 0.55
    assert agreeing(forearm.conceal(model, omega=1.0)) == 1.0  # the mutant: a slope that conceals nothing


@every
def test_training_through_it_is_training_the_model(name: str) -> None:
    """In train mode: the same logits, the same statistics, and gradients of the weights that are the bare model's."""
    model, (x, y) = net(name).train(), pictures()
    twin = copy.deepcopy(model)
    concealed = forearm.conceal(model)
    assert concealed.training
    losses = []
    for one in (concealed, twin):
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(5)  # stochastic depth
            losses.append(nn.functional.cross_entropy(one(x), y))
        losses[-1].backward()
    torch.testing.assert_close(losses[0], losses[1], rtol=1e-3, atol=1e-4)
    for (key, mine), theirs in zip(model.named_parameters(), twin.parameters(), strict=True):
        if theirs.grad is None:
            assert mine.grad is None, key
        else:
            assert mine.grad is not None, key
            torch.testing.assert_close(mine.grad, theirs.grad, rtol=1e-2, atol=1e-3 * float(theirs.grad.abs().max()) + 1e-7)
    for (key, mine), theirs in zip(model.named_buffers(), twin.buffers(), strict=True):
        torch.testing.assert_close(mine, theirs, rtol=1e-4, atol=1e-4, msg=key)
    concealed.eval()
    assert not any(part.training for part in model.modules())


@every
def test_the_state_dict_is_the_models(name: str) -> None:
    model = net(name)
    concealed, state = forearm.conceal(model), model.state_dict()
    assert list(concealed.state_dict()) == list(state)
    assert all(torch.equal(concealed.state_dict()[key], value) for key, value in state.items())
    fresh = net(name)
    with torch.no_grad():
        for value in fresh.parameters():
            value.zero_()
    assert not any(forearm.conceal(fresh).load_state_dict(state))
    assert torch.equal(fresh(pictures()[0]), model(pictures()[0]))


@every
def test_bfloat16_works_and_float16_is_refused(name: str) -> None:
    """A bfloat16 model says what it says bare: its pictures do not change at all."""
    model, (x, y) = net(name).bfloat16(), pictures()
    concealed = forearm.conceal(model)
    assert torch.equal(concealed(x.bfloat16()), model(x.bfloat16()))
    gradient, _ = input_gradient(concealed, x.bfloat16(), y)
    bare, _ = input_gradient(model, x.bfloat16(), y)
    assert bool(gradient.isfinite().all())
    assert float(gradient.abs().max()) > 1e6 * float(bare.abs().max())
    with pytest.raises(
        InputError, match=r"conceal: got float16 pictures, where 1e\+20 x overflows; float32 or bfloat16, for example x\.float\(\)"
    ):
        forearm.conceal(net(name).half())(x.half())


@every
def test_torch_export_takes_it(name: str) -> None:
    concealed, (x, _) = forearm.conceal(net(name)), pictures(3)
    program = torch.export.export(concealed, (x,))
    assert sum(node.target is torch.ops.aten.sin.default for node in program.graph.nodes) == 1
    assert torch.equal(program.module()(x), concealed(x))


@pytest.mark.parametrize("name", [PROBE, "transformer"])
@pytest.mark.filterwarnings("ignore")
def test_onnx_takes_it_and_another_engine_runs_it(name: str) -> None:
    """With onnx, onnxscript and onnxruntime (`pip install forearm[onnx]`): the sine is in the graph, its logits are those of torch."""
    pytest.importorskip("onnx", reason="needs onnx to export")
    pytest.importorskip("onnxscript", reason="needs onnxscript to export")
    engine = pytest.importorskip("onnxruntime", reason="needs onnxruntime to run what was exported")
    concealed, (x, _) = forearm.conceal(net(name)), pictures(3)
    (made,) = run(concealed, x, engine)
    torch.testing.assert_close(made, concealed(x).detach(), rtol=1e-4, atol=1e-5)
    (shown,) = run(Hardened(nn.Flatten(), concealed.before), x, engine)
    assert 0.0 < float((shown - x.flatten(1)).abs().max()) <= 1.5e-8  # and not NaN: the engine reduces 1e20 as it must


def run(model: nn.Module, x: Tensor, engine: Any) -> list[Tensor]:
    """What an engine makes of a model in ONNX."""
    program = torch.onnx.export(model, (x,), dynamo=True, verbose=False)
    assert program is not None
    assert [node.op_type for node in program.model_proto.graph.node].count("Sin") == 1
    session = engine.InferenceSession(program.model_proto.SerializeToString(), providers=["CPUExecutionProvider"])
    return [torch.from_numpy(out) for out in session.run(None, {session.get_inputs()[0].name: x.numpy()})]
