"""The matrices in `examples/`: each can be read, which looks up every name in it with its options."""

from __future__ import annotations

from pathlib import Path

import pytest

from forearm.errors import SpecError
from forearm.evaluate.matrix import matrix_from, read_matrix

EXAMPLES = sorted((Path(__file__).parents[2] / "examples").glob("*.toml"))


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.name)
def test_an_example_can_be_read(path: Path) -> None:
    assert read_matrix(path).grid


@pytest.mark.parametrize(("given", "wrong"), [('"median"', '"medain"'), ("pgd(steps=20)", "pgd(stpes=20)"), ("linf:2/255", "linf:2/0")])
def test_a_name_that_does_not_exist_is_told(given: str, wrong: str) -> None:
    text = next(path for path in EXAMPLES if path.stem == "purifiers").read_text()
    assert given in text
    with pytest.raises(SpecError, match="grid 1"):
        matrix_from(text.replace(given, wrong), "matrix")
