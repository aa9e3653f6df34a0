"""A model behind something that happens to its pictures: the shape of every defence at test time."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, fx, nn


@fx.wrap
def seen(before: nn.Module, x: Tensor) -> Tensor:
    """`before(x)`, a single step to torch.fx: `before` may look at the values of its pictures."""
    made: Tensor = before(x)
    return made


class Hardened(nn.Module):
    """`model(before(x))`: `n c h w` in [0, 1] -> logits `n k`.

    Its state dict is the model's, key for key: weights of the bare model load into it and the other way round, also as part of a larger model.
    `train()`, `eval()` and `to()` reach the model, whose weights are shared, not copied. `before` holds no weights.
    """

    def __init__(self, model: nn.Module, before: nn.Module) -> None:
        super().__init__()
        self.model = model
        self.before = before
        self.training = model.training  # alone: the parts of the model keep their modes

    def forward(self, x: Tensor) -> Tensor:
        """The logits of `x`. Cost: one pass of the model and what `before` costs."""
        logits: Tensor = self.model(seen(self.before, x))
        return logits

    def state_dict(self, *, destination: Any = None, prefix: str = "", keep_vars: bool = False) -> dict[str, Any]:  # type: ignore[override]
        """The state dict of the model."""
        state: dict[str, Any] = self.model.state_dict(destination=destination, prefix=prefix, keep_vars=keep_vars)
        return state

    def load_state_dict(self, state_dict: Mapping[str, Any], strict: bool = True, assign: bool = False) -> Any:
        """Load a state dict of the model, as the model itself does."""
        return self.model.load_state_dict(state_dict, strict, assign)

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *rest: Any) -> None:
        """As a part of a larger model: its keys are found one level further down."""
        for key in [key for key in state_dict if key.startswith(prefix)]:
            state_dict[f"{prefix}model.{key.removeprefix(prefix)}"] = state_dict.pop(key)
        super()._load_from_state_dict(state_dict, prefix, *rest)


def looks_at_values(x: Tensor) -> bool:
    """Whether code runs on real pictures, whose values may be looked at: not while a graph is captured (torch.compile, torch.export, CUDA)."""
    return not torch.compiler.is_compiling() and not (x.is_cuda and torch.cuda.is_current_stream_capturing())
