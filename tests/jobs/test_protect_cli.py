"""`forearm protect` as it is typed: options, streams, exit codes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import typer
from typer.testing import CliRunner

from forearm.cli import protect as command
from forearm.cli.exits import MEANINGS, Exit, epilog, exit_for
from forearm.errors import ArtifactError, BudgetError, InputError, SpecError
from forearm.images.journal import OutputError
from forearm.jobs import armory
from tests.jobs.armourers import Fake
from tests.jobs.photos import album, paint, tree


@pytest.fixture
def app(monkeypatch: pytest.MonkeyPatch) -> typer.Typer:
    """The command alone, with the fake armourer. `backbone="missing"` stands for weights that are not there."""

    def opened(**options: Any) -> Fake:
        if options["backbone"] == "missing":
            raise ArtifactError("backbone: got 'missing'; an embedded name, for example backbone")
        assert set(options) == {
            "defense", "threat", "backbone", "labeller", "seed", "device", "threshold", "strength", "survive", "min_psnr", "max_lpips", "lpips",
        }  # fmt: skip
        return Fake(seed=options["seed"])

    monkeypatch.setattr(armory.Armory, "open", opened)
    app = typer.Typer()
    app.command("protect", epilog=command.EPILOG, no_args_is_help=True)(command.protect)
    return app


def run(app: typer.Typer, *arguments: object, stdin: bytes | None = None) -> Any:
    return CliRunner().invoke(app, [str(argument) for argument in arguments], input=stdin)


def test_a_folder(app: typer.Typer, tmp_path: Path) -> None:
    album(tmp_path / "in")
    result = run(app, tmp_path / "in", "-o", tmp_path / "out", "--json", "--seed", 3)
    assert result.exit_code == 0, result.output
    assert json.loads(result.stdout)["counts"]["armed"] == 8
    assert "worst failure" in result.stderr
    assert "uncertain: 00.png: ship (0.25" in result.stderr
    assert set(tree(tmp_path / "out")) == set(tree(tmp_path / "in"))


def test_streams_and_folders_give_the_same_bytes(app: typer.Typer, tmp_path: Path) -> None:
    source = paint(tmp_path / "in/a.png", 1)
    assert run(app, tmp_path / "in", "-o", tmp_path / "out").exit_code == 0
    armed = (tmp_path / "out/a.png").read_bytes()
    result = run(app, "-", stdin=source.read_bytes())
    assert result.exit_code == 0, result.stderr
    assert result.stdout_bytes == armed
    assert run(app, "-", "-o", tmp_path / "b.png", stdin=source.read_bytes()).exit_code == 0
    assert (tmp_path / "b.png").read_bytes() == armed
    assert run(app, source, "-o", "-").stdout_bytes == armed
    assert run(app, "-", "-o", tmp_path / "b.png", stdin=source.read_bytes()).exit_code == Exit.USAGE
    assert run(app, "-", "-o", tmp_path / "file.png/b.png", stdin=source.read_bytes()).exit_code == 0
    assert run(app, "-", "-o", tmp_path / "b.png/c.png", stdin=source.read_bytes()).exit_code == Exit.OUTPUT


@pytest.mark.parametrize("stdin", [b"", b"no picture"])
def test_a_broken_stream_is_one_line(app: typer.Typer, stdin: bytes) -> None:
    result = run(app, "-", stdin=stdin)
    assert result.exit_code == Exit.FAILED
    assert result.stderr.startswith("forearm: ")
    assert result.stderr.count("\n") == 1
    assert result.stdout_bytes == b""


def test_an_armed_stream_is_refused(app: typer.Typer, tmp_path: Path) -> None:
    once = run(app, "-", stdin=paint(tmp_path / "a.png", 1).read_bytes()).stdout_bytes
    assert run(app, "-", stdin=once).exit_code == Exit.FAILED
    assert run(app, "-", "--again", stdin=once).exit_code == 0


def test_exit_codes(app: typer.Typer, tmp_path: Path) -> None:
    source = paint(tmp_path / "in/a.png", 1).parent
    (tmp_path / "empty").mkdir()
    (tmp_path / "file").write_text("")
    assert run(app, source, "-o", tmp_path / "out").exit_code == 0
    assert run(app, source, "-o", tmp_path / "out").exit_code == 0
    assert run(app, source, "-o", tmp_path / "out", "--exists", "maybe").exit_code == 2
    assert run(app, source, "-o", tmp_path / "out", "--label", "cat").exit_code == 2
    assert run(app, source, "--in-place").exit_code == 2
    assert run(app, tmp_path / "empty", "-o", tmp_path / "out").exit_code == 3
    assert run(app, source, "-o", tmp_path / "out", "--backbone", "missing").exit_code == 4
    assert run(app, source, "-o", tmp_path / "file/out").exit_code == 5
    (source / "b.png").write_text("")
    assert run(app, source, "-o", tmp_path / "out").exit_code == 1


def test_heat_maps_are_drawn_beside_the_pictures(app: typer.Typer, tmp_path: Path) -> None:
    source = paint(tmp_path / "in/a.png", 1)
    options = (source.parent, "-o", tmp_path / "out", "--heat-map")
    assert run(app, *options, tmp_path / "in/maps").exit_code == Exit.USAGE
    assert run(app, source, "-o", "-", "--heat-map", tmp_path / "maps").exit_code == Exit.USAGE
    assert run(app, *options, tmp_path / "maps", "--dry-run").exit_code == 0
    assert not (tmp_path / "maps").exists()
    assert not (tmp_path / "out").exists()
    for _ in range(2):  # and again for what an earlier run has armed
        assert run(app, *options, tmp_path / "maps").exit_code == 0
        assert set(tree(tmp_path / "maps")) == {"a.png.png", "before_after.html"}
        (tmp_path / "maps/a.png.png").unlink()
    (tmp_path / "file").write_text("")
    result = run(app, *options, tmp_path / "file")
    assert result.exit_code == Exit.OUTPUT
    assert result.stderr.count("forearm: ") == 1


def test_errors_have_codes() -> None:
    codes = [exit_for(error) for error in (SpecError(""), InputError(""), BudgetError(""), ArtifactError(""), OutputError(""))]
    assert codes == [2, 2, 2, 4, 5]


def test_help_names_every_exit_code(app: typer.Typer) -> None:
    assert set(MEANINGS) == set(Exit)
    text = " ".join(run(app, "--help").stdout.split())
    for code in Exit:
        assert f"{int(code)} " in epilog()
    assert "Exit codes" in text
    assert "143" in text


def test_names_that_no_terminal_takes(app: typer.Typer, tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "a\x1b[2J\n\udcff.png").write_text("")
    result = run(app, tmp_path / "in", "-o", tmp_path / "out")
    assert result.exit_code == 1
    assert "\\x1b[2J\\n\\udcff.png" in result.stderr
    assert "\x1b[2J" not in result.stderr
