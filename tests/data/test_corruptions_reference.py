"""Each operation that is arithmetic against a second implementation: slow loops in float64, or Pillow's own."""

from __future__ import annotations

import colorsys
import math
from collections.abc import Callable

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image, ImageFilter
from torch import Tensor

from forearm.core import channel
from forearm.core.noise import Noise
from forearm.data.corruptions import blur, colour, digital, fields, geometry, noise, weather
from forearm.data.corruptions.blur import disk
from forearm.data.corruptions.noise import poisson

Array = NDArray[np.float64]
SIDE = 12


def pictures(n: int = 2, channels: int = 3, height: int = SIDE, width: int = SIDE + 3) -> Tensor:
    return torch.rand(n, channels, height, width, generator=torch.Generator().manual_seed(1), dtype=torch.float64)


def clipped(values: Array) -> Tensor:
    return torch.from_numpy(values.clip(0.0, 1.0))


def agrees(made: Tensor, wanted: Tensor) -> None:
    assert torch.allclose(made, wanted, rtol=0, atol=1e-9), float((made - wanted).abs().max())


def at_border(a: Array, row: int, column: int) -> Array:
    return a[:, min(max(row, 0), a.shape[1] - 1), min(max(column, 0), a.shape[2] - 1)]


def bilinear(a: Array, row: float, column: float, *, zeros: bool = False) -> Array:
    """`a` (`c h w`) at a real place; outside: its border, or 0."""
    h, w = a.shape[1:]
    if not zeros:
        row, column = min(max(row, 0.0), h - 1.0), min(max(column, 0.0), w - 1.0)
    top, left = math.floor(row), math.floor(column)
    total = np.zeros(len(a))
    for i, j in ((0, 0), (0, 1), (1, 0), (1, 1)):
        weight = (1 - abs(row - top - i)) * (1 - abs(column - left - j))
        if weight and 0 <= top + i < h and 0 <= left + j < w:
            total += weight * a[:, top + i, left + j]
    return total


def per_pixel(x: Tensor, at: Callable[[Array, int, int, int], Array]) -> Tensor:
    """`at(picture, its number, row, column)` at every place."""
    made = np.zeros(x.shape)
    for i, a in enumerate(x.numpy()):
        for row in range(a.shape[1]):
            for column in range(a.shape[2]):
                made[i, :, row, column] = at(a, i, row, column)
    return clipped(made)


# noise


def test_noise_of_values() -> None:
    x = pictures()
    z = Noise.of(2).normal(x).numpy()
    agrees(noise.gaussian_noise(x, noise=Noise.of(2), severity=2), clipped(x.numpy() + 0.06 * z))
    agrees(noise.speckle_noise(x, noise=Noise.of(2), severity=4), clipped(x.numpy() * (1 + 0.16 * z)))


def test_shares_of_pixels_and_of_values() -> None:
    x = 0.25 + 0.5 * pictures(40, 3, 32, 32)
    for severity, share in enumerate((0.0025, 0.005, 0.01, 0.02, 0.04), start=1):
        for corrupt in (noise.pepper_salt, noise.colour_points):
            made = corrupt(x, noise=Noise.of(40), severity=severity)
            hit = (made != x).all(1)
            assert torch.equal(hit, (made != x).any(1))
            assert float(hit.double().mean()) == pytest.approx(share, rel=0.2)
    black, white = (float((noise.pepper_salt(x, noise=Noise.of(40)) == end).double().mean()) for end in (0.0, 1.0))
    assert black == pytest.approx(0.005, rel=0.25)
    assert white == pytest.approx(0.005, rel=0.25)
    points = noise.colour_points(x, noise=Noise.of(40), severity=5)
    pure = (points == 1.0).sum(1) * ((points == 0.0).sum(1) == 2)
    assert float(pure.double().mean()) == pytest.approx(0.03, rel=0.1)  # the fourth kind is of any colour
    for channel_ in range(3):
        assert float((pure * (points[:, channel_] == 1.0)).double().mean()) == pytest.approx(0.01, rel=0.2)
    for severity, share in enumerate((0.01, 0.02, 0.03, 0.05, 0.07), start=1):
        made = noise.impulse_noise(x, noise=Noise.of(40), severity=severity)
        assert float((made == 0.0).double().mean()) == pytest.approx(share / 2, rel=0.1)
        assert float((made == 1.0).double().mean()) == pytest.approx(share / 2, rel=0.1)
        assert bool(((made == x) | (made == 0.0) | (made == 1.0)).all())


