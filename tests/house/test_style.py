"""The house style, where a machine can check it."""

from __future__ import annotations

import ast
import importlib
import sys
from pathlib import Path

import pytest

import forearm

PACKAGE = Path(str(forearm.__file__)).parent
PROJECT = Path(__file__).resolve().parents[2]
MODULES = sorted(PACKAGE.rglob("*.py"))
TESTS = sorted((PROJECT / "tests").rglob("*.py"))
LONGEST = 400  # lines
VAGUE = frozenset({"utils", "util", "helpers", "helper", "common", "manager", "misc"})
SPEAKERS = frozenset({"cli", "__main__.py"})  # the parts that may print


def name(path: Path) -> str:
    root = PACKAGE.parent if path.is_relative_to(PACKAGE) else PROJECT
    return str(path.relative_to(root))


def prints(source: str) -> list[int]:
    """The lines that call print, or write to standard output or error by name."""
    lines = []
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "print":
            lines.append(node.lineno)
        if isinstance(node, ast.Attribute) and ast.unparse(node) in ("sys.stdout.write", "sys.stderr.write"):
            lines.append(node.lineno)
    return lines


def undocumented(source: str) -> list[str]:
    """Public functions and classes at the top of a module without a docstring; an overload has its function's."""
    return [
        node.name
        for node in ast.parse(source).body
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef)
        and not node.name.startswith("_")
        and not ast.get_docstring(node)
        and "overload" not in {ast.unparse(decorator) for decorator in node.decorator_list}
    ]


def catch_alls(source: str) -> list[str]:
    """Functions that take **kwargs."""
    functions = [n for n in ast.walk(ast.parse(source)) if isinstance(n, ast.FunctionDef | ast.AsyncFunctionDef)]
    return [f.name for f in functions if f.args.kwarg is not None and f.args.kwarg.arg in ("kwargs", "kw", "kwds")]


def changeable(source: str) -> list[str]:
    """Names at the top of a module that a function rebinds with `global`."""
    return [n for node in ast.walk(ast.parse(source)) if isinstance(node, ast.Global) for n in node.names]


@pytest.mark.parametrize("path", MODULES, ids=name)
def test_nothing_below_the_command_line_prints(path: Path) -> None:
    if path.relative_to(PACKAGE).parts[0] not in SPEAKERS:
        assert prints(path.read_text()) == []


@pytest.mark.parametrize("path", [*MODULES, *TESTS], ids=name)
def test_files_are_ascii(path: Path) -> None:
    assert path.read_text(encoding="utf-8").isascii()


@pytest.mark.parametrize("path", MODULES, ids=name)
def test_modules_are_short(path: Path) -> None:
    assert path.read_text().count("\n") <= LONGEST


@pytest.mark.parametrize("path", [*MODULES, *TESTS], ids=name)
def test_no_name_is_vague(path: Path) -> None:
    assert not VAGUE & {part.removesuffix(".py").removeprefix("test_") for part in Path(name(path)).parts}


@pytest.mark.parametrize("path", MODULES, ids=name)
def test_public_functions_have_docstrings(path: Path) -> None:
    assert undocumented(path.read_text()) == []


@pytest.mark.parametrize("path", MODULES, ids=name)
def test_modules_say_what_they_are(path: Path) -> None:
    text = path.read_text()
    assert not text or ast.get_docstring(ast.parse(text))


@pytest.mark.parametrize("path", MODULES, ids=name)
def test_no_catch_all_and_no_global(path: Path) -> None:
    assert catch_alls(path.read_text()) == []
    assert changeable(path.read_text()) == []


@pytest.mark.parametrize("path", [p for p in MODULES if "__all__" in p.read_text()], ids=name)
def test_exported_names_exist(path: Path) -> None:
    parts = path.relative_to(PACKAGE.parent).with_suffix("").parts
    module = importlib.import_module(".".join(parts[:-1] if parts[-1] == "__init__" else parts))
    assert [n for n in module.__all__ if not hasattr(module, n)] == []
    assert len(set(module.__all__)) == len(module.__all__)


def test_the_checks_see_what_they_forbid() -> None:
    assert prints("import sys\ndef f():\n    print('x')\n    sys.stdout.write('y')\n    echo('z')") == [3, 4]
    assert undocumented("def f(): ...\ndef _g(): ...\nclass A: ...\ndef h():\n    '''H.'''") == ["f", "A"]
    assert catch_alls("def f(**kwargs): ...\ndef g(**overrides): ...") == ["f"]
    assert changeable("x = 0\ndef f():\n    global x\n    x = 1") == ["x"]


def test_an_export_of_nothing_is_seen(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "hollow.py").write_text("__all__ = ['missing']\n")
    monkeypatch.syspath_prepend(tmp_path)
    module = importlib.import_module("hollow")
    try:
        assert [n for n in module.__all__ if not hasattr(module, n)] == ["missing"]
    finally:
        sys.modules.pop("hollow")
