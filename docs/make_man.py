"""The manual page `docs/forearm.1`, made from the commands themselves; `tests/house/test_man.py` checks that it is current.

python docs/make_man.py
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import typer
import typer.main

import forearm
from forearm.cli.app import app
from forearm.cli.examples import ending

PAGE = Path(__file__).with_name("forearm.1")
VARIABLES = {
    "FOREARM_DATA": "Where the data sets lie.",
    "FOREARM_ZOO": "Where the models of the repository's zoo lie, for an installed package.",
    "FOREARM_API_KEY": "The service's API key, where --api-key-file gives none.",
}
FILES = {
    "OUT/.forearm/journal.jsonl": "What became of each input of protect: a line of JSON, on disk before the output gets its name.",
    "STORE": "Rows of an audit, in Parquet, a folder for each cell.",
}


def escaped(text: str) -> str:
    """Text that roff takes as it is."""
    lines = text.replace("\\", "\\e").replace("-", "\\-").split("\n")
    return "\n".join(f"\\&{line}" if line[:1] in (".", "'") else line for line in lines)


def leaves(command: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    """Every command that does something, by its words, in the order of `--help`."""
    for name, child in command.commands.items():
        if hasattr(child, "commands"):
            yield from leaves(child, f"{path}{name} ")
        else:
            yield path + name, child


def title(parameter: Any) -> str:
    """An argument or option as it is typed: "-o, --out OUT", "PATHS..."."""
    value = parameter.metavar or parameter.name.upper()
    if parameter.param_type_name == "argument":
        return f"{value}{'...' if parameter.nargs == -1 else ''}"
    return ", ".join(sorted(parameter.opts, key=len)) + ("" if parameter.is_flag else f" {value}")


def meaning(parameter: Any) -> str:
    """What it is for, the range it must lie in, and what it is if not given."""
    kind = getattr(parameter, "type", parameter)  # where the bounds are depends on typer's version
    low, high = getattr(kind, "min", None), getattr(kind, "max", None)
    bounds = "" if low is None and high is None else f"from {low:g}" if high is None else f"{low:g} to {high:g}"
    default = "" if parameter.default in (None, False, ()) else f"default: {parameter.default}"
    notes = "; ".join(note for note in ("required" if parameter.required else "", bounds, default) if note)
    return f"{parameter.help}{f' [{notes}]' if notes else ''}"


def section(name: str, command: Any) -> list[str]:
    """One command: how it is called, what it does, its arguments and options, examples and exit codes."""
    lines = [f".SS forearm {escaped(name)}"]
    for paragraph in command.help.split("\n\n"):
        lines += [escaped(" ".join(paragraph.split())), ".PP"]
    for parameter in command.params:
        if parameter.name != "help":
            lines += [".TP", f".B {escaped(title(parameter))}", escaped(meaning(parameter))]
    for paragraph in ending(name).split("\n\n"):
        plain = not paragraph.startswith("$ ")
        lines += [".PP", escaped(paragraph)] if plain else [".RS", ".nf", escaped(paragraph), ".fi", ".RE"]
    return lines


def page() -> str:
    """The whole page, in roff's man macros."""
    command = typer.main.get_command(app)
    head = [
        f'.TH FOREARM 1 "" "forearm {forearm.__version__}" "User Commands"',
        ".SH NAME",
        r"forearm \- defend picture classifiers, and measure it honestly",
        ".SH SYNOPSIS",
        *(f".B forearm {escaped(name)}\n.br" for name, _ in leaves(command)),
        ".SH DESCRIPTION",
        escaped(str(command.help)),
        "An error is one line on standard error: where it is; what was given; what is allowed, with an example.",
        ".SH COMMANDS",
    ]
    body = [line for name, leaf in leaves(command) for line in section(name, leaf)]
    tail = [".SH ENVIRONMENT", *(f".TP\n.B {escaped(name)}\n{escaped(text)}" for name, text in VARIABLES.items())]
    tail += [".SH FILES", *(f".TP\n.I {escaped(name)}\n{escaped(text)}" for name, text in FILES.items())]
    tail += [".SH COMPLETION", escaped("forearm --install-completion puts completion into the shell in use; --show-completion prints it.")]
    return "\n".join([*head, *body, *tail]) + "\n"


if __name__ == "__main__":
    PAGE.write_text(page())