def quantile(mean: float, level: float) -> int:
    """The least k with P(X <= k) >= level, X Poisson of this mean, summed up from 0."""
    k, chance = 0, math.exp(-mean)
    total = chance
    while total < level and k < 5000:
        k += 1
        chance *= mean / k
        total += chance
    return k


def test_counts_are_poissons() -> None:
    generator = torch.Generator().manual_seed(0)
    mean = torch.cat([torch.logspace(-3, 2.7, 400, dtype=torch.float64), torch.zeros(5, dtype=torch.float64)])
    z = torch.randn(len(mean), generator=generator, dtype=torch.float64)
    level = (0.5 * torch.erfc(-z / 2**0.5)).tolist()
    wanted = [quantile(m, u) for m, u in zip(mean.tolist(), level, strict=True)]
    assert poisson(mean, z).tolist() == wanted


def test_counts_are_poissons_in_the_tails() -> None:
    for mean in (0.05, 0.7, 3.0, 11.0, 60.0):
        z = torch.tensor([-5.0, -4.0, -3.0, 3.0, 4.0, 5.0], dtype=torch.float64)
        level = (0.5 * torch.erfc(-z / 2**0.5)).tolist()
        assert poisson(torch.full_like(z, mean), z).tolist() == [quantile(mean, u) for u in level]


def test_shot_noise_counts_photons() -> None:
    x = pictures()
    counts = poisson(50.0 * x, Noise.of(2).normal(x))
    agrees(noise.shot_noise(x, noise=Noise.of(2), severity=5), (counts / 50.0).clamp_max(1.0))
    flat = torch.full((20, 3, 32, 32), 0.4, dtype=torch.float64)
    made = noise.shot_noise(flat, noise=Noise.of(20), severity=5)
    assert float(made.mean()) == pytest.approx(0.4, abs=0.002)
    assert float(made.var()) == pytest.approx(0.4 / 50, rel=0.03)


# colours


def through_hsv(x: Tensor, change: Callable[[float, float, float], tuple[float, float, float]]) -> Tensor:
    return per_pixel(x, lambda a, _, row, column: np.array(colorsys.hsv_to_rgb(*change(*colorsys.rgb_to_hsv(*a[:, row, column].tolist())))))


def test_colours_against_hsv() -> None:
    x = pictures()
    x[0, :, 0, 0] = 0.0
    agrees(colour.brightness(x, noise=Noise.of(2), severity=4), through_hsv(x, lambda h, s, v: (h, s, min(1.0, v + 0.2))))
    x = pictures()
    for severity, (times, more) in enumerate(((0.3, 0.0), (0.1, 0.0), (1.5, 0.0), (2.0, 0.1), (2.5, 0.2)), start=1):

        def deeper(h: float, s: float, v: float, a: float = times, b: float = more) -> tuple[float, float, float]:
            return h, min(1.0, a * s + b), v

        agrees(colour.saturate(x, noise=Noise.of(2), severity=severity), through_hsv(x, deeper))
    grey = x[:, :1].expand(-1, 3, -1, -1)
    agrees(colour.saturate(grey, noise=Noise.of(2), severity=5), grey)


def test_contrast_and_order() -> None:
    x = pictures()
    a = x.numpy()
    mean = a.mean((2, 3), keepdims=True)
    agrees(colour.contrast(x, noise=Noise.of(2), severity=3), clipped((a - mean) * 0.4 + mean))
    made = colour.rgb_shuffle(pictures(200), noise=Noise.of(200))
    orders = {
        tuple(next(j for j in range(3) if torch.equal(m[i], p[j])) for i in range(3)) for m, p in zip(made, pictures(200), strict=True)
    }
    assert orders == {(0, 2, 1), (1, 0, 2), (1, 2, 0), (2, 0, 1), (2, 1, 0)}


# blurs


def under(x: Tensor, kernel: Array) -> Tensor:
    reach = len(kernel) // 2
    places = [(i, j) for i in range(-reach, reach + 1) for j in range(-reach, reach + 1)]

    def at(a: Array, _: int, row: int, column: int) -> Array:
        return sum((kernel[i + reach, j + reach] * at_border(a, row + i, column + j) for i, j in places), np.zeros(len(a)))

    return per_pixel(x, at)


def test_rings_are_pillows() -> None:
    x = (pictures(1, 3, 224, 224) * 255).round() / 255
    file = Image.fromarray((x[0] * 255).byte().permute(1, 2, 0).numpy()).filter(ImageFilter.BLUR)
    wanted = torch.from_numpy(np.array(file)).permute(2, 0, 1) / 255
    made = blur.blur(x, noise=Noise.of(1), severity=5)[0]
    assert float((made - wanted)[:, 2:-2, 2:-2].abs().max()) < 1 / 255
    half = blur.blur(x, noise=Noise.of(1), severity=2)[0]
    agrees(half, x[0] + 0.4 * (made - x[0]))


