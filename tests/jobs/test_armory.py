"""The armourer: labels, budgets, sizes, and independence of neighbours."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from forearm.errors import SpecError
from forearm.jobs.armory import Armory, content_id


def picture(height: int = 40, width: int = 48, channels: int = 3, seed: int = 0) -> NDArray[np.uint8]:
    return np.random.default_rng(seed).integers(0, 256, (height, width, channels), dtype=np.uint8)


def armory(pair: dict[str, str], **options: object) -> Armory:
    return Armory.open(**({"defense": "mspd(copies=2)", "threshold": 0.0} | pair | options))  # type: ignore[arg-type]


@pytest.mark.parametrize("shape", [(40, 48, 3), (40, 48, 1), (1, 1, 3), (5, 300, 3), (150, 170, 3)])
def test_an_armed_picture_is_within_its_budget_and_of_its_shape(pair: dict[str, str], shape: tuple[int, int, int]) -> None:
    pixels = picture(*shape)
    armed = armory(pair, threat="linf:6/255").arm([pixels], [None])[0]
    change = armed.pixels.astype(int) - pixels
    assert armed.pixels.shape == shape
    assert 0 < np.abs(change).max() <= 6
    assert armed.report.linf == np.abs(change).max()


def test_the_margin_rises_and_is_that_of_the_pixels(pair: dict[str, str]) -> None:
    pixels = picture()
    arms = armory(pair)
    armed = arms.arm([pixels], [3])[0]
    assert armed.report.margin_after > armed.report.margin_before
    assert arms.margins([armed.pixels], [3]) == [armed.report.margin_after]


def test_a_picture_does_not_depend_on_its_neighbours(pair: dict[str, str]) -> None:
    pictures = [picture(seed=i) for i in range(3)]
    arms = armory(pair)
    together = arms.arm(pictures, [None] * 3)
    for pixels, armed in zip(pictures, together, strict=True):
        assert np.array_equal(armory(pair).arm([pixels], [None])[0].pixels, armed.pixels)


def test_the_seed_changes_the_release(pair: dict[str, str]) -> None:
    a, b = (armory(pair, seed=seed).arm([picture()], [0])[0].pixels for seed in (0, 1))
    assert not np.array_equal(a, b)


def test_who_labels(pair: dict[str, str]) -> None:
    pixels = picture()
    given = armory(pair).arm([pixels], [7])[0].report
    assert (given.label, given.labelled_by, given.confidence, given.uncertain) == (7, "given", 1.0, False)
    assert armory(pair).arm([pixels], [None])[0].report.labelled_by == "labeller"
    unsure = armory(pair, threshold=1.0).arm([pixels], [None])[0].report
    assert (unsure.labelled_by, unsure.uncertain) == ("backbone", True)
    coupled = armory(pair | {"labeller": "backbone"}).arm([pixels], [None])[0].report
    assert coupled.labelled_by == "backbone"
    assert coupled.label == unsure.label


def test_a_wrong_label_is_hardened_too(pair: dict[str, str]) -> None:
    """The worst failure of the method, kept in sight: whatever label is given becomes the harder one to leave."""
    pixels = picture()
    right, wrong = (armory(pair).arm([pixels], [label])[0].pixels for label in (0, 1))
    before, after = armory(pair).margins([right, wrong], [0, 0])
    assert after < before


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"defense": "mspdd"}, "did you mean 'mspd'"),
        ({"defense": "mspd(copys=3)"}, "did you mean 'copies'"),
        ({"threat": "linf"}, "linf:8/255"),
        ({"threshold": 2.0}, "from 0 to 1"),
    ],
)
def test_unknown_names_are_refused_before_any_model_is_loaded(options: dict[str, object], says: str) -> None:
    with pytest.raises(SpecError, match=says):
        armory({}, **options)


def test_class_names_and_numbers(pair: dict[str, str]) -> None:
    arms = armory(pair)
    assert arms.class_index("truck", 32, 32) == arms.class_index("9", 32, 32) == 9
    with pytest.raises(SpecError, match="lorry"):
        arms.class_index("lorry", 32, 32)


def test_the_id_of_a_picture_is_its_content() -> None:
    assert content_id(picture()) == content_id(picture().copy())
    assert content_id(picture()) != content_id(picture(seed=1))
    assert content_id(picture(4, 6)) != content_id(picture(4, 6).reshape(6, 4, 3))
