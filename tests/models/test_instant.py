"""The network of the instant release: its sizes, what it depends on, and how it is loaded."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from forearm.core.noise import Noise
from forearm.errors import SpecError
from forearm.models.instant import Direction, Instant, instant, load_writer
from forearm.models.load import load_model
from tests.models.tiny import randomised, write_model

ARCH = "instant(width=4)"
EPS = 8.0 / 255.0


def net() -> Instant:
    made = randomised(instant(width=4))
    assert isinstance(made, Instant)
    return made


def pictures(*shape: int) -> Tensor:
    return Noise.of(shape[0], seed=1).uniform(torch.empty(shape))


@pytest.mark.parametrize("shape", [(2, 3, 32, 32), (1, 3, 33, 41), (1, 3, 8, 8), (1, 3, 1, 1), (1, 3, 5, 64)])
def test_any_size(shape: tuple[int, ...]) -> None:
    with torch.no_grad():
        u = net().direction(pictures(*shape), torch.zeros(shape[0], dtype=torch.int64), EPS)
    assert u.shape == shape
    assert float(u.abs().max()) <= 1.0
    assert float(u.abs().mean()) > 0.01


def test_the_embedded_size() -> None:
    parameters = sum(p.numel() for p in instant().parameters())
    assert 2 * parameters < 1.5e6  # bytes in fp16


def test_class_and_budget_change_the_answer() -> None:
    x, made = pictures(1, 3, 32, 32), net()
    with torch.no_grad():
        answers = [made.direction(x, torch.tensor([y]), eps) for y, eps in ((0, EPS), (1, EPS), (0, EPS / 4))]
        own = made.direction(x, None, EPS)
        told = made.direction(x, made(x).argmax(1), EPS)
    assert float((answers[0] - answers[1]).abs().max()) > 1e-3
    assert float((answers[0] - answers[2]).abs().max()) > 1e-3
    assert torch.equal(own, told)


def test_an_example_does_not_see_its_batch() -> None:
    x, y, made = pictures(3, 3, 32, 32), torch.tensor([0, 4, 9]), net().double()
    with torch.no_grad():
        together = made.direction(x.double(), y, EPS)
        alone = made.direction(x[1:2].double(), y[1:2], EPS)
    torch.testing.assert_close(together[1:2], alone, rtol=0, atol=1e-12)


def test_a_loaded_writer_is_folded_and_says_the_same(tmp_path: Path) -> None:
    write_model(tmp_path / "net", arch=ARCH, threat=None)
    writer, model = load_writer(str(tmp_path / "net")), load_model(tmp_path / "net")
    assert not any(isinstance(m, nn.BatchNorm2d) for m in writer.network.modules())
    assert any(isinstance(m, nn.BatchNorm2d) for m in model.modules())
    assert writer.side == model.size
    assert isinstance(model.network, Instant)
    x, y = pictures(2, 3, 32, 32), torch.tensor([3, 5])
    with torch.no_grad():
        torch.testing.assert_close(writer(x, y, EPS), Direction(model.network)(x, y, EPS), rtol=0, atol=1e-4)
        torch.testing.assert_close(writer(x, None, EPS), model.network.direction(x, None, EPS), rtol=0, atol=1e-4)
    assert not writer(x, y, EPS).requires_grad


def test_a_classifier_writes_nothing(tmp_path: Path) -> None:
    write_model(tmp_path / "net")
    with pytest.raises(SpecError, match="writes no change"):
        load_writer(str(tmp_path / "net"))
