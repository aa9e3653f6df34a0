"""Heads: the published sizes, ML-Decoder against torch's own attention, groups of classes, and what is refused."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from forearm.errors import SpecError
from forearm.models.heads import HEADS, MLP, Linear, MLDecoder, head


def features(n: int = 3, d: int = 6) -> Tensor:
    return torch.rand(n, d, 2, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize(
    "spec", ["linear", "mlp(hidden=(5, 4))", "ml_decoder(embed=8, heads=2, hidden=6)", "ml_decoder(embed=8, heads=2, hidden=6, groups=3)"]
)
def test_every_head_gives_logits_that_no_neighbour_changes(spec: str) -> None:
    torch.manual_seed(0)
    made, x = head(spec, 6, 7).double().eval(), features().requires_grad_()
    logits = made(x)
    assert logits.shape == (3, 7)
    torch.testing.assert_close(made(x[1:2]), logits[1:2], rtol=1e-9, atol=1e-12)
    (slope,) = torch.autograd.grad(logits.square().sum(), x)
    assert bool((slope.flatten(1).abs().sum(1) > 0).all())
    assert {spec.partition("(")[0] for spec in ("linear", "mlp", "ml_decoder")} == set(HEADS)


def test_the_linear_head_is_a_norm_and_a_product() -> None:
    made, x = Linear(6, 2).double(), features()
    mean = x.flatten(2).mean(2)
    normed = (mean - mean.mean(1, keepdim=True)) / (mean.var(1, unbiased=False, keepdim=True) + 1e-6).sqrt()
    torch.testing.assert_close(made(x), normed @ made.fc.weight.T + made.fc.bias)


def test_the_published_mlp() -> None:
    """768 - 512 - 256 - k, each hidden layer with GELU, dropout of 0.2 and a norm behind them."""
    made = MLP(768, 100)
    kinds = [type(layer) for layer in made.layers]
    assert kinds == [nn.Linear, nn.GELU, nn.Dropout, nn.LayerNorm] * 2 + [nn.Linear]
    assert sum(p.numel() for p in made.parameters()) == 769 * 512 + 2 * 512 + 513 * 256 + 2 * 256 + 257 * 100
    assert {layer.p for layer in made.layers if isinstance(layer, nn.Dropout)} == {0.2}


def decoder(classes: int, groups: int = 100) -> MLDecoder:
    torch.manual_seed(0)
    made = MLDecoder(6, classes, embed=8, heads=2, hidden=5, groups=groups).double().eval()
    nn.init.normal_(made.bias)
    return made


def slow(made: MLDecoder, x: Tensor) -> Tensor:
    """The same by torch's MultiheadAttention and a loop over the classes."""
    attention = nn.MultiheadAttention(8, 2, batch_first=True).double()
    asks = (made.ask, made.key, made.value)
    attention.load_state_dict({
        "in_proj_weight": torch.cat([part.weight for part in asks]), "in_proj_bias": torch.cat([part.bias for part in asks]),
        "out_proj.weight": made.out.weight, "out_proj.bias": made.out.bias,
    })  # fmt: skip
    tokens = made.embed(x.flatten(2).mT).relu()
    q = F.layer_norm(2.0 * made.query, (8,), made.norm1.weight, made.norm1.bias).expand(len(x), -1, -1)
    h = F.layer_norm(q + attention(q, tokens, tokens)[0], (8,), made.norm2.weight, made.norm2.bias)
    h = F.layer_norm(h + made.fc2(made.fc1(h).relu()), (8,), made.norm3.weight, made.norm3.bias)
    each = -(-made.classes // len(made.query))
    columns = [h[:, c // each] @ made.weight[c // each, :, c % each] + made.bias[c] for c in range(made.classes)]
    return torch.stack(columns, 1)


@pytest.mark.parametrize(("classes", "groups"), [(5, 100), (7, 3), (6, 3), (9, 1)])
def test_ml_decoder_is_its_equation(classes: int, groups: int) -> None:
    made, x = decoder(classes, groups), features()
    torch.testing.assert_close(made(x), slow(made, x), rtol=1e-9, atol=1e-9)
    with torch.no_grad():
        made.query.mul_(-1.0)  # the mutant: other questions, other answers
    before = decoder(classes, groups)(x)
    assert not torch.allclose(made(x), before, rtol=1e-3)


def test_its_queries_are_saved_and_not_trained() -> None:
    made = decoder(5)
    assert "query" in made.state_dict()
    assert "query" not in dict(made.named_parameters())


@pytest.mark.parametrize(
    "spec",
    [
        "other",
        "mlp(hidden=())",
        "mlp(hidden=(0,))",
        "mlp(dropout=1.0)",
        "mlp(width=3)",
        "ml_decoder(embed=6, heads=4)",
        "ml_decoder(groups=0)",
        "ml_decoder(dropout=-0.1)",
    ],
)
def test_wrong_heads_are_refused(spec: str) -> None:
    with pytest.raises(SpecError, match="got") as error:
        head(spec, 6, 7)
    assert "\n" not in str(error.value)
