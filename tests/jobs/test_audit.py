"""The audit job: its frame, what fails, what is damaged, and the command line."""

from __future__ import annotations

import io
import json
import pickle
import shutil
import signal
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
import torch
from typer.testing import CliRunner

import forearm
from forearm.attacks.table import ATTACKS, TRAITS
from forearm.cli.app import app
from forearm.errors import BudgetError, SpecError
from forearm.evaluate import engine
from forearm.evaluate.cell import BLOCK
from forearm.evaluate.chosen import Sources
from forearm.evaluate.matrix import matrix_from
from forearm.evaluate.store import COLUMNS, Store
from forearm.jobs import audit as job
from forearm.jobs import blocks
from forearm.jobs.audit import AuditJob, Summary, outlook, rows_of, run
from forearm.jobs.blocks import Task
from forearm.jobs.standings import standings
from forearm.jobs.workers import Refused
from tests.evaluate.bench import N, matrix_text, write_bench

RUN = CliRunner()


@pytest.fixture(scope="session")
def bench(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_bench(tmp_path_factory.mktemp("bench"))


def job_of(bench: Path, store: Path, text: str | None = None, **options: Any) -> AuditJob:
    text = text or matrix_text(bench, '"fgsm", "pgd(steps=2)"', '"none", "mspd(copies=2)"')
    return AuditJob(matrix_from(text, "matrix"), store, **({"jobs": 0, "folder": bench / "data"} | options))


def tree(root: Path) -> dict[str, bytes]:
    """Every file below `root`: name -> bytes."""
    return {str(path.relative_to(root)): path.read_bytes() for path in sorted(root.rglob("*")) if path.is_file()}


@pytest.fixture(scope="session")
def whole(bench: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The store of an undisturbed run."""
    path = tmp_path_factory.mktemp("whole")
    summary = run(job_of(bench, path))
    assert (len(summary.made), len(summary.done), summary.left, summary.failed, summary.notes) == (6, 0, (), (), ())
    return path


def test_the_front_door_gives_every_row(bench: Path, tmp_path: Path, whole: Path) -> None:
    (tmp_path / "m.toml").write_text(matrix_text(bench, '"fgsm", "pgd(steps=2)"', '"none", "mspd(copies=2)"'))
    threads = torch.get_num_threads()
    torch.set_num_threads(threads + 1)
    frame = forearm.audit(str(tmp_path / "m.toml"), store=tmp_path / "runs", folder=bench / "data")
    assert torch.get_num_threads() == threads + 1
    torch.set_num_threads(threads)
    assert tree(tmp_path / "runs") == tree(whole)
    assert frame.shape[0] == 6 * 30
    assert frame.columns[0] == "key"
    assert frame.columns[-len(COLUMNS) :] == list(COLUMNS)
    for cell in Store(whole).cells():
        rows = frame.filter(pl.col("key") == cell.key)
        assert rows.select(list(COLUMNS)).equals(Store(whole).rows(cell))
        assert rows["attack"].unique().to_list() == [cell.attack]
        assert rows["informed"].unique().to_list() == [cell.informed]


def test_a_second_run_does_nothing(bench: Path, whole: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(blocks, "audit_block", None)
    monkeypatch.setattr(blocks, "released_block", None)
    before = {path: path.stat().st_mtime_ns for path in whole.rglob("*") if path.is_file()}
    summary = run(job_of(bench, whole))
    assert (len(summary.done), summary.made) == (6, ())
    assert {path: path.stat().st_mtime_ns for path in whole.rglob("*") if path.is_file()} == before


def test_releases_are_made_once_for_all_who_attack_them(bench: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[tuple[str, int]] = []

    def counted(cell: engine.Cell, block: engine.Chosen) -> engine.Pixels:
        made.append((cell.defense, int(block.ids[0])))
        return engine.released_block(cell, block)

    monkeypatch.setattr(blocks, "released_block", counted)
    run(job_of(bench, tmp_path, matrix_text(bench, '"fgsm"', '"s_fgsm", "s_fgsm+conceal", "none", "conceal"')))
    assert made == [("s_fgsm", 0), ("s_fgsm", BLOCK)]


DAMAGE = {"flipped": lambda data: data[:200] + bytes([data[200] ^ 1]) + data[201:], "torn": lambda data: data[:100], "empty": lambda _: b""}


@pytest.mark.parametrize("kind", DAMAGE)
def test_damaged_blocks_are_made_anew_with_a_note(bench: Path, tmp_path: Path, whole: Path, kind: str) -> None:
    shutil.copytree(whole, tmp_path / "runs")
    store = Store(tmp_path / "runs")
    first, second = store.cells()[:2]
    block = tmp_path / "runs/cells" / first.key / "block-00001.parquet"
    block.write_bytes(DAMAGE[kind](block.read_bytes()))
    (tmp_path / "runs/cells" / second.key / "block-00000.parquet").unlink()
    third = tmp_path / "runs/cells" / store.cells()[2].key / "cell.json"
    third.write_bytes(DAMAGE[kind](third.read_bytes()))
    summary = run(job_of(bench, tmp_path / "runs"))
    assert {cell.key for cell in summary.made} == {first.key, second.key}
    assert summary.notes == (f"block 1 of cell {first.key[:12]} ({first}) was damaged and is made anew",)
    assert tree(tmp_path / "runs") == tree(whole)


def test_a_damaged_release_is_made_anew_where_it_is_needed(bench: Path, tmp_path: Path, whole: Path) -> None:
    shutil.copytree(whole, tmp_path / "runs")
    for file in (tmp_path / "runs").rglob("*"):
        if file.suffix == ".safetensors":
            file.write_bytes(file.read_bytes()[:-1] + b"?")
        elif file.suffix == ".parquet":
            file.unlink()
    run(job_of(bench, tmp_path / "runs"))
    assert tree(tmp_path / "runs") == tree(whole)


def test_a_cheating_attack_costs_its_cell_alone(bench: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(ATTACKS, "too_far", "tests.evaluate.cheats:too_far")
    monkeypatch.setitem(TRAITS, "too_far", TRAITS["pgd"])
    text = matrix_text(bench, '"too_far", "fgsm"')
    summary = run(job_of(bench, tmp_path, text))
    assert [cell.attack for cell in summary.made] == ["fgsm"]
    assert [cell.attack for cell in summary.left] == ["too_far"]
    ((cell, error),) = summary.failed
    assert cell.attack == "too_far"
    assert isinstance(error, BudgetError)
    assert [done.attack for done in Store(tmp_path).cells()] == ["fgsm"]
    with pytest.raises(BudgetError, match=r"too_far, linf:1/255: example .*: a change of"):
        forearm.audit(matrix_from(text, "matrix"), store=tmp_path, folder=bench / "data")


def test_what_a_model_cannot_be_asked_is_a_note(bench: Path, tmp_path: Path) -> None:
    text = matrix_text(bench, threats='"linf:0"').replace("masking = false", "masking = true")
    summary = run(job_of(bench, tmp_path, text))
    assert (len(summary.made), summary.failed) == (1, ())
    assert summary.notes[0].startswith(f"no masking verdict on {bench / 'victim'}, none: masking: got the threat linf:0")


def test_masking_verdicts_are_stored_once_for_each_model_and_defense(bench: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []

    def verdict(cell: engine.Cell, block: engine.Chosen, released: engine.Pixels) -> dict[str, Any]:
        asked.append(cell.defense)
        return {"masked": cell.defense == "conceal", "n": len(released)}

    monkeypatch.setattr(blocks, "masking_block", verdict)
    text = matrix_text(bench, '"fgsm", "pgd(steps=1)"', '"none", "conceal", "s_fgsm"', '"linf:1/255", "linf:2/255"')
    for _ in range(2):
        run(job_of(bench, tmp_path, text.replace("masking = false", "")))
    assert asked == ["none", "conceal", "s_fgsm"]
    found = {(one["about"]["defense"], one["about"]["threat"]): one["verdict"] for one in Store(tmp_path).masking()}
    assert found == {
        ("none", "linf:1/255"): {"masked": False, "n": 30},
        ("conceal", "linf:1/255"): {"masked": True, "n": 30},
        ("s_fgsm", "linf:1/255"): {"masked": False, "n": 30},
    }


class Dying(blocks.Here):
    """A crew whose worker dies over every block of one attack."""

    def answers(self) -> list[tuple[Task, Any]]:
        ((task, answer),) = super().answers()
        return [(task, Refused("died") if task.cell.attack == "fgsm" else answer)]


def test_a_worker_that_dies_twice_costs_its_cell_alone(bench: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(job, "Here", Dying)
    summary = run(job_of(bench, tmp_path, matrix_text(bench, '"fgsm", "pgd(steps=1)"')))
    assert [cell.attack for cell in summary.made] == ["pgd(steps=1)"]
    assert [cell.attack for cell, _ in summary.failed] == ["fgsm"]
    assert str(summary.failed[0][1]).endswith("fgsm, linf:1/255: a worker died twice on block 0 (killed, perhaps for want of memory); "
                                              "a smaller --batch, or fewer --jobs")  # fmt: skip


def test_want_of_memory_is_one_line(bench: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def hungry(*_: object) -> None:
        raise RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory")

    monkeypatch.setattr(blocks, "audit_block", hungry)
    summary = run(job_of(bench, tmp_path, matrix_text(bench)))
    assert "not enough memory for 25 examples together" in str(summary.failed[0][1])


def test_an_attack_that_breaks_costs_its_cell_alone_and_says_where(bench: Path, tmp_path: Path) -> None:
    summary = run(job_of(bench, tmp_path, matrix_text(bench, '"pgd(steps=\'many\')", "fgsm"')))
    assert [cell.attack for cell in summary.made] == ["fgsm"]
    ((_, error),) = summary.failed
    assert str(error).startswith("cifar10: ")
    assert "pgd(steps='many'), linf:1/255: TypeError: " in str(error)
    assert "in pgd" in pickle.loads(pickle.dumps(error)).__notes__[0]


def test_only_some_cells(bench: Path, tmp_path: Path) -> None:
    summary = run(job_of(bench, tmp_path, only="none, fgsm"))
    assert [(cell.defense, cell.attack) for cell in summary.made] == [("none", "fgsm")]
    with pytest.raises(SpecError, match="only: 'nothing' is in none of 6 cells; a part of one, for example 'cifar10: "):
        run(job_of(bench, tmp_path, only="nothing"))


def test_asked_to_stop_it_keeps_what_is_done(bench: Path, tmp_path: Path, whole: Path) -> None:
    asked = iter([False] * 4 + [True] * 100)
    summary = run(job_of(bench, tmp_path), stop=lambda: next(asked))
    assert summary.stopped
    assert summary.left
    assert 0 < len(tree(tmp_path)) < len(tree(whole))
    assert not run(job_of(bench, tmp_path)).stopped
    assert tree(tmp_path) == tree(whole)


def test_the_outlook_writes_nothing(bench: Path, tmp_path: Path) -> None:
    assert [done for _, done in outlook(job_of(bench, tmp_path / "runs"))] == [0] * 6
    assert not (tmp_path / "runs").exists()
    run(job_of(bench, tmp_path / "runs", only="none, fgsm"))
    assert [done for _, done in outlook(job_of(bench, tmp_path / "runs"))] == [2] + [0] * 5


def test_standings_count_the_rows(bench: Path, whole: Path) -> None:
    store = Store(whole)
    none, mspd = standings(store, sorted(store.cells(), key=lambda cell: (cell.defense != "none", cell.attack, cell.informed)))
    assert [(name, informed) for name, informed, _ in none.attacks] == [("fgsm", False), ("pgd(steps=2)", False)]
    assert [(name, informed) for name, informed, _ in mspd.attacks] == [(a, i) for a in ("fgsm", "pgd(steps=2)") for i in (False, True)]
    for standing in (none, mspd):
        cells = [cell for cell in store.cells() if cell.defense == standing.cell.defense]
        robust = np.all([store.rows(cell)["robust"].to_numpy() for cell in cells], axis=0)
        assert standing.worst == robust.sum() <= min(right for _, _, right in standing.attacks)
        assert standing.n == 30
        assert not standing.unattacked


def test_transfer_is_one_more_attacker(bench: Path, tmp_path: Path, whole: Path) -> None:
    """The same model by one who has another: the releases and the verdicts are shared, the worst case is over both."""
    text = matrix_text(bench, '"fgsm", "pgd(steps=2)"', '"none", "mspd(copies=2)"')
    grid = text[text.index("[[grid]]") :].replace('"fgsm", ', "")
    asked = job_of(bench, tmp_path, f'{text}\n{grid}\nsource = "{bench / "labeller"}"')
    summary = run(asked)
    assert [cell.source for cell in summary.made] == [""] * 6 + [str(bench / "labeller")] * 3
    before = tree(whole)
    after = tree(tmp_path)
    assert {name: after[name] for name in before} == before
    assert all(name.startswith("cells/") for name in set(after) - set(before))
    none, mspd = standings(Store(tmp_path), summary.cells)
    for standing, (alone, *_) in ((none, standings(Store(whole), summary.made[:2])), (mspd, standings(Store(whole), summary.made[2:6]))):
        assert standing.worst <= alone.worst
        moved = [right for name, _, right in standing.attacks if "transfer" in name]
        assert standing.worst <= min(moved)
        assert {name for name, _, _ in standing.attacks} == {"fgsm", "pgd(steps=2)", f"pgd(steps=2), transfer from {bench / 'labeller'}"}
        assert not standing.unattacked
    frame = rows_of(Store(tmp_path), summary.cells)
    assert frame.group_by("source").agg(pl.len()).sort("source").rows() == [("", 180), (str(bench / "labeller"), 90)]
    (only,) = standings(Store(tmp_path), [cell for cell in summary.made if cell.source and cell.informed])
    assert only.unattacked  # who knows the defence but has another model has not attacked this one
    listed = [str(cell) for cell, _ in outlook(asked)]
    assert sum(f"pgd(steps=2), transfer from {bench / 'labeller'}, linf:1/255" in line for line in listed) == 3
    again = run(asked)
    assert (len(again.done), again.made) == (9, ())


def test_the_command_line(bench: Path, tmp_path: Path, whole: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(job, "Crew", Near)
    matrix, store = tmp_path / "m.toml", tmp_path / "runs"
    matrix.write_text(matrix_text(bench, '"fgsm", "pgd(steps=2)"', '"none", "mspd(copies=2)"'))
    words = ["audit", str(matrix), "--store", str(store), "--data", str(bench / "data"), "--jobs", "1"]
    listed = RUN.invoke(app, [*words, "--dry-run"])
    assert listed.exit_code == 0
    assert listed.stdout.count("to do 0/2 blocks  cifar10: ") == 6
    done = RUN.invoke(app, words)
    assert done.exit_code == 0
    assert tree(store) == tree(whole)
    assert done.stderr.count("worst case over all") == 2
    assert RUN.invoke(app, [*words, "--dry-run"]).stdout.count("done 2/2 blocks") == 6
    (store / "cells").rename(tmp_path / "away")
    (tmp_path / "away").rename(store / "cells")
    monkeypatch.setitem(ATTACKS, "fgsm", "tests.evaluate.cheats:too_far")
    for file in store.rglob("*.parquet"):
        file.unlink()
    failed = RUN.invoke(app, words)
    assert failed.exit_code == 1
    assert failed.stderr.count("failed: cifar10: ") == 3
    assert "3 of 6 cells are not complete" in failed.stderr
    wrong = RUN.invoke(app, [*words, "--only", "nothing"])
    assert isinstance(wrong.exception, SpecError)


class Near(blocks.Here):
    """`Here` where a crew is expected."""

    def __init__(self, jobs: int) -> None:
        super().__init__()

    def __class_getitem__(cls, _: object) -> type[Near]:
        return cls

    def __enter__(self) -> Near:
        return self

    def __exit__(self, *_: object) -> None:
        pass


def test_a_defense_that_nobody_who_knows_attacks_is_called_so(bench: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from rich.console import Console

    from forearm.cli.audit import NOBODY, table

    asked = job_of(bench, tmp_path, matrix_text(bench, '"fgsm"', '"none", "conceal"', more="informed = false"))
    summary = run(asked)
    console = Console(record=True, width=100, file=io.StringIO())
    table(console, asked, summary)
    text = console.export_text()
    assert f"{bench / 'victim'}, conceal: {NOBODY}" in text.replace("\n", "")
    assert f"none: {NOBODY}" not in text.replace("\n", "")


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143), (0, 0)])
def test_exit_codes(number: int, code: int) -> None:
    from forearm.cli.audit import exit_of

    assert int(exit_of(Summary((), (), (), (), (), stopped=bool(number)), number)) == code
    assert int(exit_of(Summary((), (), (), (), (), stopped=False), number)) == 0


def test_pictures_are_read_once(bench: Path) -> None:
    sources = Sources(bench / "data")
    whole = sources.pictures("cifar10", "test", None, "first")
    assert sources.pictures("cifar10", "test", N, "first") is whole


def test_cell_files_are_canonical(whole: Path) -> None:
    for file in whole.glob("cells/*/cell.json"):
        values = json.loads(file.read_bytes())
        assert file.read_text() == json.dumps(values, sort_keys=True, separators=(",", ":")) + "\n"
        assert list(values) == ["cell", "schema"]
