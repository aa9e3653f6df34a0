"""The 32 operations of the challenge (Pei et al., arXiv 2205.10617) by name, in the order in which it applies them.

Each is a plain function `(x, *, noise, severity=3) -> x`: pictures `n c h w` in [0, 1] (c = 1 or 3) in, the same shape, type and range out, each
example by itself, the same result for the same noise; `severity` 1 to 5, SpecError for another. No pass of a model. The 19 that CIFAR-10-C has carry its
names.
"""

from __future__ import annotations

CORRUPTIONS: dict[str, str] = {
    "pepper_salt": "forearm.data.corruptions.noise:pepper_salt",
    "colour_points": "forearm.data.corruptions.noise:colour_points",
    "gaussian_noise": "forearm.data.corruptions.noise:gaussian_noise",
    "mosaic": "forearm.data.corruptions.digital:mosaic",
    "rgb_shuffle": "forearm.data.corruptions.colour:rgb_shuffle",
    "rotate": "forearm.data.corruptions.geometry:rotate",
    "horizontal_flip": "forearm.data.corruptions.geometry:horizontal_flip",
    "vertical_flip": "forearm.data.corruptions.geometry:vertical_flip",
    "gaussian_blur": "forearm.data.corruptions.blur:gaussian_blur",
    "blur": "forearm.data.corruptions.blur:blur",
    "rain": "forearm.data.corruptions.weather:rain",
    "extend": "forearm.data.corruptions.geometry:extend",
    "block_shuffle": "forearm.data.corruptions.geometry:block_shuffle",
    "local_shuffle": "forearm.data.corruptions.geometry:local_shuffle",
    "random_padding": "forearm.data.corruptions.digital:random_padding",
    "fog": "forearm.data.corruptions.weather:fog",
    "shot_noise": "forearm.data.corruptions.noise:shot_noise",
    "impulse_noise": "forearm.data.corruptions.noise:impulse_noise",
    "speckle_noise": "forearm.data.corruptions.noise:speckle_noise",
    "glass_blur": "forearm.data.corruptions.blur:glass_blur",
    "defocus_blur": "forearm.data.corruptions.blur:defocus_blur",
    "motion_blur": "forearm.data.corruptions.blur:motion_blur",
    "zoom_blur": "forearm.data.corruptions.blur:zoom_blur",
    "frost": "forearm.data.corruptions.weather:frost",
    "snow": "forearm.data.corruptions.weather:snow",
    "spatter": "forearm.data.corruptions.weather:spatter",
    "contrast": "forearm.data.corruptions.colour:contrast",
    "brightness": "forearm.data.corruptions.colour:brightness",
    "saturate": "forearm.data.corruptions.colour:saturate",
    "jpeg_compression": "forearm.data.corruptions.digital:jpeg_compression",
    "pixelate": "forearm.data.corruptions.digital:pixelate",
    "elastic_transform": "forearm.data.corruptions.geometry:elastic_transform",
}

PUBLISHED = (  # the files of CIFAR-10-C (Hendrycks and Dietterich, ICLR 2019)
    "gaussian_noise", "shot_noise", "impulse_noise", "defocus_blur", "glass_blur", "motion_blur", "zoom_blur", "snow", "frost", "fog",
    "brightness", "contrast", "elastic_transform", "pixelate", "jpeg_compression", "speckle_noise", "gaussian_blur", "spatter", "saturate",
)  # fmt: skip
