"""What must hold of every channel, each law with mutants that fail it; and each channel against a second implementation."""

from __future__ import annotations

import io
from collections.abc import Callable

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from forearm.core import channel
from forearm.core.channel import CHANNELS
from forearm.core.gradients import input_gradient
from forearm.core.noise import Noise
from forearm.core.quantize import to_8bit
from forearm.errors import InputError, SpecError
from forearm.registry import bind

Channel = Callable[..., Tensor]
OTHER = {"jpeg": "jpeg(quality=30, subsampling='4:4:4')", "resize": "resize(side=5)", "median": "median(size=2)"}
SPECS = [*CHANNELS, *OTHER.values()]
every = pytest.mark.parametrize("spec", SPECS)


def pictures(n: int = 4, channels: int = 3, height: int = 13, width: int = 17) -> Tensor:
    x = torch.rand(n, channels, height, width, generator=torch.Generator().manual_seed(3))
    x[0], x[1] = 0.0, 1.0  # a sum of weights that is not 1 shows at the ends of the range
    return x


# the laws


def keeps_shape_and_range(travel: Channel) -> None:
    for dtype in (torch.float32, torch.float64):
        for channels in (1, 3):
            x = pictures(channels=channels).to(dtype)
            made = travel(x, noise=Noise.of(len(x)))
            assert made.shape == x.shape
            assert made.dtype == dtype
            assert bool(((made >= 0.0) & (made <= 1.0)).all())


def follows_its_noise(travel: Channel) -> None:
    x = pictures()
    assert torch.equal(travel(x, noise=Noise.of(4, seed=5)), travel(x, noise=Noise.of(4, seed=5)))


def ignores_its_batch(travel: Channel) -> None:
    x = pictures()
    together = travel(x, noise=Noise.of(4))
    for i in range(4):
        alone = travel(x[i : i + 1], noise=Noise.of(1, first=i))
        assert torch.allclose(alone[0], together[i], rtol=0, atol=1e-6)
    assert travel(x[:0], noise=Noise.of(0)).shape == (0, *x.shape[1:])


def touches_nothing(travel: Channel) -> None:
    x = pictures()
    kept, state = x.clone(), torch.get_rng_state()
    travel(x, noise=Noise.of(4))
    assert torch.equal(x, kept)
    assert torch.equal(torch.get_rng_state(), state)


LAWS = [keeps_shape_and_range, follows_its_noise, ignores_its_batch, touches_nothing]


@every
@pytest.mark.parametrize("law", LAWS)
def test_every_channel_keeps_the_law(law: Callable[[Channel], None], spec: str) -> None:
    law(bind(CHANNELS, spec))


def too_wide(x: Tensor, *, noise: Noise) -> Tensor:
    return x + noise.uniform(x, -0.1, 0.1)


def halved(x: Tensor, *, noise: Noise) -> Tensor:
    return x[:, :, ::2]


def global_noise(x: Tensor, *, noise: Noise) -> Tensor:
    return (x + torch.rand_like(x)).clamp(0, 1)


def centred(x: Tensor, *, noise: Noise) -> Tensor:
    return x - x.mean()


def in_place(x: Tensor, *, noise: Noise) -> Tensor:
    return x.mul_(0.5)


MUTANTS = [
    (keeps_shape_and_range, too_wide),
    (keeps_shape_and_range, halved),
    (follows_its_noise, global_noise),
    (ignores_its_batch, centred),
    (touches_nothing, in_place),
    (touches_nothing, global_noise),
]


@pytest.mark.parametrize(("law", "mutant"), MUTANTS)
def test_every_law_fails_a_mutant(law: Callable[[Channel], None], mutant: Channel) -> None:
    with pytest.raises(AssertionError):
        law(mutant)


@every
def test_only_none_leaves_a_picture_as_it_is(spec: str) -> None:
    x = pictures()[2:]
    assert torch.equal(bind(CHANNELS, spec)(x, noise=Noise.of(2)), x) == (spec == "none")


@pytest.mark.parametrize("spec", [spec for spec in SPECS if spec not in ("uniform", "none")])
def test_a_flat_picture_stays_flat(spec: str) -> None:
    """Grey of level 119 = 7 * 17 lies on the 4-bit grid too, and JPEG and WebP keep it to two levels."""
    x = torch.full((1, 3, 16, 16), 119 / 255)
    slack = 2.5 / 255 if spec.startswith(("jpeg", "webp")) else 1e-6
    assert float((bind(CHANNELS, spec)(x, noise=Noise.of(1)) - x).abs().max()) <= slack


