"""Checkpoints of RobustBench (Croce et al., NeurIPS 2021) for CIFAR-10, loaded as "robustbench:NAME=PATH".

Names are the benchmark's; those of L2 networks end in `_L2` here, since some names stand for two networks there.
Architectures, normalisation and names of entries are those that the benchmark's own code declares. Left out: other
architectures, ensembles, and networks whose input normalisation depends on the picture (Ding2020MMA).
"""

from __future__ import annotations

from forearm.models.foreign import Source

_NONE = "mean=(0.0, 0.0, 0.0), std=(1.0, 1.0, 1.0)"
_CIFAR = "mean=(0.4914, 0.4822, 0.4465), std=(0.2471, 0.2435, 0.2616)"
_HALF = "mean=(0.5, 0.5, 0.5), std=(0.5, 0.5, 0.5)"
_ENGSTROM = "mean=(0.4914, 0.4822, 0.4465), std=(0.2023, 0.1994, 0.201)"
_AUGUSTIN = (
    "mean=(0.4913997551666284, 0.48215855929893703, 0.4465309133731618), std=(0.24703225141799082, 0.24348516474564, 0.26158783926049628)"
)
_LINF, _L2 = "linf:8/255", "l2:0.5"
_SUB = ("sub_block1.",)  # entries of a stage that the original network holds and never applies

_FAST18 = "preact_resnet(shortcut='raw', last_norm=False, {})"
_RICE18 = f"preact_resnet({_CIFAR})"
_DEEP18 = f"preact_resnet(shortcut='raw3', same=True, act='silu', {_CIFAR})"
_RESNET18 = f"resnet({_NONE})"
_RESNET50 = "resnet(blocks=(3, 4, 6, 3), block='bottleneck', {})"
_AUGMIX = f"resnext(cardinality=4, base_width=32, {_HALF})"


def _wide(depth: int, widen: int, constants: str = _NONE) -> str:
    return f"wide_resnet(depth={depth}, widen={widen}, {constants})"


def _deep(depth: int, widen: int) -> str:
    return f"wide_resnet(depth={depth}, widen={widen}, act='silu', same=True, {_CIFAR})"


def _trades(arch: str, paper: str, threat: str | None = _LINF) -> Source:
    return Source(arch, paper, threat=threat, unused=_SUB)


def _mind(depth: int, widen: int, paper: str, threat: str = _LINF) -> Source:
    return Source(_deep(depth, widen), paper, "deepmind_wide", threat=threat)


def _mind18(paper: str, threat: str = _LINF) -> Source:
    return Source(_DEEP18, paper, "deepmind_preact", threat=threat)


