"""Public checkpoints that this project did not train: what a file loaded as "NAME=PATH" is; some load by their name alone from the data folder."""

from __future__ import annotations

from dataclasses import dataclass

from forearm.models.classes import CIFAR10, IMAGENETTE, numbered


@dataclass(frozen=True, slots=True)
class Source:
    """A public checkpoint's kind.

    keys: the key map (`models.keys.KEYS`) that its names need. threat: what it was trained against; None: nothing, or
    not known. unused: prefixes of entries that its own network holds and never applies. file, sha256: where the very file that was looked at
    lies below the data folder, and its sum; with them the name alone loads it.
    """

    arch: str
    paper: str
    keys: str = "plain"
    classes: tuple[str, ...] = CIFAR10
    threat: str | None = None
    size: int = 32
    data: str = "cifar10"
    unused: tuple[str, ...] = ()
    file: str = ""
    sha256: str = ""


_HE = "He et al., CVPR 2016; weights by Yerlan Idelbayev (akamaster)"
_OPTION_A = "mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225), shortcut='zero', width=16"
_CROWN = "alpha-beta-CROWN's model collection"
_SANDLER = "Sandler et al., CVPR 2018; quantised weights by Google"


def _he(blocks: int, file: str, sha256: str) -> Source:
    return Source(f"resnet(blocks={(blocks,) * 3}, {_OPTION_A})", _HE, file=f"cifar10_weights/akamaster/{file}", sha256=sha256)


FOREIGN: dict[str, Source] = {
    "resnet20_a": _he(3, "resnet20-12fca82f.th", "12fca82f0bebc4135bf1f32f6e3710e61d5108578464b84fd6d7f5c1b04036c8"),
    "resnet32_a": _he(5, "resnet32-d509ac18.th", "d509ac1820d7f25398913559d7e81a13229b1e7adc5648e3bfa5e22dc137f850"),
    "resnet44_a": _he(7, "resnet44-014dd654.th", "014dd6541728a1c700b1642ab640e211dc6eb8ed507d70697458dc8f8a0ae2e4"),
    "resnet56_a": _he(9, "resnet56-4bfd9763.th", "4bfd97631478d6b638d2764fd2baff3edb1d7d82252d54439343b6596b9b5367"),
    "resnet2b": Source(
        "resnet2b",
        _CROWN,
        file="cifar10_weights/abcrown/resnet2b.pth",
        sha256="ef824b47175668e924d7fd409b5ef7e239012b8f0c31fefa66c643efda1eb05b",
    ),
    "cnn_a_adv4": Source(
        "cnn_a",
        _CROWN,
        "cnn_a",
        file="cifar10_weights/abcrown/cifar_cnn_a_adv4.model",
        sha256="f872a69536be3f0ab98397094bb7c3952d747b08321b81eafd00d9fab5eca0e7",
    ),
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
