"""What stands on a backbone: a map of features `n d h w` -> logits `n k`. A head is named by call syntax: "mlp(dropout=0.1)"."""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from forearm.errors import SpecError
from forearm.registry import bind

HEADS: dict[str, str] = {
    "linear": "forearm.models.heads:Linear",
    "ml_decoder": "forearm.models.heads:MLDecoder",
    "mlp": "forearm.models.heads:MLP",
}


def head(spec: str, inner: int, classes: int) -> nn.Module:
    """The head that `spec` names, for `inner` channels and so many classes. SpecError for a name or option that does not exist."""
    build: Callable[[int, int], nn.Module] = bind(HEADS, spec)
    return build(inner, classes)


class Linear(nn.Module):
    """The mean over all places, layer norm, one linear layer: the head of ConvNeXt itself. Its parts have timm's names."""

    def __init__(self, inner: int, classes: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(inner, eps=1e-6)
        self.fc = nn.Linear(inner, classes)

    def forward(self, x: Tensor) -> Tensor:
        """`n d h w` -> logits `n k`."""
        logits: Tensor = self.fc(self.norm(x.mean((2, 3))))
        return logits


class MLP(nn.Module):
    """The mean over all places, for each width of `hidden` a linear layer, GELU, dropout and layer norm, then a linear layer.

    Published for 768 channels, with hidden = (512, 256) and dropout = 0.2 (Pei et al., arXiv 2205.10617, in the authors' code); as there it takes the
    place of the backbone's last layer norm too. While it trains, dropout draws from torch's generator.
    """

    def __init__(self, inner: int, classes: int, hidden: tuple[int, ...] = (512, 256), dropout: float = 0.2) -> None:
        super().__init__()
        if not isinstance(hidden, tuple) or not hidden or min(hidden) < 1 or not 0.0 <= dropout < 1.0:
            raise SpecError(f"mlp: got hidden={hidden!r}, dropout={dropout!r}; widths, and a share below 1, for example (512, 256) and 0.2")
        layers: list[nn.Module] = []
        for before, after in zip((inner, *hidden), hidden, strict=False):
            layers += [nn.Linear(before, after), nn.GELU(), nn.Dropout(dropout), nn.LayerNorm(after)]
        self.layers = nn.Sequential(*layers, nn.Linear(hidden[-1], classes))

    def forward(self, x: Tensor) -> Tensor:
        """`n d h w` -> logits `n k`."""
        logits: Tensor = self.layers(x.mean((2, 3)))
        return logits


class MLDecoder(nn.Module):
    """ML-Decoder (Ridnik et al., WACV 2023, section 2.2): groups of classes ask all places what they show, by cross-attention.

        t = relu(E x) for each place;   q_g fixed and random;   h = norm(q + drop(q));   h = norm(h + drop(attention(h, t, t)))
        h = norm(h + drop(B drop(relu(A h))));   logits of group g: W_g h_g + b

    There is no self-attention among the queries. With at most `groups` queries each answers for ceil(k / queries) classes; up to `groups` classes each has
    its own. Published: embed = 768, heads = 8, hidden = 2048, for a thousand classes and more; the defaults here are small, for ten. The queries are a
    buffer, so they are saved with the weights. While it trains, dropout draws from torch's generator.
    """

    query: Tensor

    def __init__(
        self, inner: int, classes: int, embed: int = 128, heads: int = 4, hidden: int = 256, groups: int = 100, dropout: float = 0.1
    ) -> None:
        super().__init__()
        if min(embed, heads, hidden, groups) < 1 or embed % heads or not 0.0 <= dropout < 1.0:
            raise SpecError(
                f"ml_decoder: got embed={embed!r}, heads={heads!r}, hidden={hidden!r}, groups={groups!r}, dropout={dropout!r}; "
                "sizes of 1 or more, embed a multiple of heads, a share below 1, for example embed=128, heads=4, dropout=0.1"
            )
        count = min(groups, classes)
        self.classes = classes
        self.heads = heads
        self.embed = nn.Linear(inner, embed)
        self.register_buffer("query", torch.randn(count, embed))
        self.ask, self.key, self.value, self.out = (nn.Linear(embed, embed) for _ in range(4))
        self.norm1, self.norm2, self.norm3 = (nn.LayerNorm(embed) for _ in range(3))
        self.fc1, self.fc2 = nn.Linear(embed, hidden), nn.Linear(hidden, embed)
        self.dropout = nn.Dropout(dropout)
        self.weight = nn.Parameter(torch.empty(count, embed, -(-classes // count)))
        self.bias = nn.Parameter(torch.zeros(classes))
        nn.init.xavier_normal_(self.weight)

    def forward(self, x: Tensor) -> Tensor:
        """`n d h w` -> logits `n k`."""
        tokens = F.relu(self.embed(x.flatten(2).transpose(1, 2)))
        query = self.query.expand(len(x), -1, -1)
        h = self.norm1(query + self.dropout(query))
        h = self.norm2(h + self.dropout(self.attention(h, tokens)))
        h = self.norm3(h + self.dropout(self.fc2(self.dropout(F.relu(self.fc1(h))))))
        grouped = torch.einsum("nge,gec->ngc", h, self.weight)
        return grouped.flatten(1)[:, : self.classes] + self.bias

    def attention(self, h: Tensor, tokens: Tensor) -> Tensor:
        """softmax(q k^T / sqrt(d)) v for each head, then a linear layer: `n g e` and `n t e` -> `n g e`."""
        q, k, v = (self.split(part) for part in (self.ask(h), self.key(tokens), self.value(tokens)))
        mixed: Tensor = self.out(F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2))
        return mixed

    def split(self, x: Tensor) -> Tensor:
        """`n t e` -> `n heads t e/heads`."""
        return x.reshape(*x.shape[:2], self.heads, -1).transpose(1, 2)