@pytest.mark.parametrize(("radius", "sigma"), [(0.5, 0.6), (1.5, 0.1), (3.0, 0.5), (10.0, 0.5)])
def test_disks(radius: float, sigma: float) -> None:
    """A disk of whole pixels under a Gaussian of 3 x 3, or of 5 x 5 beyond 8 pixels, point by point."""
    soft = 2 if radius > 8 else 1
    near = [math.exp(-0.5 * (i / sigma) ** 2) for i in range(-soft, soft + 1)]
    reach = math.ceil(radius) + soft
    kernel = np.zeros((2 * reach + 1, 2 * reach + 1))
    for i in range(-reach, reach + 1):
        for j in range(-reach, reach + 1):
            for a in range(-soft, soft + 1):
                for b in range(-soft, soft + 1):
                    inside = (i + a) ** 2 + (j + b) ** 2 <= radius**2
                    kernel[i + reach, j + reach] += inside * near[a + soft] * near[b + soft]
    agrees(disk(radius, sigma), torch.from_numpy(kernel / kernel.sum()))


def test_defocus_is_its_disk_and_gaussian_blur_the_channels() -> None:
    x = pictures(1, 3, 32, 33)
    agrees(blur.defocus_blur(x, noise=Noise.of(1), severity=5), under(x, disk(1.5, 0.1).numpy()))
    agrees(blur.gaussian_blur(x, noise=Noise.of(1), severity=5), channel.gaussian(x, noise=Noise.of(1), sigma=1.0))


def test_motion_reads_along_a_line() -> None:
    x, angle = pictures(), torch.tensor([30.0, -77.0], dtype=torch.float64)
    weights = [math.exp(-0.5 * (i / 2.0) ** 2) for i in range(2 * 4 + 1)]

    def at(a: Array, number: int, row: int, column: int) -> Array:
        turn = math.radians(float(angle[number]))
        total = np.zeros(len(a))
        for i, weight in enumerate(weights):
            down, across = math.ceil(i * math.sin(turn) - 0.5), math.ceil(i * math.cos(turn) - 0.5)
            total += weight / sum(weights) * at_border(a, row + down, column + across)
        return total

    agrees(fields.dragged(x, angle, 3.5, 2.0), per_pixel(x, at))


def test_zoom_is_a_mean_over_factors() -> None:
    x = pictures(1, 3, 32, 36)
    factors = [1.0 + 0.01 * i for i in range(11)]

    def at(a: Array, _: int, row: int, column: int) -> Array:
        middle, centre = 15.5, 17.5
        larger = [bilinear(a, (row - middle) / f + middle, (column - centre) / f + centre) for f in factors]
        return (a[:, row, column] + sum(larger)) / 12

    agrees(blur.zoom_blur(x, noise=Noise.of(1), severity=2), per_pixel(x, at))


def test_glass_reads_nearby() -> None:
    """Without its blurs, each pixel is one of the nine around it, and every one of the nine is taken."""
    place = torch.arange(32 * 32, dtype=torch.float64).reshape(1, 1, 32, 32) / 1024
    made = blur.glass_blur(place, noise=Noise.of(1), severity=1) * 1024
    moved = (made.round() - place * 1024)[0, 0, 1:-1, 1:-1]
    assert float((made - made.round()).abs().max()) < 1e-6
    assert {int(m) for m in moved.unique()} == {32 * i + j for i in (-1, 0, 1) for j in (-1, 0, 1)}


# weather


def test_fog_is_published_arithmetic_on_slow_clouds() -> None:
    """Diamond-square, point by point, as the script of CIFAR-10-C goes about it."""
    x, size, decay = pictures(1, 3, 16, 16), 16, 2.5
    u = Noise.of(1).uniform(torch.empty(1, size, size, dtype=torch.float64), -1.0, 1.0)[0].numpy()
    height = np.zeros((size, size))
    step, wibble = size, 100.0
    while step >= 2:
        half = step // 2
        for i in range(0, size, step):
            for j in range(0, size, step):
                corners = [height[(i + a) % size, (j + b) % size] for a in (0, step) for b in (0, step)]
                height[i + half, j + half] = sum(corners) / 4 + wibble * wibble * u[i + half, j + half]
        for i in range(0, size, step):
            for j in range(0, size, step):
                for row, column in ((i, j + half), (i + half, j)):
                    beside = [height[(row + a) % size, (column + b) % size] for a, b in ((half, 0), (-half, 0), (0, half), (0, -half))]
                    height[row, column] = sum(beside) / 4 + wibble * wibble * u[row, column]
        step, wibble = half, wibble / decay
    clouds = (height - height.min()) / (height.max() - height.min())
    a = x.numpy()
    agrees(weather.fog(x, noise=Noise.of(1), severity=3), clipped((a + 0.75 * clouds) * a.max() / (a.max() + 0.75)))


