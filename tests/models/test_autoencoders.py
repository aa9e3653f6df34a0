"""The networks of MID beyond their logits: what the decoder makes, at the sizes of each, and that all of an encoder learns."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from forearm.data.batches import Batch
from forearm.defenses.training.mid import Meta, mid
from forearm.errors import SpecError
from forearm.models.architectures import ARCHITECTURES
from forearm.models.autoencoder import Autoencoder, frozen, student_of
from forearm.models.blocks import channels_of
from forearm.registry import bind

NETS = {  # arch -> the side of its pictures, their channels, the features' shape
    "denoiser(width=8)": (32, 3, (16, 16, 16)),
    "lenet_autoencoder": (28, 1, (64, 7, 7)),
    "resnet_autoencoder(width=4, blocks=(1, 1, 1, 1))": (32, 3, (32, 4, 4)),
    "vit_autoencoder(width=16, depth=1, heads=2, patch=16)": (224, 3, (16, 14, 14)),
    "vit_autoencoder(width=16, depth=1, heads=2, patch=8, size=32, stem='conv')": (32, 3, (16, 4, 4)),
}


def network(arch: str, seed: int = 0) -> Autoencoder:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        built = bind(ARCHITECTURES, arch)(classes=3)
    assert isinstance(built, Autoencoder)
    return built


def pictures(side: int, channels: int, n: int = 2) -> Tensor:
    return torch.rand(n, channels, side, side, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("arch", NETS)
def test_pictures_come_back_in_their_shape(arch: str) -> None:
    side, channels, shape = NETS[arch]
    net, x = network(arch).eval(), pictures(side, channels)
    assert channels_of(net) == channels
    with torch.no_grad():
        code, made = net.encoder(x), net.regenerate(x)
        assert tuple(code.features.shape[1:]) == shape
        assert made.shape == x.shape
        assert float(made.min()) >= 0.0
        assert float(made.max()) <= 1.0
        torch.testing.assert_close(net(x), net.head(code.features))


@pytest.mark.parametrize("arch", NETS)
def test_a_step_of_mid_reaches_all_of_the_encoder(arch: str) -> None:
    """With the second-order meta-gradient; attention and the transformer's norms are differentiated twice."""
    side, channels, _ = NETS[arch]
    teacher, student = network(arch), network(arch, 1)
    frozen(teacher)
    student_of(teacher, student)
    x = pictures(side, channels)
    batch = Batch(x, torch.tensor([0, 2]), torch.arange(2))

    def members(model: nn.Module, given: Batch, key: int = 0) -> Tensor:
        return torch.stack([given.x, (given.x + 0.1).clamp(0, 1), 1.0 - given.x])

    mid(teacher, members, Meta())(student, batch)["loss"].backward()  # type: ignore[no-untyped-call]
    assert [name for name, p in student.encoder.named_parameters() if p.grad is None or not bool(p.grad.isfinite().all())] == []
    weights = [p for p in student.encoder.parameters() if p.ndim > 1]
    assert all(p.grad is not None and float(p.grad.abs().sum()) > 0 for p in weights)


def test_the_body_of_the_large_one_is_that_of_a_vit_b_32() -> None:
    """timm's vit_base_patch32_224 has 88,224,232 parameters; less its head of a thousand classes, its class token and that token's position."""
    with torch.device("meta"):
        encoder = bind(ARCHITECTURES, "vit_autoencoder")().encoder
    assert sum(p.numel() for p in encoder.parameters()) == 88_224_232 - 769_000 - 2 * 768


@pytest.mark.parametrize("patch", [1, 12])
def test_other_patches_are_refused(patch: int) -> None:
    with torch.device("meta"), pytest.raises(SpecError, match="got patch="):
        bind(ARCHITECTURES, f"vit_autoencoder(patch={patch}, size=224)")()
