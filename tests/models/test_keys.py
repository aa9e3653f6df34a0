"""Public checkpoints' own names and networks: each key map against a forward pass written from the state in those names.

The forward passes below are independent of `forearm.models`: functions of a state dict in the names that RobustBench's code declares.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from forearm.errors import ArtifactError
from forearm.models import robustbench
from forearm.models.architectures import ARCHITECTURES
from forearm.models.foreign import FOREIGN, Source
from forearm.models.keys import KEYS
from forearm.models.load import load_model
from forearm.models.robustbench import ROBUSTBENCH
from forearm.models.weights import fill
from forearm.registry import bind

State = dict[str, Tensor]
CONSTANTS = "mean=(0.5, 0.4, 0.3), std=(0.2, 0.3, 0.25)"
MEAN, STD = torch.tensor([0.5, 0.4, 0.3]).reshape(3, 1, 1), torch.tensor([0.2, 0.3, 0.25]).reshape(3, 1, 1)


class Maker:
    """A random state, entry by entry."""

    def __init__(self) -> None:
        self.state: State = {}
        self.generator = torch.Generator().manual_seed(3)

    def conv(self, name: str, inner: int, outer: int, kernel: int = 3) -> None:
        self.state[f"{name}.weight"] = torch.randn(outer, inner, kernel, kernel, generator=self.generator) / (3 * inner**0.5)

    def norm(self, name: str, width: int) -> None:
        for part, low in (("weight", 0.5), ("bias", -0.5), ("running_mean", -0.5), ("running_var", 0.5)):
            self.state[f"{name}.{part}"] = low + torch.rand(width, generator=self.generator)
        self.state[f"{name}.num_batches_tracked"] = torch.tensor(5)

    def linear(self, name: str, inner: int, outer: int = 10) -> None:
        self.state[f"{name}.weight"] = torch.randn(outer, inner, generator=self.generator)
        self.state[f"{name}.bias"] = torch.randn(outer, generator=self.generator)


def conv(s: State, name: str, x: Tensor, stride: int = 1, end: bool = False, groups: int = 1) -> Tensor:
    """A convolution; `end`: at stride 2 the one pixel of padding stands at the bottom and the right."""
    weight = s[f"{name}.weight"]
    if end and stride == 2 and weight.shape[-1] == 3:
        return F.conv2d(F.pad(x, (0, 1, 0, 1)), weight, stride=2)
    return F.conv2d(x, weight, stride=stride, padding=weight.shape[-1] // 2, groups=groups)


def norm(s: State, name: str, x: Tensor) -> Tensor:
    mean, var, gamma, beta = (s[f"{name}.{p}"][:, None, None] for p in ("running_mean", "running_var", "weight", "bias"))
    return (x - mean) / (var + 1e-5).sqrt() * gamma + beta


def head(s: State, name: str, x: Tensor) -> Tensor:
    return x.mean((2, 3)) @ s[f"{name}.weight"].T + s[f"{name}.bias"]


def preact_state(last: bool) -> State:
    """Wong2020Fast's names (`last` false) or Rice2020Overfitting's L2 (`last` true), two stages of width 4."""
    m = Maker()
    m.conv("conv1", 3, 4)
    for stage, inner, outer in ((1, 4, 4), (2, 4, 8)):
        p = f"layer{stage}.0"
        m.norm(f"{p}.bn1", inner)
        m.conv(f"{p}.conv1", inner, outer)
        m.norm(f"{p}.bn2", outer)
        m.conv(f"{p}.conv2", outer, outer)
        if inner != outer:
            m.conv(f"{p}.shortcut.0", inner, outer, 1)
    if last:
        m.norm("bn", 8)
    m.linear("linear", 8)
    return m.state


def preact_forward(s: State, x: Tensor) -> Tensor:
    last = "bn.weight" in s
    x = conv(s, "conv1", (x - MEAN) / STD)
    for p, stride in (("layer1.0", 1), ("layer2.0", 2)):
        out = F.relu(norm(s, f"{p}.bn1", x))
        kept = conv(s, f"{p}.shortcut.0", out if last else x, stride) if stride == 2 else x
        out = F.relu(norm(s, f"{p}.bn2", conv(s, f"{p}.conv1", out, stride)))
        x = conv(s, f"{p}.conv2", out) + kept
    return head(s, "linear", F.relu(norm(s, "bn", x)) if last else x)


def deep_preact_state() -> State:
    m = Maker()
    m.state |= {"mean": MEAN.clone(), "std": STD.clone()}
    m.conv("conv_2d", 3, 4)
    for stage, inner, outer in ((0, 4, 4), (1, 4, 8)):
        p = f"layer_{stage}.0"
        m.norm(f"{p}.batchnorm_0", inner)
        m.conv(f"{p}.conv_2d_1", inner, outer)
        m.norm(f"{p}.batchnorm_1", outer)
        m.conv(f"{p}.conv_2d_2", outer, outer)
        if inner != outer:
            m.conv(f"{p}.shortcut", inner, outer)
    m.norm("batchnorm", 8)
    m.linear("logits", 8)
    return m.state


def deep_preact_forward(s: State, x: Tensor) -> Tensor:
    x = conv(s, "conv_2d", (x - MEAN) / STD)
    for p, stride in (("layer_0.0", 1), ("layer_1.0", 2)):
        out = F.silu(norm(s, f"{p}.batchnorm_0", x))
        kept = conv(s, f"{p}.shortcut", x, stride, end=True) if stride == 2 else x
        out = F.silu(norm(s, f"{p}.batchnorm_1", conv(s, f"{p}.conv_2d_1", out, stride, end=True)))
        x = conv(s, f"{p}.conv_2d_2", out) + kept
    return head(s, "logits", F.silu(norm(s, "batchnorm", x)))


WIDTHS = ((1, 16, 32), (2, 32, 64), (2, 64, 128))


def wide_state(deep: bool) -> State:
    """WRN-16-2 in DeepMind's names (`deep`) or in those of TRADES, with the unused stage that its checkpoints hold."""
    m = Maker()
    n0, c0, n1, c1, cut = ("batchnorm_0", "conv_0", "batchnorm_1", "conv_1", "shortcut") if deep else (
        "bn1", "conv1", "bn2", "conv2", "convShortcut"
    )  # fmt: skip
    if deep:
        m.state |= {"mean": MEAN.clone(), "std": STD.clone()}
    m.conv("init_conv" if deep else "conv1", 3, 16)
    stages = [f"layer.{i}.block" if deep else f"block{i + 1}.layer" for i in range(3)]
    for stage, (_, inner, outer) in [*zip(stages, WIDTHS, strict=True), *([] if deep else [("sub_block1.layer", WIDTHS[0])])]:
        for i in range(2):
            p, first = f"{stage}.{i}", inner if i == 0 else outer
            m.norm(f"{p}.{n0}", first)
            m.conv(f"{p}.{c0}", first, outer)
            m.norm(f"{p}.{n1}", outer)
            m.conv(f"{p}.{c1}", outer, outer)
            if first != outer:
                m.conv(f"{p}.{cut}", first, outer, 1)
    m.norm("batchnorm" if deep else "bn1", 128)
    m.linear("logits" if deep else "fc", 128)
    return m.state


