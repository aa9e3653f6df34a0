"""Arming for publication: the copies see its chains, at no more passes, within the same laws, and what is armed lasts."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import pytest
import torch
from torch import Tensor

from forearm.core.noise import Noise
from forearm.core.publishing import family
from forearm.core.quantize import release, to_8bit
from forearm.core.threat import Threat
from forearm.defenses.preemptive.mcgs import mcgs
from forearm.errors import SpecError
from tests.defenses.test_preemptive import noisy_net, within

THREAT = Threat.parse("linf:4/255")
Y = torch.tensor([1, 1])
SHARE = 0.2  # of the broad feature in what `tempted` reads


def photos(n: int = 2, side: int = 48) -> Tensor:
    return to_8bit(0.3 + 0.4 * Noise.of(n, seed=5).uniform(torch.empty(n, 3, 1, 1)).expand(n, 3, side, side).clone())


def tempted(x: Tensor) -> Tensor:
    """Reads a colour that alternates from column to column, which shared colours lose, and a little of a brightness that does not."""
    column = torch.arange(x.shape[3])
    fine = torch.where(column % 2 == 0, 1.0, -1.0).to(x)
    broad = torch.where(column < x.shape[3] // 2, 1.0, -1.0).to(x)
    tint = torch.tensor([1.0, -0.299 / 0.587, 0.0]).to(x).reshape(1, 3, 1, 1)  # of no brightness
    score = (x * tint * fine).mean((1, 2, 3)) + SHARE * (x * broad).mean((1, 2, 3))
    return torch.stack([-score, score], 1) * 100.0


def rise(protector: Callable[..., Tensor], channel: str) -> float:
    """How far the margin of class 1 rises by arming, both pictures seen after a channel's real codecs."""
    x, (chain,) = photos(), family(channel)
    armed = release(protector(tempted, x, Y, threat=THREAT, noise=Noise.of(2)), x, THREAT)
    return float((THREAT.margin(tempted(chain.exact(x)), Y) - THREAT.margin(tempted(chain.exact(armed)), Y)).mean())


def lasts(protector: Callable[..., Tensor]) -> bool:
    """Whether what it makes is worth half as much again, published, as what plain MSPD makes."""
    return rise(protector, "jpeg:75") > 1.5 * rise(mcgs, "jpeg:75") > 0.0


def test_what_is_armed_for_a_channel_lasts_through_it() -> None:
    assert lasts(partial(mcgs, survive="jpeg:75"))
    assert rise(partial(mcgs, survive="jpeg:75"), "none") < rise(mcgs, "none")  # it has its price where nothing happens


@pytest.mark.parametrize("mutant", ["none", "resize:4000", "jpeg:100|none|none|none|none|none|none|none"])
def test_what_sees_no_channel_does_not(mutant: str) -> None:
    assert not lasts(partial(mcgs, survive=mutant))


@pytest.mark.parametrize("threat", ["linf:8/255", "linf:0", "l2:0.5"])
@pytest.mark.parametrize("survive", ["social", "jpeg:20,resize:5"])
def test_it_stays_within_its_budget(survive: str, threat: str) -> None:
    assert within(partial(mcgs, survive=survive), Threat.parse(threat))


def test_it_takes_no_more_passes() -> None:
    rows: dict[str, list[int]] = {}
    for survive in ("none", "social"):
        seen = rows.setdefault(survive, [])

        def counted(x: Tensor, seen: list[int] = seen) -> Tensor:
            seen.append(len(x))
            return tempted(x)

        mcgs(counted, photos(), Y, threat=THREAT, noise=Noise.of(2), copies=7, inner=2, survive=survive)
    assert rows["social"] == rows["none"] == [14] * 4


def test_without_a_channel_no_draw_is_taken_and_no_byte_changes() -> None:
    x = photos()
    plain = mcgs(noisy_net, x, Y, threat=THREAT, noise=Noise.of(2), copies=4)
    assert torch.equal(mcgs(noisy_net, x, Y, threat=THREAT, noise=Noise.of(2), copies=4, survive="none"), plain)
    assert torch.equal(mcgs(noisy_net, x, Y, threat=THREAT, noise=Noise.of(2), copies=4, survive="none|none"), plain)
    assert not torch.equal(mcgs(noisy_net, x, Y, threat=THREAT, noise=Noise.of(2), copies=4, survive="jpeg:75"), plain)


def test_the_noise_decides_and_neighbours_do_not() -> None:
    x = photos(3)
    armed = partial(mcgs, tempted, threat=THREAT, copies=5, survive="social")
    together = armed(x, torch.tensor([1, 0, 1]), noise=Noise.of(3))
    assert torch.equal(armed(x, torch.tensor([1, 0, 1]), noise=Noise.of(3)), together)
    assert not torch.equal(armed(x, torch.tensor([1, 0, 1]), noise=Noise.of(3, seed=1)), together)
    for i, label in enumerate((1, 0, 1)):
        alone = armed(x[i : i + 1], torch.tensor([label]), noise=Noise.of(1, first=i))
        torch.testing.assert_close(alone[0], together[i], rtol=0, atol=1e-6)


def test_the_model_is_given_pictures_of_its_own_size() -> None:
    sizes: set[tuple[int, ...]] = set()

    def strict(x: Tensor) -> Tensor:
        sizes.add(tuple(x.shape[1:]))
        return tempted(x)

    mcgs(strict, photos(), Y, threat=THREAT, noise=Noise.of(2), copies=3, survive="resize:20,jpeg:60")
    assert sizes == {(3, 48, 48)}


def test_an_unknown_channel_is_refused() -> None:
    with pytest.raises(SpecError, match="social"):
        mcgs(tempted, photos(), Y, threat=THREAT, noise=Noise.of(2), survive="sociable")
