"""Public checkpoints that this project did not train: what a file loaded as "NAME=PATH" is."""

from __future__ import annotations

from dataclasses import dataclass

from forearm.models.classes import CIFAR10, IMAGENETTE, numbered


@dataclass(frozen=True, slots=True)
class Source:
    """A public checkpoint's kind.

    keys: the key map (`models.keys.KEYS`) that its names need. threat: what it was trained against; None: nothing, or
    not known. unused: prefixes of entries that its own network holds and never applies.
    """

    arch: str
    paper: str
    keys: str = "plain"
    classes: tuple[str, ...] = CIFAR10
    threat: str | None = None
    size: int = 32
    data: str = "cifar10"
    unused: tuple[str, ...] = ()


_HE = "He et al., CVPR 2016; weights by Yerlan Idelbayev (akamaster)"
_OPTION_A = "mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225), shortcut='zero', width=16"
_CROWN = "alpha-beta-CROWN's model collection"
_SANDLER = "Sandler et al., CVPR 2018; quantised weights by Google"

FOREIGN: dict[str, Source] = {
    "resnet20_a": Source(f"resnet(blocks=(3, 3, 3), {_OPTION_A})", _HE),
    "resnet32_a": Source(f"resnet(blocks=(5, 5, 5), {_OPTION_A})", _HE),
    "resnet44_a": Source(f"resnet(blocks=(7, 7, 7), {_OPTION_A})", _HE),
    "resnet56_a": Source(f"resnet(blocks=(9, 9, 9), {_OPTION_A})", _HE),
    "resnet2b": Source("resnet2b", _CROWN),
    "cnn_a_adv4": Source("cnn_a", _CROWN, "cnn_a"),
    "mobilenet_v2": Source("mobilenet_v2", _SANDLER, "quantised", numbered(1000), size=224, data="imagenet"),
    "mobilenet_v2_ten": Source(
        f"mobilenet_v2(among={tuple(IMAGENETTE)})",
        _SANDLER,
        "quantised",
        tuple(IMAGENETTE.values()),
        size=224,
        data="imagenette",
    ),
}
