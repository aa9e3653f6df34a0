"""Picture quality against scikit-image and against slow float64 references."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from forearm.core import lpips as squeeze
from forearm.core import quality
from forearm.core.quality import lpips, mse, psnr, ssim
from forearm.data.sets import root
from forearm.errors import ArtifactError

WEIGHTS = root() / "lpips_squeeze"
needs_weights = pytest.mark.skipif(not (WEIGHTS / squeeze.TRUNK).is_file(), reason=f"no LPIPS weights at {WEIGHTS}")


def pair(n: int, c: int, h: int, w: int, noise: float = 0.05) -> tuple[Tensor, Tensor]:
    """Smooth pictures, and the same with noise that grows from one example to the next."""
    generator = torch.Generator().manual_seed(h * 1000 + w)
    coarse = torch.rand(n, c, max(h // 4, 1), max(w // 4, 1), generator=generator)
    a = F.interpolate(coarse, (h, w), mode="bilinear")
    amount = noise * torch.arange(1, n + 1).reshape(-1, 1, 1, 1)
    return a, (a + amount * torch.randn(a.shape, generator=generator)).clamp(0.0, 1.0)


def slow_ssim(a: Tensor, b: Tensor) -> float:
    """Wang et al. 2004 for one channel `h w`: a loop over the places of the window, in float64."""
    down, across = (min(11, size if size % 2 else size - 1) for size in a.shape)
    row = [math.exp(-((i - down // 2) ** 2) / (2 * 1.5**2)) for i in range(down)]
    column = [math.exp(-((i - across // 2) ** 2) / (2 * 1.5**2)) for i in range(across)]
    window = torch.outer(torch.tensor(row, dtype=torch.float64), torch.tensor(column, dtype=torch.float64))
    window = window / window.sum()
    values = []
    for top in range(a.shape[0] - down + 1):
        for left in range(a.shape[1] - across + 1):
            p = a[top : top + down, left : left + across].double()
            q = b[top : top + down, left : left + across].double()
            mean_p, mean_q = (window * p).sum(), (window * q).sum()
            var_p, var_q = (window * (p - mean_p) ** 2).sum(), (window * (q - mean_q) ** 2).sum()
            both = (window * (p - mean_p) * (q - mean_q)).sum()
            light = (2 * mean_p * mean_q + 1e-4) / (mean_p**2 + mean_q**2 + 1e-4)
            values.append(float(light * (2 * both + 9e-4) / (var_p + var_q + 9e-4)))
    return sum(values) / len(values)


def test_mse_and_psnr_by_hand() -> None:
    a, b = torch.zeros(2, 1, 2, 2), torch.zeros(2, 1, 2, 2)
    b[0, 0, 0, 0] = 0.2
    assert mse(a, b).tolist() == pytest.approx([0.01, 0.0])
    assert psnr(a, b).tolist() == pytest.approx([20.0, math.inf])


def test_psnr_is_that_of_scikit_image() -> None:
    metrics = pytest.importorskip("skimage.metrics")
    a, b = pair(3, 3, 40, 30)
    expected = [metrics.peak_signal_noise_ratio(p.numpy(), q.numpy(), data_range=1) for p, q in zip(a, b, strict=True)]
    assert psnr(a, b).tolist() == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize(("c", "h", "w"), [(3, 32, 32), (1, 11, 11), (3, 47, 19), (3, 12, 90)])
def test_ssim_is_that_of_scikit_image(c: int, h: int, w: int) -> None:
    metrics = pytest.importorskip("skimage.metrics")
    a, b = pair(3, c, h, w)
    expected = [
        metrics.structural_similarity(
            p.numpy().astype(np.float64), q.numpy().astype(np.float64), gaussian_weights=True, sigma=1.5,
            use_sample_covariance=False, data_range=1, channel_axis=0,
        )
        for p, q in zip(a, b, strict=True)
    ]  # fmt: skip
    found = ssim(a, b)
    assert found.shape == (3,)
    assert found.tolist() == pytest.approx(expected, abs=2e-6)
    assert max(expected) - min(expected) > 0.02


@pytest.mark.parametrize(("h", "w"), [(14, 13), (11, 12), (10, 15), (5, 14), (4, 4), (3, 1), (1, 1), (2, 2)])
def test_ssim_is_that_of_the_slow_reference_at_any_size(h: int, w: int) -> None:
    a, b = pair(2, 3, h, w, noise=0.1)
    expected = [sum(slow_ssim(p[k], q[k]) for k in range(3)) / 3 for p, q in zip(a, b, strict=True)]
    assert ssim(a, b).tolist() == pytest.approx(expected, abs=1e-5)


def test_ssim_of_equal_pictures_is_one_and_falls_with_noise() -> None:
    a, b = pair(4, 3, 24, 24)
    assert ssim(a, a).tolist() == pytest.approx([1.0] * 4, abs=1e-6)
    found = ssim(a, b)
    assert bool((found[1:] < found[:-1]).all())
    torch.testing.assert_close(ssim(b, a), found)
    assert float(ssim(a, 1 - a)[0]) < 0.5


def test_strips_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    a, b = pair(2, 3, 75, 20)
    whole = ssim(a, b), mse(a, b)
    monkeypatch.setattr(quality, "_STRIP", 1)
    seen = [(s.start, s.stop) for s in quality._strips(a, 10)]
    assert seen == [(0, 26), (16, 42), (32, 58), (48, 74), (64, 75)]
    torch.testing.assert_close((ssim(a, b), mse(a, b)), whole, rtol=0, atol=1e-9)


def test_a_strip_is_bounded_for_a_large_photo() -> None:
    photo = torch.zeros(1, 1, 1, 1).expand(1, 3, 3000, 4000)
    rows = [s.stop - s.start for s in quality._strips(photo, 10)]
    assert max(rows) * 3 * 4000 <= 1.1 * quality._STRIP
    assert sum(r - 10 for r in rows) == 3000 - 10


@pytest.mark.parametrize("measure", [mse, psnr, ssim])
def test_neighbours_do_not_matter(measure: object) -> None:
    a, b = pair(3, 3, 20, 24)
    together = measure(a, b)  # type: ignore[operator]
    alone = torch.cat([measure(a[i : i + 1], b[i : i + 1]) for i in range(3)])  # type: ignore[operator]
    torch.testing.assert_close(together, alone, rtol=0, atol=1e-9)
    assert together.dtype == torch.float64


@needs_weights
def test_lpips_has_its_published_check_value() -> None:
    """Uniform pictures of seed 123 in [-1, 1], ten pairs: 0.1008 on average."""
    generator = torch.Generator().manual_seed(123)
    a, b = (torch.rand(10, 3, 100, 100, generator=generator) for _ in range(2))
    found = lpips(a, b, WEIGHTS)
    assert found.shape == (10,)
    assert float(found.mean()) == pytest.approx(0.1008, abs=5e-5)


@needs_weights
def test_lpips_is_zero_for_equal_pictures_symmetric_and_rises_with_noise() -> None:
    net = squeeze.load(WEIGHTS)
    a, b = pair(4, 3, 48, 40)
    assert net(a, a).tolist() == [0.0] * 4
    torch.testing.assert_close(net(a, b), net(b, a))
    assert bool((net(a, b).diff() > 0).all())
    torch.testing.assert_close(net(a, b)[2:3], net(a[2:3], b[2:3]), rtol=1e-4, atol=1e-6)
    assert [f.shape[1] for f in net.layers(a)] == [64, 128, 256, 384, 384, 512, 512]


@needs_weights
def test_lpips_takes_pictures_of_17_pixels() -> None:
    a, b = pair(1, 3, 17, 17)
    assert 0.0 < float(squeeze.load(WEIGHTS)(a, b)) < 10.0


def test_lpips_without_its_weights_says_what_to_give(tmp_path: Path) -> None:
    with pytest.raises(ArtifactError, match=r"squeeze\.backbone\.pth: cannot be read .*; a folder with"):
        squeeze.load(tmp_path)
    (tmp_path / squeeze.TRUNK).write_bytes(b"not weights")
    with pytest.raises(ArtifactError, match="cannot be read"):
        squeeze.load(tmp_path)
    torch.save({"0.weight": torch.zeros(64, 3, 3, 3)}, tmp_path / squeeze.TRUNK)
    torch.save({f"lin{i}.model.1.weight": torch.zeros(1, 4, 1, 1) for i in range(7)}, tmp_path / squeeze.HEADS)
    with pytest.raises(ArtifactError, match=r"no '0\.bias' in it"):
        squeeze.load(tmp_path)
    torch.save([1, 2], tmp_path / squeeze.TRUNK)
    with pytest.raises(ArtifactError, match="holds list"):
        squeeze.load(tmp_path)
