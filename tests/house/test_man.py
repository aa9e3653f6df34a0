"""The manual page is that of the commands as they are, and a page that roff takes."""

from __future__ import annotations

import importlib.util
import shutil
import subprocess
from pathlib import Path
from types import ModuleType

import pytest

from tests.cli.test_help import LEAVES

ROOT = Path(__file__).parents[2]


def maker() -> ModuleType:
    spec = importlib.util.spec_from_file_location("make_man", ROOT / "docs" / "make_man.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_page_is_current() -> None:
    assert (ROOT / "docs/forearm.1").read_text() == maker().page(), "run python docs/make_man.py"


def test_it_has_every_command_and_option() -> None:
    text = (ROOT / "docs/forearm.1").read_text().replace("\\-", "-")
    for name, command in LEAVES.items():
        part = text.split(f".SS forearm {name}\n")[1].split("\n.SS ")[0].split("\n.SH ")[0]
        assert [option for parameter in command.params for option in parameter.opts if option.startswith("-") and option not in part] == []


def test_what_roff_would_take_for_its_own_is_escaped() -> None:
    assert maker().escaped(".x\n'y -z \\") == "\\&.x\n\\&'y \\-z \\e"


def test_roff_takes_it_without_a_warning() -> None:
    if shutil.which("groff") is None:
        pytest.skip("groff is not installed")
    done = subprocess.run(["groff", "-man", "-ww", "-Tutf8", str(ROOT / "docs/forearm.1")], capture_output=True, text=True, check=True)
    assert done.stderr == ""
    assert "forearm models measure" in done.stdout
