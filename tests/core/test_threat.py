"""Threat: reading, writing, projecting and judging."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from forearm.core.noise import Noise
from forearm.core.norms import L1, L2, LINF, NORMS, Norm
from forearm.core.threat import Threat
from forearm.errors import SpecError


@pytest.mark.parametrize(
    ("text", "threat"),
    [
        ("linf:8/255", Threat(LINF, 8 / 255)),
        (" L2:0.5 ", Threat(L2, 0.5)),
        ("l1:12", Threat(L1, 12.0)),
        ("targeted:linf:4/255", Threat(LINF, 4 / 255, targeted=True)),
        ("linf:0", Threat(LINF, 0.0)),
        ("linf:8.5/255", Threat(LINF, 8.5 / 255)),
    ],
)
def test_parse(text: str, threat: Threat) -> None:
    assert Threat.parse(text) == threat


@pytest.mark.parametrize(
    "text",
    [
        "", "linf", "linf:", "linf:/255", "linf:8/", "linf:-1/255", "linf:nan", "linf:inf", "linf:1e999", "linf:1e999/3",
        "linf:8/0", "l3:1", "linf:8/255:9", "targeted:8/255", "linf:8/255/2",
    ],
)  # fmt: skip
def test_parse_refuses_with_an_example(text: str) -> None:
    with pytest.raises(SpecError, match=r"threat: got .*; .*for example") as error:
        Threat.parse(text)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("targeted", [False, True])
@pytest.mark.parametrize("eps", [0.0, 8 / 255, 8.5 / 255, 8 / 255 + 1e-9, 0.5, 1.0, 12.25, 1e-7])
@pytest.mark.parametrize("norm", list(NORMS.values()), ids=lambda n: n.name)
def test_text_names_the_same_threat(norm: object, eps: float, targeted: bool) -> None:
    threat = Threat(norm, eps, targeted)  # type: ignore[arg-type]
    assert Threat.parse(str(threat)) == threat


RADII = st.one_of(
    st.floats(0.0, 1e300),
    st.integers(0, 10**7).map(lambda level: level / 255),
    st.integers(0, 10**9).map(float),
    st.integers(0, 10**6).map(lambda thousandths: thousandths / 1000),
    st.fractions(0, 100, max_denominator=99).map(float),
)


@given(st.sampled_from((LINF, L2, L1)), RADII, st.booleans())
def test_every_threat_is_read_back_exactly(norm: Norm, eps: float, targeted: bool) -> None:
    threat = Threat(norm, eps, targeted)
    assert Threat.parse(str(threat)) == threat


@pytest.mark.parametrize(
    ("text", "written"),
    [
        ("linf:8/255", "linf:8/255"),
        ("linf:1", "linf:255/255"),  # as it always was: stored cells have their keys from it
        ("linf:0", "linf:0/255"),
        ("linf:0.2", "linf:51/255"),
        ("linf:0.5", "linf:0.5"),
        ("linf:2", "linf:510/255"),
        ("targeted:l2:0.5", "targeted:l2:0.5"),
        ("l1:80", "l1:80"),
        ("l1:12", "l1:12"),
        ("l1:0", "l1:0"),
        ("l1:1000000", "l1:1000000"),
        ("l2:51/255", "l2:0.2"),
        ("l2:8/255", "l2:8/255"),
        ("l2:300/255", "l2:1.1764705882352942"),
        ("l2:8/7", "l2:1.1428571428571428"),
    ],
)
def test_text_is_short(text: str, written: str) -> None:
    assert str(Threat.parse(text)) == written


@pytest.mark.parametrize("norm", list(NORMS.values()), ids=lambda n: n.name)
def test_project_and_sample_stay_in_ball_and_box(norm: object) -> None:
    threat = Threat(norm, 0.3)  # type: ignore[arg-type]
    x = torch.rand(5, 3, 6, 6, generator=torch.Generator().manual_seed(0))
    far = x + torch.randn(x.shape, generator=torch.Generator().manual_seed(1))
    for moved in (threat.project(far, x), threat.sample(x, Noise.of(5))):
        assert bool((threat.distance(moved, x) <= 0.3 * (1 + 1e-5)).all())
        assert float(moved.min()) >= 0.0
        assert float(moved.max()) <= 1.0
        assert float(threat.distance(moved, x).max()) > 0.05
    assert not bool((threat.distance(far, x) <= 0.3 * (1 + 1e-5)).any())  # the mutant: no projection


def test_margin_is_above_zero_where_the_attacker_won() -> None:
    logits = torch.tensor([[3.0, 1.0, 0.0], [0.0, 2.0, 1.5], [1.0, 0.0, 4.0]])
    y = torch.tensor([0, 0, 2])
    assert Threat().margin(logits, y).tolist() == [-2.0, 2.0, -3.0]
    assert Threat(targeted=True).margin(logits, y).tolist() == [2.0, -2.0, 3.0]