# each against a second implementation


def through_pillow(x: Tensor, kind: str, quality: int, **options: str) -> Tensor:
    levels = (x * 255).round().byte().permute(1, 2, 0).numpy()
    held = io.BytesIO()
    Image.fromarray(levels).save(held, kind, quality=quality, **options)
    return torch.from_numpy(np.array(Image.open(held).convert("RGB"))).permute(2, 0, 1).float() / 255


def test_codecs_are_pillows() -> None:
    x = pictures()
    for i in range(4):
        made = channel.jpeg(x, noise=Noise.of(4), quality=40, subsampling="4:2:2")[i]
        assert torch.equal(made, through_pillow(x[i], "JPEG", 40, subsampling="4:2:2"))
        assert torch.equal(channel.webp(x, noise=Noise.of(4), quality=30)[i], through_pillow(x[i], "WEBP", 30))
    assert not torch.equal(made, through_pillow(x[3], "JPEG", 41, subsampling="4:2:2"))
    assert not torch.equal(made, through_pillow(x[3], "JPEG", 40, subsampling="4:2:0"))


def test_codecs_round_their_pictures_halves_up() -> None:
    x = torch.full((1, 3, 8, 8), 100.5 / 255)
    for travel in (channel.jpeg, channel.webp):
        made = travel(x, noise=Noise.of(1))
        assert torch.equal(made, travel(torch.full_like(x, 101 / 255), noise=Noise.of(1)))
        assert torch.equal(made, to_8bit(made))


def test_codecs_pass_no_gradient_and_refuse_other_colours() -> None:
    x = pictures().requires_grad_()
    assert not channel.jpeg(x, noise=Noise.of(4)).requires_grad
    with pytest.raises(InputError, match=r"codec: got 2 channels; .* for example"):
        channel.jpeg(pictures(channels=2), noise=Noise.of(4))
    with pytest.raises(InputError, match=r"webp: got 16384 x 1 pixels; .* for example"):
        channel.webp(torch.zeros(1, 1, 1, 16384), noise=Noise.of(1))


def test_bit_depth_is_its_grid() -> None:
    x = torch.linspace(0, 1, 1001, dtype=torch.float64).reshape(1, 1, 7, 143)
    for bits in range(1, 9):
        made = channel.bit_depth(x, noise=Noise.of(1), bits=bits)
        assert len(made.unique()) == 2**bits
        assert float((made - x).abs().max()) <= 0.5 / (2**bits - 1) + 1e-12
    levels = torch.arange(256).reshape(1, 1, 16, 16) / 255.0
    assert torch.equal(channel.bit_depth(levels, noise=Noise.of(1), bits=8), levels)


@pytest.mark.parametrize("size", [1, 2, 3, 5])
def test_median_is_scipys(size: int) -> None:
    ndimage = pytest.importorskip("scipy.ndimage", reason="needs SciPy as a second implementation")
    x = pictures()
    expected = np.stack([[ndimage.median_filter(plane, size=size, mode="nearest") for plane in picture] for picture in x.numpy()])
    assert torch.equal(channel.median(x, noise=Noise.of(4), size=size), torch.from_numpy(expected))


@pytest.mark.parametrize("sigma", [0.3, 1.0, 2.5])
def test_gaussian_is_scipys(sigma: float) -> None:
    ndimage = pytest.importorskip("scipy.ndimage", reason="needs SciPy as a second implementation")
    x = pictures().double()
    radius = max(1, int(np.ceil(3 * sigma)))
    kept = {"mode": "nearest", "radius": radius}
    expected = np.stack([[ndimage.gaussian_filter(plane, sigma, **kept) for plane in picture] for picture in x.numpy()])
    torch.testing.assert_close(channel.gaussian(x, noise=Noise.of(4), sigma=sigma), torch.from_numpy(expected), rtol=0, atol=1e-12)


def test_total_variation_is_scikits() -> None:
    """Scikit-image returns the picture before its last step: n steps there are n - 1 here."""
    restoration = pytest.importorskip("skimage.restoration", reason="needs scikit-image as a second implementation")
    x = pictures().double()
    expected = [restoration.denoise_tv_chambolle(p.numpy(), weight=0.2, eps=0.0, max_num_iter=21, channel_axis=0) for p in x]
    made = channel.total_variation(x, noise=Noise.of(4), weight=0.2, steps=20)
    torch.testing.assert_close(made, torch.from_numpy(np.stack(expected)), rtol=0, atol=1e-12)
    other = channel.total_variation(x, noise=Noise.of(4), weight=0.2, steps=21)
    assert float((other - made).abs().max()) > 1e-6


