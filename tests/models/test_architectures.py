"""Every architecture: published sizes, the shapes it takes, gradients, and independence of the examples in a batch."""

from __future__ import annotations

import inspect

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from forearm.errors import SpecError
from forearm.models.architectures import ARCHITECTURES
from forearm.models.blocks import SameConv2d, same_conv
from forearm.models.foreign import FOREIGN
from forearm.models.robustbench import ROBUSTBENCH
from forearm.registry import bind, resolve
from tests.models.tiny import randomised

SMALL = [
    "cnn_a",
    "convnext(width=8, depths=(1, 1), scale=0.5)",
    "convnext_cifar(width=8, depths=(1, 1))",
    "denoiser(width=4)",
    "instant(width=4)",
    "lenet(channels=3, side=32)",
    "lenet_autoencoder(channels=3, side=32)",
    "mobilenet_v2(classes=20)",
    "mobilenet_v2(classes=3, among=(5, 0, 19), outputs=20)",
    "preact_resnet(width=4, blocks=(1, 1))",
    "preact_resnet(width=4, blocks=(1, 1), shortcut='raw', last_norm=False)",
    "preact_resnet(width=4, blocks=(1, 1), shortcut='raw3', same=True, act='silu')",
    "resnet(width=4, blocks=(1, 1))",
    "resnet(width=4, blocks=(2, 1), block='bottleneck', act='silu')",
    "resnet(width=4, blocks=(1, 1, 1), shortcut='zero')",
    "resnet2b",
    "resnet9(width=4)",
    "resnet_autoencoder(width=4, blocks=(1, 1, 1, 1))",
    "resnext(width=8, base_width=16, blocks=(1, 1))",
    "vit_autoencoder(width=16, depth=1, heads=2, patch=8, size=32)",
    "vit(width=16, depth=2, heads=4)",
    "vit(width=16, depth=1, heads=2, patch=8, stem='patch', pool='token')",
    "wide_resnet(depth=10, widen=1)",
    "wide_resnet(depth=10, widen=2, same=True, act='silu')",
]


def parameters(arch: str) -> int:
    with torch.device("meta"):
        return sum(p.numel() for p in bind(ARCHITECTURES, arch)().parameters())


@pytest.mark.parametrize(
    ("arch", "count"),
    [
        ("preact_resnet(shortcut='raw', last_norm=False)", 11_171_146),
        ("preact_resnet", 11_172_170),
        ("resnet", 11_173_962),
        ("resnet(blocks=(3, 4, 6, 3), block='bottleneck')", 23_520_842),
        ("resnet(width=16, blocks=(3, 3, 3), shortcut='zero')", 269_722),
        ("wide_resnet", 36_479_194),
        ("wide_resnet(depth=34)", 46_160_474),
        ("resnet2b", 112_006),
        ("lenet", 648_226),
    ],
)
def test_published_parameter_counts(arch: str, count: int) -> None:
    assert parameters(arch) == count


def test_every_table_entry_is_tried_here() -> None:
    assert {arch.partition("(")[0] for arch in SMALL} == set(ARCHITECTURES)
    for name in ARCHITECTURES:
        assert "classes" in inspect.signature(resolve(ARCHITECTURES, name)).parameters


@pytest.mark.parametrize("arch", SMALL)
def test_logits_gradients_and_independence(arch: str) -> None:
    torch.manual_seed(0)
    model = randomised(bind(ARCHITECTURES, arch)()).double()
    x = torch.rand(3, 3, 32, 32, dtype=torch.float64, requires_grad=True)
    logits = model(x)
    (gradient,) = torch.autograd.grad(logits.square().sum(), x)
    assert logits.ndim == 2
    assert bool(logits.isfinite().all())
    assert bool((gradient.flatten(1).abs().sum(1) > 0).all())
    torch.testing.assert_close(model(x[1:2]), logits[1:2], rtol=1e-7, atol=1e-7)
    assert not torch.allclose(logits[:1], logits[1:2], rtol=1e-3)


