"""The armourer: labels, budgets, sizes, and independence of neighbours."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image

from forearm.core.noise import Noise
from forearm.core.precision import fast
from forearm.core.quantize import release
from forearm.core.threat import Threat
from forearm.defenses.preemptive.ensemble import Ensemble
from forearm.defenses.preemptive.single_step import s_fgsm
from forearm.errors import SpecError
from forearm.evaluate.defense import usual
from forearm.jobs.arm import Armed
from forearm.jobs.armory import Armory, as_tensor, content_id
from forearm.models.load import load_model
from tests.models.tiny import write_model


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


def test_a_picture_gets_the_same_bytes_on_any_number_of_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of the embedded photo pair. The mutant: cores that share the sums of one picture."""
    rng, before = np.random.default_rng(1), torch.get_num_threads()
    photos = [np.asarray(Image.fromarray(rng.integers(0, 256, (5, 5, 3), dtype=np.uint8)).resize((160, 144))) for _ in range(2)]
    arms = Armory.open("mspd(copies=2)", device="cpu")

    def armed(threads: int) -> list[Armed]:
        torch.set_num_threads(threads)
        return arms.arm(photos, [None, 3])

    try:
        alone, shared = armed(1), armed(2)
        monkeypatch.setattr(Armory, "hands", 1)
        mutant = armed(2)
    finally:
        torch.set_num_threads(before)
    for one, two in zip(alone, shared, strict=True):
        assert np.array_equal(one.pixels, two.pixels)
        assert one.report == two.report
    assert any(one.report != two.report for one, two in zip(alone, mutant, strict=True))


def test_the_seed_changes_the_release(pair: dict[str, str]) -> None:
    a, b = (armory(pair, seed=seed).arm([picture()], [0])[0].pixels for seed in (0, 1))
    assert not np.array_equal(a, b)


def test_several_backbones_are_one_ensemble(pair: dict[str, str], tmp_path: Path) -> None:
    """Named by all, with all their weights; labels and margins are the first's. The mutants: the order turned, or the second one left out."""
    second = tmp_path / "second"
    write_model(second, seed=5)
    pixels, both = picture(32, 32), pair | {"backbone": f"{pair['backbone']}+{second}"}
    arms = armory(both, defense="s_fgsm")
    armed = arms.arm([pixels], [3])[0]
    models = [load_model(name) for name in both["backbone"].split("+")]
    x, y = as_tensor(pixels, "cpu"), torch.tensor([3])
    noise, threat = Noise(0, torch.tensor([content_id(pixels)])), Threat.parse("linf:8/255")
    expected = release(s_fgsm(Ensemble(tuple(fast(model) for model in models)), x, y, threat=threat, noise=noise), x, threat)
    assert np.array_equal(armed.pixels, (expected[0].permute(1, 2, 0) * 255).round().to(torch.uint8).numpy())
    alone = armory(pair, defense="s_fgsm").arm([pixels], [3])[0]
    assert not np.array_equal(armed.pixels, alone.pixels)
    assert armed.report.margin_before == alone.report.margin_before
    turned = armory(pair | {"backbone": f"{second}+{pair['backbone']}"}, defense="s_fgsm").arm([pixels], [3])[0]
    assert turned.report.margin_before != armed.report.margin_before
    known = arms.settings(32, 32)
    assert known["backbone"] == "+".join(model.card.name for model in models)
    assert known["backbone_sha256"] == "+".join(model.card.sha256 for model in models)


def test_what_is_armed_with_where_nobody_says() -> None:
    """Several embedded backbones for the default, one for the published methods and for who names one."""
    known = [Armory.open(device="cpu", **options).settings(32, 32) for options in ({}, {"defense": "mspd"}, {"backbone": "cifar10_wide"})]  # type: ignore[arg-type]
    assert [one["defense"] for one in known] == ["ensemble", "mspd", "ensemble"]
    assert [one["backbone"] for one in known] == [usual("ensemble", True)[0], "cifar10_backbone", "cifar10_wide"]
    assert "+" in str(known[0]["backbone"])


def test_backbones_of_other_sizes_or_classes_are_no_ensemble(pair: dict[str, str], tmp_path: Path) -> None:
    other = tmp_path / "other"
    write_model(other, size=48)
    with pytest.raises(
        SpecError, match=r"backbone: 'other' has other picture size than .*; .* for example 'cifar10_backbone\+cifar10_preact'"
    ):
        armory(pair | {"backbone": f"{pair['backbone']}+{other}"}).arm([picture()], [0])


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
