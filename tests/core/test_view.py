"""The view: the library's antialiased resize, its gradient at the picture's own size, and sizes."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from forearm.core.gradients import input_gradient
from forearm.core.view import View, resize, view_size


def mean_logits(x: Tensor) -> Tensor:
    return torch.stack([x.mean((1, 2, 3)), -x.mean((1, 2, 3))], 1)


@pytest.mark.parametrize(("inner", "outer"), [((60, 80), (32, 43)), ((20, 31), (40, 62)), ((32, 32), (32, 32))])
def test_resize_is_pillows_bilinear(inner: tuple[int, int], outer: tuple[int, int]) -> None:
    x = np.random.default_rng(0).random(inner, dtype=np.float32)
    want = np.asarray(Image.fromarray(x).resize((outer[1], outer[0]), Image.Resampling.BILINEAR))
    assert np.abs(resize(torch.from_numpy(x)[None, None], outer)[0, 0].numpy() - want).max() < 1e-5


@pytest.mark.parametrize(
    ("height", "width", "want"),
    [
        (128, 128, (128, 128)),
        (3000, 4000, (128, 171)),
        (4000, 3000, (171, 128)),
        (50, 70, (128, 179)),
        (100, 5000, (128, 512)),
        (1, 1, (128, 128)),
    ],
)
def test_the_shorter_edge_becomes_the_side(height: int, width: int, want: tuple[int, int]) -> None:
    assert view_size(height, width, 128) == want


def test_the_gradient_reaches_every_pixel_of_the_picture() -> None:
    view = View.of(mean_logits, 300, 200, 32)
    gradient, _ = input_gradient(view, torch.rand(1, 3, 300, 200), torch.tensor([0]))
    assert gradient.shape == (1, 3, 300, 200)
    assert bool((gradient < 0).all())


def test_the_gradient_is_that_of_finite_differences() -> None:
    torch.manual_seed(0)
    weight = torch.randn(2, 3 * 8 * 8, dtype=torch.float64)
    view = View(lambda x: x.flatten(1) @ weight.T, (8, 8))
    x, y = torch.rand(1, 3, 20, 14, dtype=torch.float64), torch.tensor([1])
    gradient, _ = input_gradient(view, x, y)
    direction = torch.randn_like(x)
    loss = [torch.nn.functional.cross_entropy(view(x + t * direction), y) for t in (1e-6, -1e-6)]
    assert float((loss[0] - loss[1]) / 2e-6) == pytest.approx(float((gradient * direction).sum()), rel=1e-5)


def test_grey_is_seen_as_rgb() -> None:
    view = View.of(mean_logits, 40, 40, 32)
    seen = view.see(torch.rand(2, 1, 40, 40))
    assert seen.shape == (2, 3, 32, 32)
    assert torch.equal(seen[:, 0], seen[:, 2])