def test_rain_falls_within_thirty_degrees_and_is_light() -> None:
    black = torch.zeros(60, 1, 32, 32, dtype=torch.float64)
    wet = weather.rain(black, noise=Noise.of(60), severity=1)
    assert 0.05 < float((wet > 0.05).double().mean()) < 0.12  # 1.5 % of the pixels begin a streak of five
    assert float(wet.max()) <= 1.0
    below, beside = (wet[:, :, 1:] * wet[:, :, :-1]).mean(), (wet[:, :, :, 1:] * wet[:, :, :, :-1]).mean()
    assert float(below) > 2 * float(beside)
    white = torch.ones_like(black)
    assert float(weather.rain(white, noise=Noise.of(60), severity=5).min()) >= 0.7


def test_snow_and_frost_whiten_and_mud_darkens() -> None:
    x = torch.full((20, 3, 32, 32), 0.4, dtype=torch.float64)
    for severity in range(1, 6):
        assert bool((weather.snow(x, noise=Noise.of(20), severity=severity) >= x - 1e-9).all())
        ice = weather.frost(x, noise=Noise.of(20), severity=severity)
        keep = (1.0, 1.0, 0.9, 0.85, 0.75)[severity - 1]
        assert bool((ice >= keep * x).all())
        assert bool((ice[:, 2] >= ice[:, 0]).all())
        drops = weather.spatter(x, noise=Noise.of(20), severity=severity)
        assert bool((drops >= x).all()) == (severity <= 3)
        assert bool((drops <= x).all()) == (severity > 3)


# geometry


def test_rotation_turns_about_the_centre() -> None:
    x = pictures()
    given = Noise.of(2)
    like = x.new_zeros(2)
    degrees = given.uniform(like, 4.0, 5.0) * (2.0 * given.integers(like, 2) - 1.0)
    assert bool(((degrees.abs() >= 4.0) & (degrees.abs() < 5.0)).all())

    def at(a: Array, number: int, row: int, column: int) -> Array:
        turn = math.radians(float(degrees[number]))
        middle, centre = (a.shape[1] - 1) / 2, (a.shape[2] - 1) / 2
        y, z = row - middle, column - centre
        return bilinear(a, middle + math.cos(turn) * y + math.sin(turn) * z, centre - math.sin(turn) * y + math.cos(turn) * z, zeros=True)

    agrees(geometry.rotate(x, noise=Noise.of(2), severity=5), per_pixel(x, at))


def test_flips_and_halves() -> None:
    x = pictures(40)
    agrees(geometry.horizontal_flip(x, noise=Noise.of(40)), torch.from_numpy(x.numpy()[:, :, :, ::-1].copy()))
    agrees(geometry.vertical_flip(x, noise=Noise.of(40)), torch.from_numpy(x.numpy()[:, :, ::-1].copy()))
    ways = set()
    for before, after in zip(x, geometry.block_shuffle(x, noise=Noise.of(40)), strict=True):
        shifts = [(axis, k) for axis, size in ((1, 12), (2, 15)) for k in range(1, size) if torch.equal(before.roll(-k, axis), after)]
        assert len(shifts) == 1
        axis, k = shifts[0]
        assert 0.4 * before.shape[axis] - 1 < k <= 0.6 * before.shape[axis]
        ways.add(axis)
    assert ways == {1, 2}


def test_local_shuffle_lays_every_tile_once() -> None:
    """32 pixels and tiles of 12: they begin at 0, 12 and 20, and each tile of the result is a tile of the picture, each used once."""
    x = pictures(6, 3, 32, 32)
    made = geometry.local_shuffle(x, noise=Noise.of(6), severity=5)
    starts = (0, 12, 20)
    for before, after in zip(x, made, strict=True):
        used = []
        for row, high in zip(starts, (12, 8, 12), strict=True):  # what a later tile leaves of it
            for column, wide in zip(starts, (12, 8, 12), strict=True):
                part = after[:, row : row + high, column : column + wide]
                fits = [(i, j) for i in starts for j in starts if torch.equal(before[:, i : i + high, j : j + wide], part)]
                assert len(fits) == 1
                used += fits
        assert len(set(used)) == 9


