"""The options of engines, shards and addresses as they are typed."""

from __future__ import annotations

import builtins
import sys
from pathlib import Path
from typing import Any

import pytest
import typer
from typer.testing import CliRunner

from forearm.cli import protect as command
from forearm.cli.app import app as whole
from forearm.engines.ray import Fleet
from forearm.errors import SpecError
from forearm.images.objects import Store
from forearm.jobs import armory
from tests.jobs.armourers import Fake
from tests.jobs.photos import album, tree


@pytest.fixture
def app(monkeypatch: pytest.MonkeyPatch) -> typer.Typer:
    """`forearm protect` with the fake armourer."""
    monkeypatch.setattr(armory.Armory, "open", lambda **_: Fake())
    app = typer.Typer()
    app.command("protect", epilog=command.EPILOG)(command.protect)
    return app


def run(app: typer.Typer, *arguments: object) -> Any:
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


def test_shards_and_addresses(app: typer.Typer, tmp_path: Path) -> None:
    album(tmp_path / "in", 4, ("png",))
    for shard in ("1/2", "2/2"):
        assert run(app, tmp_path / "in", "-o", tmp_path / "out", "--shard", shard, "--jobs", 1).exit_code == 0
    assert run(app, tmp_path / "in", "-o", "memory://options/out", "--jobs", 1).exit_code == 0
    store = Store.open("memory://options/out")
    assert {name: store.read(name) for name in store.find()} == tree(tmp_path / "out")


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["in", "-o", "out", "--shard", "3/2"], "shard: got '3/2'"),
        (["in", "-o", "out", "--engine", "spark"], "engine: got 'spark'; one of local, ray"),
        (["in", "-o", "out", "--workers", "2"], "engine: got --workers"),
        (["-", "-o", "-", "--shard", "1/2"], "-: got it with an address, --shard"),
        (["memory://a/b"], "output: got none; an address"),
        (["in", "-o", "memory://a/b", "--engine", "ray", "--address", "auto"], "spool: got none"),
        (["in", "-o", "memory://a/b", "--heat-map", "maps"], "heat-map: got it for a stream or an address"),
        (["in", "-o", "nosuch://a/b"], "nosuch"),
    ],
)
def test_what_cannot_be_understood_is_one_line(app: typer.Typer, words: list[str], told: str) -> None:
    result = run(app, *words)
    assert result.exit_code == 2
    assert told in result.stderr
    assert result.stderr.count("\n") == 1


def test_an_audit_takes_an_engine_too() -> None:
    result = CliRunner().invoke(whole, ["audit", "m.toml", "--store", "runs", "--engine", "spark"])
    assert isinstance(result.exception, SpecError)
    assert "one of local, ray" in str(result.exception)


def test_without_ray_the_install_command_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    found = builtins.__import__

    def missing(name: str, *rest: Any) -> Any:
        if name.partition(".")[0] == "ray":
            raise ModuleNotFoundError("No module named 'ray'", name="ray")
        return found(name, *rest)

    monkeypatch.setattr(builtins, "__import__", missing)
    monkeypatch.delitem(sys.modules, "ray", raising=False)
    with pytest.raises(SpecError, match=r"pip install 'forearm\[ray\]'"):
        Fleet[int]().__enter__()