ROBUSTBENCH: dict[str, Source] = {
    "Addepalli2021Towards_RN18": Source(_RESNET18, "Addepalli et al., 2021", threat=_LINF),
    "Addepalli2021Towards_WRN34": _trades(_wide(34, 10), "Addepalli et al., 2021"),
    "Addepalli2022Efficient_RN18": Source(_RESNET18, "Addepalli et al., NeurIPS 2022", threat=_LINF),
    "Addepalli2022Efficient_WRN_34_10": _trades(_wide(34, 10), "Addepalli et al., NeurIPS 2022"),
    "Andriushchenko2020Understanding": Source(
        _FAST18.format(_NONE),
        "Andriushchenko and Flammarion, NeurIPS 2020",
        threat=_LINF,
        unused=("model_preact_hl1.",),
    ),
    "Augustin2020Adversarial_34_10_L2": _trades(_wide(34, 10, _AUGUSTIN), "Augustin et al., ECCV 2020", _L2),
    "Augustin2020Adversarial_L2": Source(_RESNET50.format(_AUGUSTIN), "Augustin et al., ECCV 2020", threat=_L2),
    "Carmon2019Unlabeled": _trades(_wide(28, 10), "Carmon et al., NeurIPS 2019"),
    "Chen2020Efficient": _trades(_wide(34, 10, _CIFAR), "Chen et al., 2020"),
    "Chen2021LTD_WRN34_10": _trades(_wide(34, 10), "Chen and Lee, 2021"),
    "Cui2020Learnable_34_10": _trades(_wide(34, 10), "Cui et al., ICCV 2021"),
    "Engstrom2019Robustness": Source(_RESNET50.format(_ENGSTROM), "Engstrom et al., 2019", threat=_LINF),
    "Engstrom2019Robustness_L2": Source(_RESNET50.format(_ENGSTROM), "Engstrom et al., 2019", threat=_L2),
    "Gowal2020Uncovering_28_10_extra": _mind(28, 10, "Gowal et al., 2020"),
    "Gowal2020Uncovering_34_20": _mind(34, 20, "Gowal et al., 2020"),
    "Gowal2020Uncovering_70_16": _mind(70, 16, "Gowal et al., 2020"),
    "Gowal2020Uncovering_70_16_extra": _mind(70, 16, "Gowal et al., 2020"),
    "Gowal2021Improving_28_10_ddpm_100m": _mind(28, 10, "Gowal et al., NeurIPS 2021"),
    "Gowal2021Improving_70_16_ddpm_100m": _mind(70, 16, "Gowal et al., NeurIPS 2021"),
    "Gowal2021Improving_R18_ddpm_100m": _mind18("Gowal et al., NeurIPS 2021"),
    "Hendrycks2019Using": _trades(_wide(28, 10, _HALF), "Hendrycks et al., ICML 2019"),
    "Hendrycks2020AugMix_ResNeXt": Source(_AUGMIX, "Hendrycks et al., ICLR 2020", "dongxuan_resnext"),
    "Hendrycks2020AugMix_WRN": _trades(_wide(40, 2, _HALF), "Hendrycks et al., ICLR 2020", None),
    "Huang2020Self": _trades(_wide(34, 10), "Huang et al., NeurIPS 2020"),
    "Jia2022LAS-AT_34_10": _trades(_wide(34, 10), "Jia et al., CVPR 2022"),
    "Kireev2021Effectiveness_RLAT": Source(_RICE18, "Kireev et al., UAI 2022"),
    "Kireev2021Effectiveness_RLATAugMix": Source(_RICE18, "Kireev et al., UAI 2022"),
    "Pang2022Robustness_WRN28_10": _mind(28, 10, "Pang et al., ICML 2022"),
    "Pang2022Robustness_WRN70_16": _mind(70, 16, "Pang et al., ICML 2022"),
    "Rade2021Helper_R18_ddpm": _mind18("Rade and Moosavi-Dezfooli, ICLR 2022"),
    "Rade2021Helper_R18_ddpm_L2": _mind18("Rade and Moosavi-Dezfooli, ICLR 2022", _L2),
    "Rade2021Helper_R18_extra": _mind18("Rade and Moosavi-Dezfooli, ICLR 2022"),
    "Rade2021Helper_ddpm": _mind(28, 10, "Rade and Moosavi-Dezfooli, ICLR 2022"),
    "Rade2021Helper_extra": _mind(34, 10, "Rade and Moosavi-Dezfooli, ICLR 2022"),
    "Rebuffi2021Fixing_28_10_cutmix_ddpm": _mind(28, 10, "Rebuffi et al., NeurIPS 2021"),
    "Rebuffi2021Fixing_28_10_cutmix_ddpm_L2": _mind(28, 10, "Rebuffi et al., NeurIPS 2021", _L2),
    "Rebuffi2021Fixing_70_16_cutmix_ddpm": _mind(70, 16, "Rebuffi et al., NeurIPS 2021"),
    "Rebuffi2021Fixing_70_16_cutmix_extra": _mind(70, 16, "Rebuffi et al., NeurIPS 2021"),
    "Rebuffi2021Fixing_R18_cutmix_ddpm_L2": _mind18("Rebuffi et al., NeurIPS 2021", _L2),
    "Rebuffi2021Fixing_R18_ddpm": _mind18("Rebuffi et al., NeurIPS 2021"),
    "Rice2020Overfitting": _trades(_wide(34, 20, _CIFAR), "Rice et al., ICML 2020"),
    "Rice2020Overfitting_L2": Source(_RICE18, "Rice et al., ICML 2020", threat=_L2),
    "Rony2019Decoupling_L2": _trades(_wide(28, 10, "mean=(0.491, 0.482, 0.447), std=(0.247, 0.243, 0.262)"), "Rony et al., CVPR 2019", _L2),
    "Sehwag2020Hydra": _trades(_wide(28, 10), "Sehwag et al., NeurIPS 2020"),
    "Sehwag2021Proxy": _trades(_wide(34, 10), "Sehwag et al., ICLR 2022"),
    "Sehwag2021Proxy_L2": _trades(_wide(34, 10), "Sehwag et al., ICLR 2022", _L2),
    "Sehwag2021Proxy_R18": Source(_RESNET18, "Sehwag et al., ICLR 2022", threat=_LINF),
    "Sehwag2021Proxy_R18_L2": Source(_RESNET18, "Sehwag et al., ICLR 2022", threat=_L2),
    "Sitawarin2020Improving": _trades(_wide(34, 10), "Sitawarin et al., AISec 2021"),
    "Standard": _trades(_wide(28, 10), "Croce et al., NeurIPS 2021 track on datasets", None),
    "Wang2020Improving": _trades(_wide(28, 10), "Wang et al., ICLR 2020"),
    "Wang2023Better_WRN-28-10": _mind(28, 10, "Wang et al., ICML 2023"),
    "Wang2023Better_WRN-70-16": _mind(70, 16, "Wang et al., ICML 2023"),
    "Wong2020Fast": Source(_FAST18.format(_CIFAR), "Wong et al., ICLR 2020", threat=_LINF),
    "Wu2020Adversarial": _trades(_wide(34, 10), "Wu et al., NeurIPS 2020"),
    "Wu2020Adversarial_L2": _trades(_wide(34, 10), "Wu et al., NeurIPS 2020", _L2),
    "Wu2020Adversarial_extra": _trades(_wide(28, 10), "Wu et al., NeurIPS 2020"),
    "Xu2023Exploring_WRN-28-10": _mind(28, 10, "Xu et al., ICLR 2023"),
    "Zhang2019Theoretically": _trades(_wide(34, 10), "Zhang et al., ICML 2019"),
    "Zhang2019You": _trades(_wide(34, 10), "Zhang et al., NeurIPS 2019"),
    "Zhang2020Attacks": _trades(_wide(34, 10), "Zhang et al., ICML 2020"),
    "Zhang2020Geometry": _trades(_wide(28, 10), "Zhang et al., ICLR 2021"),
}
