"""timm's networks, against a stand-in module of the same few names."""

from __future__ import annotations

import sys
from types import SimpleNamespace

import pytest
import torch
from torch import nn

from forearm.errors import ArtifactError, SpecError
from forearm.models.load import load_model


class Flat(nn.Module):
    """The mean of each channel, as logits."""

    pretrained_cfg = {"url": "there", "num_classes": 3, "input_size": (3, 48, 48), "mean": (0.5, 0.4, 0.3), "std": (0.1, 0.2, 0.5)}  # noqa: RUF012

    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.ones(3))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x.mean((2, 3)) * self.scale


def create_model(name: str, pretrained: bool) -> nn.Module:
    assert pretrained
    if name == "bare":
        raise RuntimeError("No pretrained weights exist\nfor bare")
    network = Flat()
    if name == "random":
        network.pretrained_cfg = {"num_classes": 3}
    return network


@pytest.fixture(autouse=True)
def timm(monkeypatch: pytest.MonkeyPatch) -> None:
    stand_in = SimpleNamespace(is_model=lambda name: name in ("flat", "bare", "random"), create_model=create_model)
    monkeypatch.setitem(sys.modules, "timm", stand_in)


def test_a_network_normalises_inside() -> None:
    model = load_model("timm:flat")
    logits = model(torch.full((1, 3, 48, 48), 0.5))
    torch.testing.assert_close(logits, torch.tensor([[0.0, 0.5, 0.4]]))
    assert (model.size, model.classes) == (48, ("0", "1", "2"))
    assert not any(p.requires_grad for p in model.parameters())


def test_the_sum_is_over_the_weights() -> None:
    sha256 = load_model("timm:flat").card.sha256
    load_model("timm:flat", sha256=sha256)
    with pytest.raises(ArtifactError, match="expected"):
        load_model("timm:flat", sha256="0" * 64)


def test_what_is_not_there() -> None:
    with pytest.raises(SpecError, match="no such network"):
        load_model("timm:other")
    with pytest.raises(ArtifactError, match="no pretrained weights") as caught:
        load_model("timm:bare")
    assert "\n" not in str(caught.value)
    with pytest.raises(ArtifactError, match="names no pretrained weights"):
        load_model("timm:random")


def test_without_timm(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "timm", None)
    with pytest.raises(ArtifactError, match=r"pip install 'forearm\[zoo\]'"):
        load_model("timm:flat")
