"""Names of entries in public checkpoints -> names in this project's networks.

A key map is a function of a whole state, applied once at loading.
"""

from __future__ import annotations

import re
from collections.abc import Callable

from torch import Tensor

from forearm.models.mobilenet import dequantise

State = dict[str, Tensor]
KeyMap = Callable[[State], State]
Renames = tuple[tuple[str, str], ...]  # patterns and replacements, each applied to every name, in order

PREFIX = re.compile(r"^(?:(?:module|model|_orig_mod)\.)+")  # of DataParallel, of a wrapper that normalises, of torch.compile
COMMON: Renames = ((r"^(?:mu|mean)$", "normalize.mean"), (r"^(?:sigma|std)$", "normalize.std"))

CNN_A: Renames = ((r"^7\.", "8."), (r"^5\.", "6."), (r"^2\.", "3."), (r"^0\.", "1."))

# Gowal et al., 2020: https://github.com/google-deepmind/deepmind-research/tree/master/adversarial_robustness
DEEPMIND_WIDE: Renames = (
    (r"\.batchnorm_1\.", ".bn2."),
    (r"\.batchnorm_0\.", ".bn1."),
    (r"\.conv_1\.", ".conv2."),
    (r"\.conv_0\.", ".conv1."),
    (r"\.shortcut\.", ".convShortcut."),
    (r"^layer\.0\.block\.", "block1.layer."),
    (r"^layer\.1\.block\.", "block2.layer."),
    (r"^layer\.2\.block\.", "block3.layer."),
    (r"^init_conv\.", "conv1."),
    (r"^batchnorm\.", "bn1."),
    (r"^logits\.", "fc."),
)
DEEPMIND_PREACT: Renames = (
    (r"\.batchnorm_1\.", ".bn2."),
    (r"\.batchnorm_0\.", ".bn1."),
    (r"\.conv_2d_2\.", ".conv2."),
    (r"\.conv_2d_1\.", ".conv1."),
    (r"\.shortcut\.", ".shortcut.0."),
    (r"^layer_3\.", "layer4."),
    (r"^layer_2\.", "layer3."),
    (r"^layer_1\.", "layer2."),
    (r"^layer_0\.", "layer1."),
    (r"^conv_2d\.", "conv1."),
    (r"^batchnorm\.", "bn."),
    (r"^logits\.", "linear."),
)
# The ResNeXt of D-X-Y/ResNeXt-DenseNet, which AugMix uses.
DONGXUAN_RESNEXT: Renames = (
    (r"^conv_1_3x3\.", "conv1."),
    (r"^bn_1\.", "bn1."),
    (r"^classifier\.", "linear."),
    (r"^stage_", "layer"),
    (r"\.conv_reduce\.", ".conv1."),
    (r"\.bn_reduce\.", ".bn1."),
    (r"\.conv_conv\.", ".conv2."),
    (r"\.bn\.", ".bn2."),
    (r"\.conv_expand\.", ".conv3."),
    (r"\.bn_expand\.", ".bn3."),
    (r"\.downsample\.", ".shortcut."),
)


def renamed(state: State, renames: Renames) -> State:
    """`state` under new names, without the prefixes that wrappers add."""
    out: State = {}
    for name, value in state.items():
        new = PREFIX.sub("", name)
        for pattern, replacement in (*renames, *COMMON):
            new = re.sub(pattern, replacement, new)
        out[new] = value
    return out


KEYS: dict[str, KeyMap] = {
    "plain": lambda state: renamed(state, ()),
    "cnn_a": lambda state: renamed(state, CNN_A),
    "deepmind_wide": lambda state: renamed(state, DEEPMIND_WIDE),
    "deepmind_preact": lambda state: renamed(state, DEEPMIND_PREACT),
    "dongxuan_resnext": lambda state: renamed(state, DONGXUAN_RESNEXT),
    "quantised": dequantise,
}
