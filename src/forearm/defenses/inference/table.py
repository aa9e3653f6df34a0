"""The defences at test time by name: what hardens a model, and what an attacker who knows differentiates."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Inference:
    """One defence that wraps a model.

    harden: "package.module:function", (model: nn.Module, *, <options>) -> nn.Module, RGB in [0, 1] -> logits, with the state dict of the
      bare model; unmask: the same for a function (bare model, *, <the same options, the same defaults>) -> Classifier, what an informed attacker
      differentiates, or None where nobody has written one; random: whether the hardened model draws from torch's generator in every pass.
    """

    harden: str
    unmask: str | None
    random: bool
    paper: str


_GCM = "GCM: Pei et al., arXiv 2205.10617 (2022)"
_PAD = "Xie et al., ICLR 2018 (arXiv 1711.01991); as in Pei et al., arXiv 2205.10617"
_GUO = "Guo et al., ICLR 2018 (arXiv 1711.00117)"
_XU = "Xu et al., NDSS 2018 (arXiv 1704.01155)"
_LIU = "Liu et al., ECCV 2018 (arXiv 1712.00673), at the pictures alone"
_MID = "MID: Zhang et al., arXiv 2404.03340 (TPAMI 2024), with `forearm train mid`; MagNet: Meng and Chen, CCS 2017, with `forearm train denoising`"
_ANTI = "Alfarra et al., AAAI 2022 (arXiv 2103.14347)"

INFERENCE: dict[str, Inference] = {
    "conceal": Inference("forearm.defenses.inference.conceal:conceal", "forearm.defenses.inference.conceal:bare", False, _GCM),
    "resize_pad": Inference(
        "forearm.defenses.inference.resize_pad:resize_pad", "forearm.defenses.inference.resize_pad:expected", True, _PAD
    ),
    "jpeg": Inference("forearm.defenses.inference.purify:jpeg", "forearm.defenses.inference.purify:through_jpeg", False, _GUO),
    "bit_depth": Inference(
        "forearm.defenses.inference.purify:bit_depth", "forearm.defenses.inference.purify:through_bit_depth", False, _XU
    ),
    "median": Inference("forearm.defenses.inference.purify:median", "forearm.defenses.inference.purify:median", False, _XU),
    "gaussian": Inference("forearm.defenses.inference.purify:gaussian", "forearm.defenses.inference.purify:gaussian", False, _XU),
    "total_variation": Inference(
        "forearm.defenses.inference.purify:total_variation", "forearm.defenses.inference.purify:total_variation", False, _GUO
    ),
    "regenerate": Inference(
        "forearm.defenses.inference.regenerate:regenerate", "forearm.defenses.inference.regenerate:regenerate", False, _MID
    ),
    "noise": Inference("forearm.defenses.inference.purify:noise", "forearm.defenses.inference.purify:through_noise", True, _LIU),
    "anti_adversary": Inference(
        "forearm.defenses.inference.anti_adversary:anti_adversary", "forearm.defenses.inference.anti_adversary:bare", False, _ANTI
    ),
}
