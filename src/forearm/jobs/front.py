"""The front doors of the library: `forearm.arm` and `forearm.attack`."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from forearm.attacks.spread import spread
from forearm.attacks.table import ATTACKS
from forearm.defenses.preemptive.protector import DEFAULT
from forearm.errors import InputError
from forearm.images.codec import decode, encode
from forearm.jobs.arm import Armed, ArmReport, Pixels
from forearm.jobs.armory import Armory
from forearm.jobs.lines import tag_for
from forearm.registry import bind

Label = int | str | None


def attack(spec: str, workers: int = 1) -> Callable[..., Tensor]:
    """An attack by name, e.g. `forearm.attack("pgd(steps=20)")`: a function (model, x, y, *, threat, noise) -> x_adv. Raises SpecError.

    workers: groups of pictures that are attacked side by side, a core each (`attacks.spread`); the function then takes nothing else.
    """
    found = bind(ATTACKS, spec)
    return found if workers == 1 else spread(found, workers)


def arm(
    image: Any,
    *,
    defense: str = DEFAULT,
    threat: str | None = None,
    backbone: str | None = None,
    labeller: str | None = None,
    label: Label | list[Label] = None,
    seed: int = 0,
    threshold: float = 0.5,
    device: str | None = None,
    strength: str | None = None,
    survive: str | None = None,
    min_psnr: float | None = None,
    max_lpips: float | None = None,
    lpips: Path | None = None,
) -> tuple[Any, Any]:
    """An armed picture and what was done to it.

    image: a path or the bytes of a picture file -> the bytes of the armed file (same format and metadata, with a tag that says it is armed);
      a PIL image (RGB, L, RGBA or LA) -> a PIL image; a uint8 array `h w`, `h w 1`, `h w 3` or `n h w 3` -> an array; a float tensor `c h w` or
      `n c h w` in [0, 1] with 1 or 3 channels -> a tensor of the same type, on the 8-bit grid. A batch gives a list of reports.
    label: a class by number or name, one for each picture of a batch; None asks the labeller (see `Armory.open` for the other options).
    Raises InputError for what is not a picture or cannot keep its bounds, SpecError for unknown names. Cost: a gradient of each of three
    backbones a picture (40 of one for MSPD), on one core a picture; with `min_psnr` or `max_lpips` as many again for each budget that is tried.
    """
    armory = Armory.open(
        defense, threat, backbone, labeller, seed, device, threshold, strength=strength, survive=survive, min_psnr=min_psnr,
        max_lpips=max_lpips, lpips=lpips,
    )  # fmt: skip
    if isinstance(image, Path | str | bytes):
        picture = decode(Path(image) if isinstance(image, str) else image)
        armed = _arm(armory, [picture.pixels], [_one(label)])[0]
        height, width = picture.pixels.shape[:2]
        return encode(picture, armed.pixels, tag_for(armory.settings(height, width))), armed.report
    if isinstance(image, Image.Image):
        return _pillow(armory, image, _one(label))
    if isinstance(image, torch.Tensor):
        return _tensor(armory, image, label)
    if isinstance(image, np.ndarray):
        return _array(armory, image, label)
    raise InputError(
        f"arm: got {type(image).__name__}; a path, bytes, a PIL image, a uint8 array or a float tensor, for example arm('cat.png')"
    )


def _one(label: Label | list[Label]) -> Label:
    if isinstance(label, list):
        raise InputError("label: got a list for one picture; a number or a name, for example label='truck'")
    return label


def _arm(armory: Armory, pictures: list[Pixels], labels: list[Label]) -> list[Armed]:
    if len(labels) != len(pictures):
        raise InputError(f"label: got {len(labels)} labels for {len(pictures)} pictures; one for each, or None")
    height, width = pictures[0].shape[:2]
    known = [None if label is None else armory.class_index(str(label), height, width) for label in labels]
    return armory.arm(pictures, known)


def _pillow(armory: Armory, image: Image.Image, label: Label) -> tuple[Image.Image, ArmReport]:
    modes = {"RGB": "RGB", "L": "L", "RGBA": "RGB", "LA": "L"}
    if image.mode not in modes:
        raise InputError(f"arm: got a PIL image of mode {image.mode}; RGB, RGBA, L or LA, for example image.convert('RGB')")
    plain = np.asarray(image.convert(modes[image.mode]))
    armed = _arm(armory, [plain.reshape(*plain.shape[:2], -1)], [label])[0]
    result = Image.fromarray(armed.pixels.squeeze(2) if armed.pixels.shape[2] == 1 else armed.pixels)
    if image.mode in ("RGBA", "LA"):
        result.putalpha(image.getchannel("A"))
    result.info = dict(image.info)
    return result, armed.report


def _array(armory: Armory, image: NDArray[Any], label: Label | list[Label]) -> tuple[NDArray[np.uint8], Any]:
    if image.dtype != np.uint8 or image.ndim not in (2, 3, 4) or (image.ndim > 2 and image.shape[-1] not in (1, 3)) or 0 in image.shape:
        raise InputError(f"arm: got an array of {image.dtype} {image.shape}; uint8 of shape h w, h w 1, h w 3 or n h w 3, values 0 to 255")
    batch = list(image) if image.ndim == 4 else [image.reshape(*image.shape[:2], -1)]
    labels = _labels(label, len(batch), image.ndim == 4)
    armed = _arm(armory, batch, labels)
    pixels = np.stack([a.pixels for a in armed]).reshape(image.shape)
    return pixels, [a.report for a in armed] if image.ndim == 4 else armed[0].report


def _tensor(armory: Armory, image: Tensor, label: Label | list[Label]) -> tuple[Tensor, Any]:
    channels = image.shape[-3] if image.ndim in (3, 4) else 0
    if not image.is_floating_point() or channels not in (1, 3) or image.numel() == 0:
        raise InputError(f"arm: got a tensor of {image.dtype} {tuple(image.shape)}; float c h w or n c h w in [0, 1] with 1 or 3 channels")
    if not bool((image >= 0).all() and (image <= 1).all()):
        raise InputError(f"arm: got values from {float(image.min()):g} to {float(image.max()):g}; [0, 1], for example image / 255")
    batch = image if image.ndim == 4 else image[None]
    levels = (batch * 255.0).round().to(torch.uint8).permute(0, 2, 3, 1).cpu().numpy()
    armed = _arm(armory, list(levels), _labels(label, len(batch), image.ndim == 4))
    pixels = torch.from_numpy(np.stack([a.pixels for a in armed])).permute(0, 3, 1, 2).to(image) / 255.0
    return pixels.reshape(image.shape), [a.report for a in armed] if image.ndim == 4 else armed[0].report


def _labels(label: Label | list[Label], n: int, batch: bool) -> list[Label]:
    if isinstance(label, list):
        return label
    if batch and label is not None and n > 1:
        raise InputError(f"label: got one label for a batch of {n}; a list of {n}, or None")
    return [label] * n
