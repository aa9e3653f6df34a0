"""Fast for gradients, exact for verdicts.

A gradient may be taken on a twin of the model: batch norm folded, channels_last, bf16 where the device has it. Whatever
decides success is taken on the model itself, in float32.
"""

from __future__ import annotations

import copy
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, fx, nn

from forearm.core import losses
from forearm.core.blocked import blocked
from forearm.core.gradients import Classifier

WIDE = 64  # channels of a convolution from which channels_last is faster than the plain order in float32; below, up to 20 % slower


def native_bf16(device: torch.device) -> bool:
    """Whether `device` multiplies bf16 in hardware: AVX-512 BF16 or AMX on a CPU, capability 8.0 or more on CUDA."""
    if device.type == "cuda":
        return torch.cuda.get_device_capability(device) >= (8, 0)
    able = torch.cpu.get_capabilities()
    return device.type == "cpu" and bool(able.get("avx512_bf16") or able.get("amx_bf16"))


def fold(model: nn.Module) -> nn.Module:
    """A copy of `model` in eval mode, frozen, each foldable batch norm multiplied into the convolution before it.

    With s = gamma / sqrt(var + eps): weight * s and (bias - mean) * s + beta, in float64 and rounded once. A trace by
    torch.fx only finds the pairs; the copy keeps the model's own forward code, so randomness and hooks stay alive, and
    a model that cannot be traced stays unfolded. A pair is left as it is where the convolution feeds anything else, a
    part is called twice, has hooks or is used through its weights, or the norm has no running statistics.
    Cost: a copy of the weights; no pass on data.
    """
    twin = copy.deepcopy(model).eval().requires_grad_(False)
    for conv, norm in _pairs(twin):
        _absorb(conv, norm)
        for path, module in list(twin.named_modules(remove_duplicate=False)):
            if module is norm:
                twin.set_submodule(path, nn.Identity())
    return twin


def fast(model: nn.Module, *, bf16: bool | None = None) -> Classifier:
    """A frozen twin of `model` for gradients: folded, strided stems `blocked` on a CPU, channels_last where that pays, in bf16 (`None`: where
    that is native).

    Pictures `n c h w` -> logits `n k`, float32. Later changes of `model` do not reach the twin; gradients reach the
    pictures alone. Convolutions and linear layers hold their weights in bf16, as autocast would make them anew in every
    pass. A float64 model stays float64. Cost of a call: one forward pass.
    """
    twin = fold(model)
    dtype, device = _place(twin)
    if device.type == "cpu":
        twin = blocked(twin)
    low = dtype == torch.float32 and (native_bf16(device) if bf16 is None else bf16)
    if low:
        for module in twin.modules():
            if type(module) in (nn.Conv2d, nn.Linear):
                module.to(torch.bfloat16)
    wide = low or any(type(module) is nn.Conv2d and module.out_channels >= WIDE for module in twin.modules())
    if wide:
        twin = twin.to(memory_format=torch.channels_last)  # type: ignore[call-overload]

    def classify(x: Tensor) -> Tensor:
        with torch.autocast(x.device.type, torch.bfloat16, enabled=low):
            logits: Tensor = twin(x if wide else x.contiguous())  # the same kernels for any layout
        return _at_least_float32(logits)

    return classify


def folded(model: nn.Module) -> Classifier:
    """A frozen copy of `model` in float32, folded, and channels_last where that pays: apart from the model by rounding alone.

    Pictures `n c h w` -> logits `n k`, under the caller's precision settings. For what reads small differences of logits
    (FAB, Square), where `fast` is too coarse. Cost of a call: one forward pass, in half of the model's
    time (wide nets with batch norm) to all of it (narrow ones without).
    """
    return fast(model, bf16=False)


def exact(model: nn.Module) -> Classifier:
    """A frozen copy of `model` in eval mode, float32 in the forward pass under any autocast and TF32 settings.

    Pictures `n c h w` -> logits `n k`. Later changes of `model` do not reach it. It can be differentiated; the backward
    pass runs under the caller's settings. A float64 model stays float64. Cost of a call: one forward pass.
    """
    copied = copy.deepcopy(model).eval().requires_grad_(False)
    if _place(copied)[0] != torch.float64:
        copied = copied.float()

    def classify(x: Tensor) -> Tensor:
        with full_precision(x.device):
            return _at_least_float32(copied(_at_least_float32(x)))

    return classify


