"""Names as data: call syntax is read, never run, and every table in the package leads somewhere."""

from __future__ import annotations

import ast
import inspect
import re
from pathlib import Path

import pytest

import forearm
from forearm.errors import SpecError
from forearm.registry import bind, parse, resolve

TABLE = {"pgd": f"{__name__}:attack", "plain": f"{__name__}:plain"}
PACKAGE = Path(str(forearm.__file__)).parent
ENTRY = re.compile(r"forearm(\.\w+)+:\w+")


def attack(x: int, *, steps: int = 10, rate: float = 0.25, name: str = "a") -> tuple[int, int, float, str]:
    """A stand-in for an entry."""
    return x, steps, rate, name


def plain(x: int) -> int:
    """An entry without options."""
    return x


def entries() -> list[str]:
    """Every "package.module:function" that the package's source holds."""
    found = set()
    for path in PACKAGE.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Constant) and isinstance(node.value, str) and ENTRY.fullmatch(node.value):
                found.add(node.value)
    return sorted(found)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("pgd", ("pgd", {})),
        (" pgd() ", ("pgd", {})),
        ("pgd(steps=10)", ("pgd", {"steps": 10})),
        ("pgd(steps=10, rate=1/4)", ("pgd", {"steps": 10, "rate": 0.25})),
        ("net(blocks=(2, 2), act='silu', flag=True, none=None)", ("net", {"blocks": (2, 2), "act": "silu", "flag": True, "none": None})),
        ("pgd(rate=-1/4)", ("pgd", {"rate": -0.25})),
        ("net(mean=(.5, .4))", ("net", {"mean": (0.5, 0.4)})),
    ],
)
def test_parse(text: str, expected: tuple[str, dict[str, object]]) -> None:
    assert parse(text) == expected


@pytest.mark.parametrize(
    "text",
    [
        "", "pgd(", "pgd(10)", "pgd(steps=n)", "pgd(steps=10)(2)", "a.b(steps=1)", "__import__('os')", "pgd(steps=__import__('os'))",
        "pgd(**{'steps': 1})", "pgd(rate=1/0)", "pgd(rate='a'/2)", "pgd(steps=open('x'))", "pgd; pgd", "8/255", "lambda: 0",
        "pgd(steps=1, steps=2)", "pgd(x\0=1)", "(" * 300,
    ],
)  # fmt: skip
def test_parse_refuses_what_is_not_a_name_with_literals(text: str) -> None:
    with pytest.raises(SpecError, match=r"spec: got .*; .*for example") as error:
        parse(text)
    assert "\n" not in str(error.value)


def test_bind_fills_keywords_in() -> None:
    assert bind(TABLE, "pgd")(1) == (1, 10, 0.25, "a")
    assert bind(TABLE, "pgd(steps=3, rate=8/255)")(1) == (1, 3, 8 / 255, "a")
    assert bind(TABLE, "pgd(steps=3)")(1, steps=4) == (1, 4, 0.25, "a")
    assert bind(TABLE, "plain")(5) == 5


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("pgdd", r"name: got 'pgdd'; did you mean 'pgd'\?"),
        ("zzz", r"name: got 'zzz'; one of pgd, plain"),
        ("pgd(step=3)", r"pgd: got the option 'step'; did you mean 'steps'\?"),
        ("pgd(zzz=3)", r"pgd: got the option 'zzz'; it takes steps, rate, name"),
        ("pgd(x=3)", r"pgd: got the option 'x'; it takes"),
        ("plain(a=1)", r"plain: got the option 'a'; it takes nothing"),
    ],
)
def test_bind_says_what_exists(text: str, message: str) -> None:
    with pytest.raises(SpecError, match=message):
        bind(TABLE, text)


def test_the_package_has_entries() -> None:
    assert "forearm.models.preact_resnet:preact_resnet" in entries()


@pytest.mark.parametrize("entry", entries())
def test_every_entry_leads_to_a_documented_function(entry: str) -> None:
    function = resolve({"it": entry}, "it")
    assert callable(function)
    assert inspect.getdoc(function)
    kinds = {p.kind for p in inspect.signature(function).parameters.values()}
    assert inspect.Parameter.VAR_KEYWORD not in kinds


def test_a_dead_entry_is_seen() -> None:
    for entry in ("forearm.models.nowhere:net", "forearm.models.preact_resnet:nothing"):
        with pytest.raises((ImportError, AttributeError)):
            resolve({"it": entry}, "it")