@pytest.mark.parametrize(("arch", "classes"), sorted({(s.arch, len(s.classes)) for s in (*FOREIGN.values(), *ROBUSTBENCH.values())}))
def test_every_public_architecture_can_be_built(arch: str, classes: int) -> None:
    with torch.device("meta"):
        model = bind(ARCHITECTURES, arch)(classes=classes)
        assert model(torch.zeros(2, 3, 32, 32)).shape == (2, classes)


@pytest.mark.parametrize(
    "arch",
    [
        "lenet(side=30)",
        "preact_resnet(shortcut='other')",
        "resnet(block='other')",
        "resnet(shortcut='other')",
        "resnet(stem='other')",
        "resnet(act='other')",
        "resnext(width=8, base_width=3)",
        "wide_resnet(depth=12)",
        "mobilenet_v2(classes=2, among=(1, 2, 3))",
        "mobilenet_v2(classes=1, among=(1000,))",
    ],
)
def test_wrong_options_are_refused(arch: str) -> None:
    with torch.device("meta"), pytest.raises(SpecError, match="got"):
        bind(ARCHITECTURES, arch)()


@pytest.mark.parametrize("size", [7, 8, 9, 12])
@pytest.mark.parametrize("kernel", [1, 2, 3, 5])
@pytest.mark.parametrize("stride", [1, 2, 3])
def test_same_padding_against_windows_counted_one_by_one(size: int, kernel: int, stride: int) -> None:
    """TensorFlow's rule: ceil(size / stride) windows; the padding they need, halved, the larger half at the end."""
    torch.manual_seed(0)
    conv = SameConv2d(2, 3, kernel, stride).double()
    x = torch.rand(1, 2, size, size, dtype=torch.float64)
    count = -(-size // stride)
    start = -(max((count - 1) * stride + kernel - size, 0) // 2)
    expected = torch.zeros(1, 3, count, count, dtype=torch.float64)
    for i in range(count):
        for j in range(count):
            window = torch.zeros(2, kernel, kernel, dtype=torch.float64)
            for a in range(kernel):
                for b in range(kernel):
                    row, column = start + i * stride + a, start + j * stride + b
                    if 0 <= row < size and 0 <= column < size:
                        window[:, a, b] = x[0, :, row, column]
            expected[0, :, i, j] = (conv.weight * window).sum((1, 2, 3)) + conv.bias
    torch.testing.assert_close(conv(x), expected)
    if kernel % 2:
        plain = same_conv(2, 3, kernel, stride).double()
        plain.load_state_dict(conv.state_dict())
        torch.testing.assert_close(plain(x), expected)


def test_option_a_shortcut() -> None:
    """Every second pixel, the old channels in the middle of the new ones."""
    model = bind(ARCHITECTURES, "resnet(width=4, blocks=(1, 1), shortcut='zero')")()
    part = model.get_submodule("layer2.0.shortcut")
    x = torch.rand(2, 4, 6, 6)
    out: Tensor = part(x)
    assert out.shape == (2, 8, 3, 3)
    assert torch.equal(out[:, 2:6], F.interpolate(x, scale_factor=0.5, mode="nearest"))
    assert not out[:, :2].any()
    assert not out[:, 6:].any()


def test_groups_of_resnext() -> None:
    """ResNeXt-29, 4 x 32d: four groups of 32, 64 and 128 channels, three times as many bottlenecks as stages."""
    with torch.device("meta"):
        model = bind(ARCHITECTURES, "resnext")()
    grouped = [m for m in model.modules() if isinstance(m, nn.Conv2d) and m.groups > 1]
    assert [(m.groups, m.out_channels) for m in grouped] == [(4, 128)] * 3 + [(4, 256)] * 3 + [(4, 512)] * 3
    assert sum(isinstance(m, nn.Conv2d) and m.stride == (2, 2) for m in grouped) == 2
