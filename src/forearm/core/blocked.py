"""A strided convolution of few channels as a dense one over blocks of pixels, for gradients on a CPU."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

FEW = 4  # channels of what is convolved, up to which a CPU's kernels leave most of a vector empty on the way back


class Blocked(nn.Module):
    """What `conv` does, twice: as it is where no gradient is asked for, and over blocks of s x s pixels where one is.

        y = sum_t w_t x[s i + t],   t = s b + r   =>   y = sum_b sum_r w_(s b + r) X_r[i + b],   X_r[i] = x[s i + r]

    A convolution of stride s over c channels is one of stride 1 over the c s^2 channels of the blocks, whose kernel is `conv`'s with zeros
    around it up to whole blocks. The sums are the same but for their order. The way back, which a CPU does one channel of
    the picture at a time, is faster; the way there is a little slower. Pictures whose sides are no multiple of s are convolved as they are.
    """

    def __init__(self, conv: nn.Conv2d) -> None:
        super().__init__()
        self.conv = conv
        self.side = conv.stride[0]
        first = [-(pad // self.side) - (pad % self.side > 0) for pad in _padding(conv)]  # block of the first tap, and of the last
        last = [(kernel - 1 - pad) // self.side for kernel, pad in zip(conv.kernel_size, _padding(conv), strict=True)]
        blocks = [b - a + 1 for a, b in zip(first, last, strict=True)]
        before = [-pad - a * self.side for pad, a in zip(_padding(conv), first, strict=True)]
        after = [n * self.side - kernel - b for n, kernel, b in zip(blocks, conv.kernel_size, before, strict=True)]
        self.pad = (-first[1], last[1], -first[0], last[0])  # blocks at left, right, top and bottom
        outer, inner = conv.out_channels, conv.in_channels
        whole = F.pad(conv.weight.detach(), (before[1], after[1], before[0], after[0]))
        split = whole.reshape(outer, inner, blocks[0], self.side, blocks[1], self.side).permute(0, 1, 3, 5, 2, 4)
        self.dense = nn.Conv2d(inner * self.side**2, outer, (blocks[0], blocks[1]), bias=False, device="meta")  # its weights are not drawn
        self.dense.weight = nn.Parameter(split.reshape(self.dense.weight.shape).contiguous(), requires_grad=False)
        self.dense.bias = conv.bias

    @property
    def weight(self) -> Tensor:
        """The convolution's own, for a model that reads it."""
        return self.conv.weight

    @property
    def bias(self) -> Tensor | None:
        """The convolution's own."""
        return self.conv.bias

    def forward(self, x: Tensor) -> Tensor:
        if not (torch.is_grad_enabled() and x.requires_grad) or x.shape[2] % self.side or x.shape[3] % self.side:
            plain: Tensor = self.conv(x)
            return plain
        over: Tensor = self.dense(F.pad(F.pixel_unshuffle(x, self.side), self.pad))
        return over


def blocked(model: nn.Module) -> nn.Module:
    """`model` with each strided convolution of few channels in `Blocked` form; it is written to. Cost: no pass on data."""
    for path, module in list(model.named_modules()):
        if type(module) is nn.Conv2d and path and _fits(module):
            model.set_submodule(path, Blocked(module))
    return model


def _fits(conv: nn.Conv2d) -> bool:
    """Whether blocks give as many results as `conv` does, from few channels, and nobody watches it."""
    side = conv.stride[0]
    plain = conv.stride == (side, side) and conv.dilation == (1, 1) and conv.groups == 1 and conv.padding_mode == "zeros"
    watched = conv._forward_hooks or conv._forward_pre_hooks or conv._backward_hooks or conv._backward_pre_hooks
    if side == 1 or conv.in_channels > FEW or not plain or isinstance(conv.padding, str) or watched:
        return False
    return all(1 <= kernel - 2 * pad <= side for kernel, pad in zip(conv.kernel_size, _padding(conv), strict=True))


def _padding(conv: nn.Conv2d) -> tuple[int, int]:
    assert not isinstance(conv.padding, str)
    return (conv.padding[0], conv.padding[1])
