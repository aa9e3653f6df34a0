"""`--help` of every command answers what a newcomer asks, and shells complete names without waiting for torch."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import pytest
import typer.main
from typer.testing import CliRunner

from forearm.attacks.table import ATTACKS
from forearm.cli import complete
from forearm.cli.app import app
from forearm.cli.examples import EXAMPLES, ending
from forearm.core.publishing import PRESETS
from forearm.defenses.preemptive.protector import PREEMPTIVE
from forearm.jobs.armory import STRENGTHS
from forearm.jobs.plan import EXISTS
from forearm.models.load import load_model
from tests.house.test_docs import commands, complaint

WIDE = {"TERMINAL_WIDTH": "250", "COLUMNS": "250", "NO_COLOR": "1"}


def leaves(command: Any = None, path: str = "") -> Iterator[tuple[str, Any]]:
    """Every command that does something, by its words."""
    command = command or typer.main.get_command(app)
    for name, child in command.commands.items():
        if hasattr(child, "commands"):
            yield from leaves(child, f"{path}{name} ")
        else:
            yield path + name, child


LEAVES = dict(leaves())


def test_every_command_has_examples_and_no_other_has() -> None:
    assert set(EXAMPLES) == set(LEAVES)


@pytest.mark.parametrize("name", LEAVES)
def test_help_says_what_it_is_for_how_it_is_used_and_how_it_ends(name: str) -> None:
    text = CliRunner().invoke(app, [*name.split(), "--help"], env=WIDE).output
    purpose = LEAVES[name].help.split("\n\n")[0]
    assert 20 < len(" ".join(purpose.split())) < 160
    for line in EXAMPLES[name]:
        assert f"$ {line}" in text
    assert "Exit codes: 0 " in text
    assert [p.name for p in LEAVES[name].params if p.name != "help" and not p.help] == []


@pytest.mark.parametrize("name", LEAVES)
def test_the_examples_are_commands(name: str) -> None:
    for line in EXAMPLES[name]:
        (words,) = commands(f"`{line}`")
        assert complaint(words) is None
        assert words[1:][: len(name.split())] == name.split()


def test_a_command_without_exit_codes_of_its_own_has_the_usual_ones() -> None:
    assert "2 an option or an input" in ending("models show")
    assert "A killed run goes on" in ending("train mid")


@pytest.mark.parametrize(
    ("option", "words"),
    [("strength", STRENGTHS), ("survive", PRESETS), ("exists", EXISTS), ("engine", ("local", "ray")), ("defense", PREEMPTIVE)],
)
def test_completed_words_are_those_that_are_taken(option: str, words: Any) -> None:
    assert sorted(completed("protect", option)) == sorted(words)


def completed(command: str, option: str) -> list[str]:
    """What the shell offers for an option, to somebody who has typed nothing yet."""
    (found,) = (parameter for parameter in LEAVES[command].params if parameter.name == option)
    return [item.value for item in found.shell_complete(typer.Context(LEAVES[command]), "")]


def test_attacks_and_models_are_completed() -> None:
    assert completed("verify", "attack") == sorted(ATTACKS)
    assert complete.attacks("apgd_") == ["apgd_dlr", "apgd_t"]
    assert complete.models("photo_b") == ["photo_backbone"]
    assert load_model(complete.models("cifar10_l")[0]).card.name == "cifar10_labeller"
    assert complete.models("resnet2") == ["resnet20_a", "resnet2b"]
    assert "cifar10" in complete.fetchable("c")


def test_a_zoo_that_is_nowhere_does_not_break_completion(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FOREARM_ZOO", "/nowhere")
    assert complete.models("photo_t") == ["photo_target"]


@pytest.mark.parametrize(
    ("typed", "offered"),
    [
        ("forearm pro", "protect"),
        ("forearm protect --defense ms", "mspd"),
        ("forearm verify --target photo_", "photo_target"),
        ("forearm models show cifar10_b", "cifar10_backbone"),
    ],
)
def test_bash_gets_its_answer_without_torch(typed: str, offered: str) -> None:
    """By the real protocol, in a process in which torch cannot be imported."""
    code = "import sys; sys.modules['torch'] = None; sys.argv = ['forearm']; from forearm.cli.app import app; app(prog_name='forearm')"
    words = typed.split(" ")
    env = {**os.environ, "_FOREARM_COMPLETE": "complete_bash", "COMP_WORDS": typed, "COMP_CWORD": str(len(words) - 1)}
    done = subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, text=True, check=False)
    assert offered in done.stdout.split(), done.stderr


@pytest.mark.parametrize("words", [[], ["protect"], ["models", "list"]])
def test_help_needs_no_torch(words: list[str]) -> None:
    code = (
        f"import sys; sys.modules['torch'] = None; sys.argv = {['forearm', *words, '--help']!r}; from forearm.cli.app import main; main()"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0
    assert "Usage" in done.stdout


def test_the_doctor_tells_the_extra_of_what_is_absent(monkeypatch: pytest.MonkeyPatch) -> None:
    from forearm.jobs import doctor

    monkeypatch.setattr(doctor, "examine", lambda: iter([doctor.Finding("ray", "absent", note="optional: pip install 'forearm[ray]'")]))
    assert "'forearm[ray]'" in CliRunner().invoke(app, ["doctor"], env=WIDE).output