def test_extend_reads_below_and_to_the_right() -> None:
    place = torch.arange(32 * 32, dtype=torch.float64).reshape(1, 1, 32, 32) / 1024
    moved = ((geometry.extend(place, noise=Noise.of(1), severity=5) - place) * 1024).round()[0, 0, :-2, :-2]
    assert {int(m) for m in moved.unique()} == {32 * i + j for i in range(3) for j in range(3)}


def test_elastic_moves_three_corners_of_a_square_and_nothing_more_at_severity_1() -> None:
    """At 32 pixels severity 1 is an affine map: rows and columns of the picture of coordinates stay straight, and the corners move by up to 2.56."""
    row, column = torch.meshgrid(torch.arange(32.0), torch.arange(32.0), indexing="ij")
    x = torch.stack([row, column]).double()[:, None].expand(2, 1, 32, 32) / 64 + 0.25
    made = (geometry.elastic_transform(x, noise=Noise.of(2), severity=1) - 0.25) * 64
    inner = made[:, 0, 10:22, 10:22]
    for way in (1, 2):
        assert float(inner.diff(n=2, dim=way).abs().max()) < 1e-9
    for corner in ((6, 6), (6, 26), (26, 26)):
        moved = made[:, 0, corner[0], corner[1]] - (x[:, 0, corner[0], corner[1]] - 0.25) * 64
        assert 0.0 < float(moved.abs().max()) <= 2.56


# squares, frames, JPEG, large pixels


def test_a_mosaic_is_one_square_away_from_the_border() -> None:
    x = torch.full((100, 3, 112, 100), 0.3)
    made = digital.mosaic(x, noise=Noise.of(100), severity=5)
    kinds = {"noise": 0, "black": 0, "white": 0, "grey": 0}
    for picture in made:
        hit = (picture != 0.3).any(0).nonzero()
        (top, left), (bottom, right) = hit.amin(0).tolist(), hit.amax(0).tolist()
        edge = bottom - top + 1
        assert edge == right - left + 1
        assert 23.4 * 100 / 224 - 1 < edge <= 26 * 100 / 224 + 1
        assert top >= 2 * edge
        assert left >= 2 * edge
        assert bottom < 112 - edge
        assert right < 100 - edge
        inside = picture[:, top : bottom + 1, left : right + 1].unique()
        name = "noise" if len(inside) > 1 else {0.0: "black", 1.0: "white", 0.5: "grey"}[float(inside)]
        kinds[name] += 1
    assert kinds["noise"] == pytest.approx(70, abs=15)
    assert all(2 <= kinds[name] <= 20 for name in ("black", "white", "grey"))


def test_a_padded_picture_is_small_and_somewhere() -> None:
    x = 0.25 * pictures(30, 3, 25, 50) + 0.5
    made = digital.random_padding(x, noise=Noise.of(30), severity=3)
    small = torch.nn.functional.interpolate(x, (20, 40), mode="bilinear", antialias=True)
    frames, found = set(), set()
    for picture, part in zip(made, small, strict=True):
        places = [(i, j) for i in range(6) for j in range(11) if torch.equal(picture[:, i : i + 20, j : j + 40], part)]
        assert len(places) == 1
        top, left = places[0]
        outside = torch.ones(25, 50, dtype=torch.bool)
        outside[top : top + 20, left : left + 40] = False
        frames.add(len(picture[:, outside].unique()) == 1)
        found.add(places[0])
    assert frames == {True, False}
    assert len(found) > 20


def test_jpeg_is_the_channels() -> None:
    x = pictures(2, 3, 32, 32).float()
    wanted = channel.jpeg(x, noise=Noise.of(2), quality=58)
    assert torch.equal(digital.jpeg_compression(x, noise=Noise.of(2), severity=3), wanted)


@pytest.mark.parametrize("severity", [1, 2, 3, 4, 5])
@pytest.mark.parametrize("side", [32, 224])
def test_large_pixels_are_pillows(side: int, severity: int) -> None:
    x = (pictures(1, 3, side, side) * 255).round() / 255
    share = {32: (0.95, 0.9, 0.85, 0.75, 0.65), 224: (0.6, 0.5, 0.4, 0.3, 0.25)}[side][severity - 1]
    small = int(side * share)
    file = Image.fromarray((x[0] * 255).byte().permute(1, 2, 0).numpy())
    wanted = np.array(file.resize((small, small), Image.Resampling.BOX).resize((side, side), Image.Resampling.BOX))
    made = digital.pixelate(x, noise=Noise.of(1), severity=severity)[0].permute(1, 2, 0).numpy() * 255
    assert float(np.abs(made - wanted).max()) < 1.01  # 8 bits after each of two directions
