"""Cells: what their keys depend on, and that these never change by accident."""

from __future__ import annotations

import dataclasses
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from forearm.errors import ArtifactError
from forearm.evaluate.cell import BLOCK, Cell, canonical, cell_from, spans

CELL = Cell(
    dataset="cifar10",
    split="test",
    model="cifar10_backbone",
    defense="mspd+conceal",
    wear="none",
    attack="pgd(steps=20)",
    threat="linf:8/255",
    examples=60,
    informed=True,
    seed=0,
    labels="decoupled",
    backbone="cifar10_backbone",
    labeller="cifar10_labeller",
    around="release",
    contents=("model=ab resnet", "pictures=cd"),
    release_threat="linf:8/255",
)
OTHER: dict[str, Any] = {"examples": 61, "informed": False, "seed": 1, "contents": ("model=ab resnet", "pictures=ce")}


def test_the_key_is_what_it_was() -> None:
    """A change here makes every stored row an orphan: it is made by raising SCHEMA, not by accident."""
    assert CELL.key == "0587ecb4671f61a186e9a409bc5a90e1f5392bfc162e69668ec942636d24b9ad"


@pytest.mark.parametrize("field", [field.name for field in dataclasses.fields(Cell)])
def test_every_field_decides_the_key(field: str) -> None:
    other = OTHER.get(field, "another")
    assert dataclasses.replace(CELL, **{field: other}).key != CELL.key


def test_a_cell_without_a_source_is_stored_as_before_there_were_sources() -> None:
    moved = dataclasses.replace(CELL, source="another")
    assert set(moved.record) - set(CELL.record) == {"source"}
    assert CELL.record == {name: value for name, value in dataclasses.asdict(CELL).items() if name != "source"}
    assert (CELL.told, moved.told) == ("pgd(steps=20)", "pgd(steps=20), transfer from another")
    assert "pgd(steps=20), transfer from another, linf" in str(moved)


@pytest.mark.parametrize("source", ["", "another"])
def test_a_cell_survives_its_own_json(source: str) -> None:
    cell = dataclasses.replace(CELL, source=source)
    assert cell_from(json.loads(canonical(cell.record)), "here") == cell
    with pytest.raises(ArtifactError, match=r"^here: no cell .*; the fields dataset, split"):
        cell_from({"dataset": "cifar10"}, "here")
    with pytest.raises(ArtifactError, match="here: no cell"):
        cell_from(dataclasses.asdict(CELL) | {"colour": "blue"}, "here")


def test_canonical_does_not_know_the_order() -> None:
    assert canonical({"b": 1, "a": [1.5, None]}) == canonical({"a": [1.5, None], "b": 1}) == '{"a":[1.5,null],"b":1}'
    with pytest.raises(ValueError, match="JSON"):
        canonical({"a": float("nan")})


@given(st.integers(1, 400))
def test_blocks_cover_every_example_once(examples: int) -> None:
    cell = dataclasses.replace(CELL, examples=examples)
    parts = [list(range(examples))[span] for span in spans(examples)]
    assert len(parts) == cell.blocks
    assert [at for part in parts for at in part] == list(range(examples))
    assert all(len(part) == BLOCK for part in parts[:-1])