def test_total_variation_lowers_its_energy() -> None:
    x = pictures()[2:].double()

    def energy(u: Tensor) -> Tensor:
        down, across = u.diff(dim=2, append=u[:, :, -1:]), u.diff(dim=3, append=u[:, :, :, -1:])
        return 0.5 * (u - x).square().sum() + 0.1 * (down.square() + across.square()).sqrt().sum()

    found = [float(energy(channel.total_variation(x, noise=Noise.of(2), weight=0.1, steps=k))) for k in (1, 5, 30, 300)]
    assert float(energy(x)) > found[0] > found[1] > found[2] > found[3]
    best = channel.total_variation(x, noise=Noise.of(2), weight=0.1, steps=1000)
    generator = torch.Generator().manual_seed(0)
    for _ in range(20):
        assert energy(best + 1e-3 * torch.randn(x.shape, generator=generator, dtype=x.dtype)) > energy(best)


def test_resize_goes_there_and_back() -> None:
    x = pictures(height=12, width=20)
    assert torch.equal(channel.resize(x, noise=Noise.of(4)), channel.resize(x, noise=Noise.of(4), side=6))
    one = channel.resize(x, noise=Noise.of(4), side=1)
    assert float((one[:, :, :1] - one[:, :, -1:]).abs().max()) < 1e-6  # one row: every row is the same
    assert torch.equal(channel.resize(x, noise=Noise.of(4), side=12), x)


def test_uniform_noise_fills_its_range_and_no_more() -> None:
    x = torch.full((3, 3, 32, 32), 0.5)
    change = channel.uniform(x, noise=Noise.of(3), eps=0.1) - x
    assert 0.0999 < float(change.abs().max()) <= 0.1 + 1e-6
    assert abs(float(change.mean())) < 0.004
    assert not torch.equal(change[0], change[1])


@pytest.mark.parametrize("spec", ["gaussian", "median", "resize", "total_variation", "uniform"])
def test_the_smooth_ones_are_differentiable(spec: str) -> None:
    """Along a random direction the slope of a random sum is the gradient's."""
    travel, x = bind(CHANNELS, spec), pictures()[2:].double() * 0.8 + 0.1
    generator = torch.Generator().manual_seed(8)
    weight, v = (torch.randn(x.shape, generator=generator, dtype=x.dtype) for _ in range(2))

    def total(z: Tensor, y: Tensor | None = None) -> Tensor:
        return (travel(z, noise=Noise.of(2)) * weight).flatten(1).sum(1)

    gradient, _ = input_gradient(lambda z: total(z)[:, None], x, torch.zeros(2).long(), lambda z, y: z[:, 0])
    slope = (total(x + 1e-7 * v) - total(x - 1e-7 * v)) / 2e-7
    torch.testing.assert_close((gradient * v).flatten(1).sum(1), slope, rtol=1e-5, atol=1e-5)
    assert float(gradient.abs().max()) > 0.1


def test_the_slope_of_total_variation_is_finite_on_flat_pictures() -> None:
    x = torch.full((1, 1, 6, 6), 0.5).requires_grad_()
    (gradient,) = torch.autograd.grad(channel.total_variation(x, noise=Noise.of(1)).sum(), x)
    assert bool(gradient.isfinite().all())


@pytest.mark.parametrize(
    "spec",
    [
        "jpeg(quality=0)", "jpeg(quality=101)", "jpeg(quality=7.5)", "jpeg(subsampling='4:1:1')", "webp(quality=101)", "webp(quality=True)",
        "resize(side=0)", "bit_depth(bits=0)", "bit_depth(bits=9)", "gaussian(sigma=0)", "gaussian(sigma='a')", "median(size=0)",
        "median(size=3.0)", "total_variation(weight=0)", "total_variation(steps=0)", "uniform(eps=-0.1)", "uniform(eps=2)",
    ],
)  # fmt: skip
def test_wrong_options_are_refused(spec: str) -> None:
    with pytest.raises(SpecError, match=r"\w+: got .*; .*for example") as error:
        bind(CHANNELS, spec)(pictures(), noise=Noise.of(4))
    assert "\n" not in str(error.value)
