"""What the pages say is so: their commands exist with these options, their links lead somewhere, their tables are those of the results."""

from __future__ import annotations

import importlib.util
import re
import shlex
import sys
from pathlib import Path
from types import ModuleType

import pytest
import typer.main

from forearm.cli.app import app

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md"))]


def tables() -> ModuleType:
    spec = importlib.util.spec_from_file_location("tables", ROOT / "benchmarks" / "tables.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(ROOT / "benchmarks")  # its siblings, as when it is run
        spec.loader.exec_module(module)
    return module


def commands(text: str) -> list[list[str]]:
    """Every `forearm ...` in a code block or in backticks, as words."""
    blocks = re.findall(r"```\w*\n(.*?)```", text, re.DOTALL)
    lines = [line.removeprefix("$ ").strip() for block in blocks for line in block.splitlines()]
    lines += re.findall(r"`(forearm [^`\n]+)`", re.sub(r"```.*?```", "", text, flags=re.DOTALL))
    return [shlex.split(line, comments=True) for line in lines if line.startswith("forearm ")]


def complaint(words: list[str]) -> str | None:
    """Why a command line could not be one of ours, or None."""
    command = typer.main.get_command(app)
    rest = words[1:]
    while hasattr(command, "commands"):
        if not rest:
            return None
        names = command.commands
        for name in rest[0].split("|"):
            if name not in names and not rest[0].startswith("-"):
                return f"no command {name!r}"
        if rest[0].startswith("-"):
            break
        command, rest = names[rest[0].split("|")[0]], rest[1:]
    known = {option for parameter in command.params for option in (*parameter.opts, *parameter.secondary_opts)}
    for word in rest:
        if word.startswith("-") and word != "-" and word.partition("=")[0] not in known | {"--help"}:
            return f"no option {word}"
    return None


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_command_exists(page: Path) -> None:
    assert [f"{' '.join(words)}: {why}" for words in commands(page.read_text()) if (why := complaint(words))] == []


def test_a_wrong_command_is_told() -> None:
    assert complaint(["forearm", "protekt", "a"]) == "no command 'protekt'"
    assert complaint(["forearm", "protect", "a", "--bakbone", "x"]) == "no option --bakbone"
    assert complaint(["forearm", "models", "shaw"]) == "no command 'shaw'"
    assert complaint(["forearm", "protect", "a", "-o", "b", "--threat", "linf:8/255"]) is None


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_link_leads_somewhere(page: Path) -> None:
    targets = re.findall(r"\]\(([^)#]+)(?:#[^)]*)?\)", page.read_text())
    assert [t for t in targets if "://" not in t and not (page.parent / t).exists()] == []


def test_the_tables_are_those_of_the_results() -> None:
    made = tables()
    for name in made.PAGES:
        text = (ROOT / name).read_text()
        assert made.fill(text) == text, f"{name}: run python benchmarks/tables.py --write"


def test_a_changed_number_is_told() -> None:
    made = tables()
    text = (ROOT / "README.md").read_text()
    first = re.search(r"\d+\.\d \(\d+\.\d to", text)
    assert first is not None
    changed = text.replace(first[0], first[0].replace(first[0][0], str((int(first[0][0]) + 1) % 10), 1), 1)
    assert made.fill(changed) != changed


def test_importing_the_command_line_does_not_import_torch() -> None:
    import subprocess

    code = "import forearm.cli.app, sys; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
