"""The folder job over files that mean harm: one journal line each, no crash."""

from __future__ import annotations

from pathlib import Path

import pytest

from forearm.jobs.plan import ProtectJob
from forearm.jobs.protect import protect
from tests.jobs.armourers import Fake
from tests.jobs.photos import journal, paint, tree

corpus = pytest.importorskip("tests.images.corpus", reason="the corpus of hostile files is not there")


def test_every_hostile_file_leaves_one_line(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    paths = corpus.hostile(tmp_path / "in")
    assert len(paths) >= 40
    paint(tmp_path / "in/good.png", 1)
    seen: list[str] = []
    summary = protect(
        ProtectJob((tmp_path / "in",), tmp_path / "out"), Fake(), lambda event: seen.extend([event.line.file] if event.line else [])
    )
    lines = journal(tmp_path / "out")
    assert len(seen) == len(set(seen)) == len(lines)
    for path in paths:
        name = path.relative_to(tmp_path / "in").as_posix()
        if path.is_dir() and not path.is_symlink():
            assert name not in lines
        else:
            assert name in lines or path.name.startswith(".")
    assert lines["good.png"]["status"] == "armed"
    assert all(line["reason"] for line in lines.values() if line["status"] != "armed")
    assert not any("\n" in line["reason"] for line in lines.values())
    assert set(tree(tmp_path / "out")) == {name for name, line in lines.items() if line["status"] == "armed"}
    assert len(summary.failed) >= 20
