"""Counter-based noise: a number is a hash of (seed, example id, draw, position).

An example's noise is the same in any batch, shard or machine, and no global generator is touched, so runs resume, split
and merge without changing a digit.
"""

from __future__ import annotations

import hashlib
import math
from dataclasses import dataclass, field

import torch
from torch import Tensor

_GOLDEN = -7046029254386353131  # 0x9E3779B97F4A7C15 as a signed 64-bit integer
_MIX_1 = -4658895280553007687  # 0xBF58476D1CE4E5B9
_MIX_2 = -7723592293110705685  # 0x94D049BB133111EB


def mix(x: Tensor) -> Tensor:
    """The finaliser of SplitMix64 (Steele, Lea and Flood, OOPSLA 2014) on int64, which wraps as uint64 does."""
    x = (x ^ _shift(x, 30)) * _MIX_1
    x = (x ^ _shift(x, 27)) * _MIX_2
    return x ^ _shift(x, 31)


def _shift(x: Tensor, bits: int) -> Tensor:
    """Logical shift to the right (int64's own is arithmetic)."""
    return (x >> bits) & ((1 << (64 - bits)) - 1)


@dataclass(slots=True)
class _Draws:
    """How many draws a Noise has given; the only state, and it belongs to one Noise."""

    given: int = 0


@dataclass(frozen=True, slots=True)
class Noise:
    """Random numbers for a batch whose examples have the given ids (`n`, int64).

    Every call takes the next draw. `at(index)` keeps the draw count of its parent at that moment; `stream(name)` starts
    an independent sequence, so that two consumers cannot shift each other's draws.
    """

    seed: int
    ids: Tensor
    _draws: _Draws = field(default_factory=_Draws, repr=False, compare=False)

    @classmethod
    def of(cls, n: int, seed: int = 0, first: int = 0) -> Noise:
        """Noise for `n` examples with ids first, first + 1, ..."""
        return cls(seed, torch.arange(first, first + n))

    def stream(self, name: str | int) -> Noise:
        """An independent sequence for the same examples, named by a word or a number, from its first draw."""
        key = hashlib.blake2b(f"{self.seed}/{name!r}".encode(), digest_size=8).digest()
        return Noise(int.from_bytes(key, "little", signed=True), self.ids)

    def at(self, index: Tensor) -> Noise:
        """The noise of a part of the batch (`index`: positions or a mask), from here on."""
        return Noise(self.seed, self.ids[index.to(self.ids.device)], _Draws(self._draws.given))

    def bits(self, shape: tuple[int, ...], device: torch.device | None = None) -> Tensor:
        """53 random bits per element of `n, *shape`, int64 in [0, 2^53)."""
        return self._bits(shape, device, 1)[0]

    def _bits(self, shape: tuple[int, ...], device: torch.device | None, draws: int) -> Tensor:
        """The next draws of `bits`, `draws n *shape`."""
        first = self._draws.given + 1
        self._draws.given += draws
        ids = self.ids.to(device=device, dtype=torch.int64)
        seed = torch.tensor(self.seed, dtype=torch.int64, device=device) * _GOLDEN
        steps = torch.arange(first, first + draws, dtype=torch.int64, device=device) * _GOLDEN
        key = mix(mix(mix(seed) + ids * _GOLDEN) + steps[:, None])
        position = torch.arange(1, math.prod(shape) + 1, device=device, dtype=torch.int64) * _GOLDEN
        return _shift(mix(key[..., None] + position), 11).reshape(draws, len(ids), *shape)

    def uniform(self, like: Tensor, low: float = 0.0, high: float = 1.0) -> Tensor:
        """Uniform numbers in [low, high], of the shape, type and device of `like` (`n ...`)."""
        return self.uniforms(like, 1, low, high)[0]

    def uniforms(self, like: Tensor, draws: int, low: float = 0.0, high: float = 1.0) -> Tensor:
        """What `draws` calls of `uniform` would give, to the bit, `draws n ...`; made together, small pictures take a fifth of the time."""
        u = self._bits(tuple(like.shape[1:]), like.device, draws).to(torch.float64) * 2.0**-53
        return (low + (high - low) * u).to(like.dtype)

    def normal(self, like: Tensor) -> Tensor:
        """Standard normal numbers (Box-Muller), of the shape, type and device of `like`."""
        shape = tuple(like.shape[1:])
        u = (self.bits(shape, like.device).to(torch.float64) + 1.0) * 2.0**-53
        v = self.bits(shape, like.device).to(torch.float64) * 2.0**-53
        return ((-2.0 * u.log()).sqrt() * (2.0 * math.pi * v).cos()).to(like.dtype)

    def integers(self, like: Tensor, high: int) -> Tensor:
        """Integers in [0, high), int64, of the shape and device of `like`."""
        return self.bits(tuple(like.shape[1:]), like.device) % high