def verdict(model: Classifier, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    """Which pictures `model` gets right (`n`, bool), and its logits (`n k`, float32), in full precision.

    Right means margin < 0: a tie with another class and a logit that is not a number count as wrong, where an argmax
    would credit a constant or broken model with a class. No gradients. Cost: one forward pass.
    """
    with torch.no_grad(), full_precision(x.device):
        logits = _at_least_float32(model(_at_least_float32(x)))
    return losses.margin(logits, y) < 0.0, logits


@contextmanager
def full_precision(device: torch.device) -> Iterator[None]:
    """No autocast on `device`, no TF32 on CUDA, no bf16 in the CPU's float32 products; afterwards as it was before."""
    backends: Any = torch.backends
    cudnn, cpu = backends.cudnn, backends.mkldnn
    kinds = (cudnn.conv, cudnn.rnn, backends.cuda.matmul, cpu.conv, cpu.matmul)
    before = [kind.fp32_precision for kind in kinds]
    try:
        for kind in kinds:
            kind.fp32_precision = "ieee"
        with torch.autocast(device.type, enabled=False):
            yield
    finally:
        for kind, value in zip(kinds, before, strict=True):
            kind.fp32_precision = value


def _at_least_float32(x: Tensor) -> Tensor:
    return x if x.dtype == torch.float64 else x.float()


def _place(model: nn.Module) -> tuple[torch.dtype, torch.device]:
    """The type and device of the first floating-point weight or buffer; float32 on the CPU where there is none."""
    for state in (*model.parameters(), *model.buffers()):
        if state.is_floating_point():
            return state.dtype, state.device
    return torch.float32, torch.device("cpu")


def _pairs(model: nn.Module) -> list[tuple[nn.Conv2d, nn.BatchNorm2d]]:
    """The convolutions of `model` with the batch norm that alone reads each of them."""
    try:
        with torch.random.fork_rng(devices=[]):
            nodes = list(fx.Tracer().trace(model).nodes)
    except Exception:  # the model's own code meets a proxy, which may raise anything
        return []
    calls = Counter(node.target for node in nodes if node.op == "call_module")
    bare = {str(node.target).rpartition(".")[0] for node in nodes if node.op == "get_attr"}
    found = []
    for node in nodes:
        source = node.args[0] if node.args else None
        if not isinstance(source, fx.Node) or {node.op, source.op} != {"call_module"} or len(source.users) != 1:
            continue
        conv, norm = model.get_submodule(str(source.target)), model.get_submodule(str(node.target))
        if type(conv) is not nn.Conv2d or type(norm) is not nn.BatchNorm2d or norm.running_mean is None:
            continue
        alone = all(calls[part.target] == 1 and str(part.target) not in bare for part in (source, node))
        if alone and not _hooked(conv) and not _hooked(norm):
            found.append((conv, norm))
    return found


def _hooked(module: nn.Module) -> bool:
    return any((module._forward_hooks, module._forward_pre_hooks, module._backward_hooks, module._backward_pre_hooks))


def _absorb(conv: nn.Conv2d, norm: nn.BatchNorm2d) -> None:
    """Make `conv` do what `conv` then `norm` did."""
    assert norm.running_mean is not None
    assert norm.running_var is not None
    zero = torch.zeros_like(norm.running_mean, dtype=torch.float64)
    gamma = zero + 1.0 if norm.weight is None else norm.weight.double()
    beta = zero if norm.bias is None else norm.bias.double()
    bias = zero if conv.bias is None else conv.bias.double()
    scale = gamma / (norm.running_var.double() + norm.eps).sqrt()
    dtype = conv.weight.dtype
    shift = (bias - norm.running_mean.double()) * scale + beta
    conv.weight = nn.Parameter((conv.weight.double() * scale.reshape(-1, 1, 1, 1)).to(dtype), requires_grad=False)
    conv.bias = nn.Parameter(shift.to(dtype), requires_grad=False)