def wide_forward(s: State, x: Tensor) -> Tensor:
    deep = "init_conv.weight" in s
    n0, c0, n1, c1, cut = ("batchnorm_0", "conv_0", "batchnorm_1", "conv_1", "shortcut") if deep else (
        "bn1", "conv1", "bn2", "conv2", "convShortcut"
    )  # fmt: skip
    act: Callable[[Tensor], Tensor] = F.silu if deep else F.relu
    x = conv(s, "init_conv" if deep else "conv1", (x - MEAN) / STD)
    for k, (stride, _, _) in enumerate(WIDTHS):
        for i in range(2):
            p, by = (f"layer.{k}.block.{i}" if deep else f"block{k + 1}.layer.{i}"), stride if i == 0 else 1
            out = act(norm(s, f"{p}.{n0}", x))
            kept = conv(s, f"{p}.{cut}", out, by) if i == 0 else x
            out = act(norm(s, f"{p}.{n1}", conv(s, f"{p}.{c0}", out, by, end=deep)))
            x = conv(s, f"{p}.{c1}", out) + kept
    return head(s, "logits" if deep else "fc", act(norm(s, "batchnorm" if deep else "bn1", x)))


def resnext_state() -> State:
    """Two stages of one block, width 8, two groups of base width 32 (so 4 and 8 channels a group)."""
    m = Maker()
    m.conv("conv_1_3x3", 3, 8)
    m.norm("bn_1", 8)
    for stage, inner, middle, outer in ((1, 8, 8, 32), (2, 32, 16, 64)):
        p = f"stage_{stage}.0"
        m.conv(f"{p}.conv_reduce", inner, middle, 1)
        m.norm(f"{p}.bn_reduce", middle)
        m.conv(f"{p}.conv_conv", middle // 2, middle)
        m.norm(f"{p}.bn", middle)
        m.conv(f"{p}.conv_expand", middle, outer, 1)
        m.norm(f"{p}.bn_expand", outer)
        m.conv(f"{p}.downsample.0", inner, outer, 1)
        m.norm(f"{p}.downsample.1", outer)
    m.linear("classifier", 64)
    return m.state


def resnext_forward(s: State, x: Tensor) -> Tensor:
    x = F.relu(norm(s, "bn_1", conv(s, "conv_1_3x3", (x - MEAN) / STD)))
    for p, stride in (("stage_1.0", 1), ("stage_2.0", 2)):
        out = F.relu(norm(s, f"{p}.bn_reduce", conv(s, f"{p}.conv_reduce", x)))
        out = F.relu(norm(s, f"{p}.bn", conv(s, f"{p}.conv_conv", out, stride, groups=2)))
        out = norm(s, f"{p}.bn_expand", conv(s, f"{p}.conv_expand", out))
        x = F.relu(out + norm(s, f"{p}.downsample.1", conv(s, f"{p}.downsample.0", x, stride)))
    return head(s, "classifier", x)


PREACT = "preact_resnet(width=4, blocks=(1, 1), {})"
WIDE = "wide_resnet(depth=16, widen=2, {})"
CASES: dict[str, tuple[str, str, State, Callable[[State, Tensor], Tensor], str]] = {
    # keys, architecture, state, forward, an architecture of the same shapes that is not the network
    "wong": ("plain", PREACT.format(f"shortcut='raw', last_norm=False, {CONSTANTS}"), preact_state(False), preact_forward,
             PREACT.format(f"last_norm=False, {CONSTANTS}")),
    "rice": ("plain", PREACT.format(CONSTANTS), preact_state(True), preact_forward, PREACT.format(f"shortcut='raw', {CONSTANTS}")),
    "deepmind_preact": ("deepmind_preact", PREACT.format(f"shortcut='raw3', same=True, act='silu', {CONSTANTS}"), deep_preact_state(),
                        deep_preact_forward, PREACT.format(f"shortcut='raw3', act='silu', {CONSTANTS}")),
    "deepmind_wide": ("deepmind_wide", WIDE.format(f"act='silu', same=True, {CONSTANTS}"), wide_state(True), wide_forward,
                      WIDE.format(f"act='silu', {CONSTANTS}")),
    "trades": ("plain", WIDE.format(CONSTANTS), wide_state(False), wide_forward, WIDE.format(f"act='silu', {CONSTANTS}")),
    "augmix": ("dongxuan_resnext", f"resnext(width=8, cardinality=2, base_width=32, blocks=(1, 1), {CONSTANTS})", resnext_state(),
               resnext_forward, f"resnext(width=8, cardinality=2, base_width=32, blocks=(1, 1), act='silu', {CONSTANTS})"),
}  # fmt: skip

X = torch.rand(2, 3, 32, 32, generator=torch.Generator().manual_seed(4))


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("prefix", ["", "module.", "module.model."])
def test_a_foreign_checkpoint_gives_the_foreign_logits(case: str, prefix: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    keys, arch, state, forward, other = CASES[case]
    expected = forward(state, X)
    for name, built in (("right", arch), ("wrong", other)):
        monkeypatch.setitem(robustbench.ROBUSTBENCH, name, Source(built, "none", keys, unused=("sub_block1.",)))
    torch.save({"state_dict": {prefix + name: value for name, value in state.items()}, "epoch": 3}, tmp_path / "a.pt")
    model = load_model(f"robustbench:right={tmp_path / 'a.pt'}")
    torch.testing.assert_close(model(X), expected, rtol=1e-3, atol=1e-3)
    assert not torch.allclose(load_model(f"robustbench:wrong={tmp_path / 'a.pt'}")(X), expected, rtol=1e-2, atol=1e-2)


@pytest.mark.parametrize("case", CASES)
def test_every_entry_is_used_and_none_is_missing(case: str) -> None:
    keys, arch, state, _, _ = CASES[case]
    mapped = {name: value for name, value in KEYS[keys](state).items() if not name.startswith("sub_block1.")}
    network = bind(ARCHITECTURES, arch)()
    fill(network, mapped, case)
    for name, value in network.state_dict().items():
        if not name.endswith("num_batches_tracked"):
            assert torch.equal(value, mapped[name]), name
    with pytest.raises(ArtifactError, match="has no place"):
        fill(network, mapped | {"more.weight": torch.zeros(1)}, case)
    del mapped["conv1.weight"]
    with pytest.raises(ArtifactError, match=r"no entry 'conv1\.weight'"):
        fill(network, mapped, case)


def test_constants_in_the_file_win() -> None:
    state = preact_state(False) | {"mu": MEAN[None].clone(), "sigma": STD[None].clone()}
    network = bind(ARCHITECTURES, PREACT.format("shortcut='raw', last_norm=False"))().eval()
    fill(network, KEYS["plain"](state), "here")
    torch.testing.assert_close(network(X), preact_forward(state, X), rtol=1e-3, atol=1e-3)


def test_the_tables_name_key_maps_and_threats() -> None:
    from forearm.core.threat import Threat

    for name, source in (FOREIGN | ROBUSTBENCH).items():
        assert source.keys in KEYS, name
        assert ("silu" in source.arch) == source.keys.startswith("deepmind"), name
        if source.threat is not None:
            assert Threat.parse(source.threat).norm.name == ("l2" if name.endswith("_L2") else "linf"), name


def test_class_names_are_those_of_the_data_sets() -> None:
    from forearm.data import cifar, sets
    from forearm.models.classes import CIFAR10, IMAGENETTE

    assert cifar.CLASSES == CIFAR10
    if not (sets.root() / "imagenette" / "labels.csv").is_file():
        pytest.skip(f"no imagenette under {sets.root()}")
    rows = (sets.root() / "imagenette" / "labels.csv").read_text().splitlines()[1:]
    assert {int(row.split(",")[1]): row.split(",")[3] for row in rows} == IMAGENETTE
