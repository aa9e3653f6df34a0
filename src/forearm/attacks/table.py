"""The table of attacks: name -> function, and what each can do. An attack is one file and one row in each."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, Protocol

if TYPE_CHECKING:  # the command line completes names from this table, and torch takes a second
    from torch import Tensor

    from forearm.core.gradients import Classifier
    from forearm.core.noise import Noise
    from forearm.core.threat import Threat


class Attack(Protocol):
    """Hyper-parameters are keyword-only with defaults; the result lies within `threat` of `x`, in [0, 1]."""

    def __call__(self, model: Classifier, x: Tensor, y: Tensor, *, threat: Threat, noise: Noise) -> Tensor: ...


ATTACKS: dict[str, str] = {
    "fgsm": "forearm.attacks.fgsm:fgsm",
    "bim": "forearm.attacks.fgsm:bim",
    "pgd": "forearm.attacks.pgd:pgd",
    "mi_fgsm": "forearm.attacks.momentum:mi_fgsm",
    "apgd": "forearm.attacks.apgd:apgd",
    "apgd_dlr": "forearm.attacks.apgd:apgd_dlr",
    "apgd_t": "forearm.attacks.apgd:apgd_t",
    "fab": "forearm.attacks.fab:fab",
    "fab_t": "forearm.attacks.fab:fab_t",
    "square": "forearm.attacks.square:square",
    "autoattack": "forearm.attacks.autoattack:autoattack",
    "carlini_wagner": "forearm.attacks.carlini_wagner:carlini_wagner",
    "ddn": "forearm.attacks.ddn:ddn",
    "deepfool": "forearm.attacks.deepfool:deepfool",
    "jsma": "forearm.attacks.jsma:jsma",
    "ffa": "forearm.attacks.feature:ffa",
    "sta": "forearm.attacks.spatial:sta",
    "advdrop": "forearm.attacks.advdrop:advdrop",
    "ssah": "forearm.attacks.ssah:ssah",
    "spsa": "forearm.attacks.spsa:spsa",
}


@dataclass(frozen=True, slots=True)
class Traits:
    """What an attack is.

    kind: "gradient" fills the ball along gradients; "minimal" looks for the smallest change; "query" asks for logits
    only; "shaped" keeps to changes of one kind (flows, dropped frequencies, features), and the ball is only its limit.
    """

    kind: Literal["gradient", "minimal", "query", "shaped"]
    norms: tuple[str, ...]
    targeted: bool  # takes a targeted threat
    paper: str


ALL = ("linf", "l2", "l1")

TRAITS: dict[str, Traits] = {
    "fgsm": Traits("gradient", ALL, True, "arXiv 1412.6572"),
    "bim": Traits("gradient", ALL, True, "arXiv 1607.02533"),
    "pgd": Traits("gradient", ALL, True, "arXiv 1706.06083"),
    "mi_fgsm": Traits("gradient", ALL, True, "arXiv 1710.06081"),
    "apgd": Traits("gradient", ALL, True, "arXiv 2003.01690, 2103.01208"),
    "apgd_dlr": Traits("gradient", ALL, True, "arXiv 2003.01690, 2103.01208"),
    "apgd_t": Traits("gradient", ALL, False, "arXiv 2003.01690, 2103.01208"),
    "fab": Traits("minimal", ALL, False, "arXiv 1907.02044"),
    "fab_t": Traits("minimal", ALL, False, "arXiv 1907.02044, 2003.01690"),
    "square": Traits("query", ("linf", "l2"), True, "arXiv 1912.00049"),
    "autoattack": Traits("gradient", ALL, False, "arXiv 2003.01690"),
    "carlini_wagner": Traits("minimal", ("l2",), True, "arXiv 1608.04644"),
    "ddn": Traits("minimal", ("l2",), True, "arXiv 1811.09600"),
    "deepfool": Traits("minimal", ("linf", "l2"), False, "arXiv 1511.04599"),
    "jsma": Traits("minimal", ("linf", "l1"), True, "arXiv 1511.07528"),
    "ffa": Traits("shaped", ALL, False, "arXiv 1511.05122"),
    "sta": Traits("shaped", ("linf", "l2"), True, "arXiv 1801.02612"),
    "advdrop": Traits("shaped", ("linf", "l2"), True, "arXiv 2108.09034"),
    "ssah": Traits("shaped", ("linf", "l2"), True, "arXiv 2203.05151"),
    "spsa": Traits("query", ALL, True, "arXiv 1802.05666"),
}
