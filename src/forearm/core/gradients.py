"""Input gradients, and what stands in for them where a defence hides them. No parameter gradient is computed or stored, no generator is touched."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from forearm.core.losses import Loss, cross_entropy
from forearm.core.noise import Noise
from forearm.errors import SpecError

Classifier = Callable[[Tensor], Tensor]  # RGB in [0, 1] `n c h w` -> logits `n k`


def input_gradient(model: Classifier, x: Tensor, y: Tensor, loss: Loss = cross_entropy) -> tuple[Tensor, Tensor]:
    """The gradient of `loss(model(x), y)` with respect to each picture (`n c h w`), and the logits (`n k`).

    The logits are float32 or wider. Each example's gradient is that of its own loss (the losses are summed).
    Cost: one forward and one backward pass.
    """
    with torch.enable_grad():
        x = x.detach().requires_grad_()
        logits = model(x)
        logits = _wide(logits)
        (gradient,) = torch.autograd.grad(loss(logits, y).sum(), x)
    return gradient, logits.detach()


def bpda(forward: Classifier, backward: Classifier) -> Classifier:
    """`forward` with the gradient of `backward` (backward pass differentiable approximation).

        value f(x),   gradient d g(x) / d x,   for any substitute g of f with results of the same shape

    The value is f's to the bit wherever g is finite. Works on any functions of a tensor, so also on a part of a model. Source: Athalye et al.,
    ICML 2018 (arXiv 1802.00420), section 4.1. Cost: a forward pass of both and a backward pass of g; without a graph, `forward` alone.
    """

    def classify(x: Tensor) -> Tensor:
        if not torch.is_grad_enabled():
            return forward(x)
        with torch.no_grad():
            value = forward(x).detach()  # an identity hands back x itself, whose own gradient must not count
        guide = backward(x)
        return value + (guide - guide.detach())

    return classify


def straight_through(transform: Callable[[Tensor], Tensor]) -> Callable[[Tensor], Tensor]:
    """`transform` of pictures with the gradient of the identity: `bpda` for what changes a picture little and keeps its shape."""
    return bpda(transform, _identity)


def expectation(models: Sequence[Classifier], weights: Sequence[float] | None = None, *, recompute: bool = True) -> Classifier:
    """What models that are drawn with probabilities `weights` (None: all equal) say on the average: `n c h w` -> log probabilities `n k`.

        log sum_t w_t softmax(f_t(x))

    Exact EOT over a randomness that can be enumerated. It is the mean *probability*: its cross-entropy is -log of the chance that a draw from
    the whole says y, so a model that is already fooled stops pulling, where the mean of the *losses* (what `copies` of an attack average;
    an upper bound of this one by Jensen) and the mean of the *logits* let one over-confident model outvote the rest. For one model it is
    log softmax, of the same margins. Weights are scaled to sum 1. Source: Athalye et al., ICML 2018 (arXiv 1707.07397), who take the mean of the
    losses. Raises SpecError for no models or for weights that do not fit. Cost: a forward and a backward pass of each; with `recompute`
    one more forward pass and the memory of one model's graph instead of all.
    """
    share = [1.0] * len(models) if weights is None else list(weights)
    if not models or len(share) != len(models) or min(share) < 0.0 or not 0.0 < sum(share) < math.inf:
        raise SpecError(
            f"expectation: got {len(models)} models and weights {share!r}; one weight of 0 or more each, for example [0.5, 0.5]"
        )
    total = sum(share)

    def classify(x: Tensor) -> Tensor:
        lean = recompute and torch.is_grad_enabled() and x.requires_grad
        said = []
        for model, weight in zip(models, share, strict=True):
            if weight > 0.0:
                logits = checkpoint(model, x, use_reentrant=False) if lean else model(x)
                said.append(_log_softmax(logits) + math.log(weight / total))
        return torch.stack(said).logsumexp(0)

    return classify


def eot(model: Classifier, copies: int, *, recompute: bool = True) -> Classifier:
    """`expectation` over `copies` passes of a model that draws its own randomness, anew in every call: `n c h w` -> log probabilities `n k`.

    An estimate of log E softmax(f(x)) from `copies` draws. Raises SpecError for fewer than one. Cost: `copies` passes, as in `expectation`.
    """
    if copies < 1:
        raise SpecError(f"eot: got copies={copies!r}; 1 or more, for example 20")
    return expectation([model] * copies, recompute=recompute)


def finite_difference_gradient(
    model: Classifier,
    x: Tensor,
    y: Tensor,
    loss: Loss = cross_entropy,
    *,
    step: float = 1e-3,
    directions: int | None = None,
    noise: Noise | None = None,
) -> Tensor:
    """The gradient of `loss(model(x), y)` (`n c h w`) from values of the model alone, by central differences of `step`.

        None: along every pixel, (L(x + h e_i) - L(x - h e_i)) / 2h;
        m directions: sum_j v_j (L(x + h v_j) - L(x - h v_j)) / 2h,   v_j orthonormal, from `noise`

    The second is the gradient projected on a random m-dimensional space: its expected share of the whole is m / d (times d / m it is unbiased),
    and for m = d it is the whole. `step` in units of the range [0, 1]: the error is the third derivative times h^2 / 6, and rounding,
    about 1e-7 L / h in float32. Points are not clipped to [0, 1]. The loss is subtracted in float64. Raises SpecError for a step that is not
    positive, for directions that are not 1 to d, and for directions without noise. Cost: 2 d or 2 m forward passes, no backward pass.
    """
    size = x[0].numel()
    count = size if directions is None else directions
    if not 0.0 < step < math.inf or not 1 <= count <= size:
        raise SpecError(
            f"finite differences: got step={step!r}, directions={directions!r}; above 0, and 1 to {size}, for example 1e-3 and 64"
        )
    if directions is None:
        frame = torch.eye(size, dtype=x.dtype, device=x.device).expand(len(x), -1, -1)
    elif noise is not None:
        frame = _orthonormal(noise.normal(x.flatten(1)[:, None].expand(-1, count, -1).double())).to(x)
    else:
        raise SpecError(f"finite differences: got directions={directions} without noise; both, for example noise=Noise.of(n)")
    x = x.detach()
    gradient = torch.zeros_like(x)
    with torch.no_grad():
        for j in range(count):
            v = frame[:, j].reshape(x.shape)
            up, down = (loss(_wide(model(x + sign * step * v)), y).double() for sign in (1.0, -1.0))
            slope = (up - down) / (2.0 * step)
            gradient += slope.to(x).reshape(-1, *[1] * (x.ndim - 1)) * v
    return gradient


def _orthonormal(rows: Tensor) -> Tensor:
    """Rows (`n m d`) turned into orthonormal ones of the same span."""
    columns: Tensor = torch.linalg.qr(rows.transpose(1, 2)).Q
    return columns.transpose(1, 2)


def _identity(x: Tensor) -> Tensor:
    return x


def _wide(logits: Tensor) -> Tensor:
    return logits if logits.dtype == torch.float64 else logits.float()


def _log_softmax(logits: Tensor) -> Tensor:
    return _wide(logits).log_softmax(1)
