"""Cards: what is written is read back, and what is wrong is named in one line."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from forearm.errors import ArtifactError
from forearm.models.card import Card, Measured, card_from, card_text, read_card, write_card

CARD = Card(name="a", arch="resnet9", weights="w.safetensors", sha256="0" * 64, classes=("cat", "dog"), size=32)
FIGURE = Measured(what="clean accuracy", value=0.91, interval=(0.9, 0.92), n=1000, command="forearm models measure a")


@settings(max_examples=60, deadline=None)
@given(text=st.text(st.characters(exclude_categories=("Cs",))), value=st.floats(0, 1), n=st.integers(1, 10**6))
def test_text_and_numbers_survive_toml(text: str, value: float, n: int) -> None:
    figure = Measured(what=text, value=value, interval=(0.0, value), n=n, command=text)
    card = CARD.model_copy(update={"classes": (text, "b"), "settings": text, "measured": (figure, FIGURE)})
    assert card_from(card_text(card), "test") == card


def test_a_card_file_is_replaced_whole(tmp_path: Path) -> None:
    path = tmp_path / "card.toml"
    write_card(CARD, path)
    write_card(CARD.with_measured((FIGURE,)), path)
    assert read_card(path).measured == (FIGURE,)
    assert [p.name for p in tmp_path.iterdir()] == ["card.toml"]


def test_a_figure_of_the_same_name_is_replaced_and_others_stay() -> None:
    other = FIGURE.model_copy(update={"what": "PGD-20"})
    newer = FIGURE.model_copy(update={"value": 0.5})
    assert CARD.with_measured((FIGURE, other)).with_measured((newer,)).measured == (other, newer)


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"sha256": "xyz"}, "sha256"),
        ({"weights": "../../etc/passwd"}, "weights"),
        ({"size": 0}, "size"),
        ({"classes": ()}, "classes"),
        ({"role": "king"}, "role"),
        ({"colour": "red"}, "colour"),
    ],
)
def test_a_wrong_field_is_named(change: dict[str, object], named: str) -> None:
    text = card_text(Card.model_construct(**(CARD.model_dump() | change)))
    if named == "colour":
        text += 'colour = "red"\n'
    with pytest.raises(ArtifactError, match=f"here: {named}") as caught:
        card_from(text, "here")
    assert "\n" not in str(caught.value)


def test_broken_toml_and_missing_files_are_artifact_errors(tmp_path: Path) -> None:
    with pytest.raises(ArtifactError, match="not TOML"):
        card_from("name = ", "here")
    with pytest.raises(ArtifactError, match="no readable card"):
        read_card(tmp_path / "card.toml")
