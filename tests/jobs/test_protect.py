"""The folder job: what it writes, what it says, and that neither depends on how it was run."""

from __future__ import annotations

import dataclasses
import errno
import io
import json
import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from forearm.cli.exits import Exit, exit_of
from forearm.errors import SpecError
from forearm.images.codec import decode
from forearm.images.journal import OutputError
from forearm.images.limits import Limits
from forearm.jobs import protect as work
from forearm.jobs.plan import ProtectJob
from forearm.jobs.protect import Progress, out_of_memory, protect
from forearm.jobs.single import protect_bytes
from forearm.jobs.summary import Summary
from tests.jobs.armourers import Fake
from tests.jobs.photos import album, journal, paint, tree


def job_of(tmp_path: Path, **options: object) -> ProtectJob:
    """A job from tmp_path/in to tmp_path/out, with one worker."""
    return dataclasses.replace(ProtectJob((tmp_path / "in",), tmp_path / "out", jobs=1), **options)  # type: ignore[arg-type]


def counts(summary: Summary) -> tuple[int, int, int, int, int]:
    return tuple(len(part) for part in (summary.armed, summary.done, summary.skipped, summary.failed, summary.left))  # type: ignore[return-value]


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    return album(tmp_path / "in")


def test_mirrors_the_tree_and_journals_every_input(tmp_path: Path, photos: Path) -> None:
    (photos / "notes.txt").write_text("no picture")
    (photos / "broken.png").write_bytes(b"\x89PNG\r\n\x1a\n")
    (photos / ".hidden.png").write_bytes(b"")
    summary = protect(job_of(tmp_path), Fake())
    assert counts(summary) == (8, 0, 1, 1, 0)
    assert set(tree(tmp_path / "out")) == {name for name in tree(photos) if name[0] != "." and "0" in name}
    lines = journal(tmp_path / "out")
    assert set(lines) == {name for name in tree(photos) if name[0] != "."}
    assert lines["notes.txt"]["reason"] == "not a picture by name"
    assert lines["broken.png"]["status"] == "failed"
    assert lines["broken.png"]["reason"]
    assert exit_of(summary) == Exit.FAILED


def test_lossless_files_hold_what_was_armed(tmp_path: Path, photos: Path) -> None:
    fake = Fake()
    protect(job_of(tmp_path), fake)
    for name in ("00.png", "summer/02.bmp"):
        original, armed = decode(photos / name).pixels, decode(tmp_path / "out" / name).pixels
        assert np.array_equal(armed, fake.one(original, None).pixels)
        assert not np.array_equal(armed, original)
        line = journal(tmp_path / "out")[name]
        assert (line["linf"], line["linf_file"], line["margin_after"], line["psnr"]) == (1, 1, 1.5, 50.0)


def test_lossy_files_are_measured_on_their_own_pixels(tmp_path: Path, photos: Path) -> None:
    protect(job_of(tmp_path), Fake())
    name = "summer/01.jpg"
    original, written = decode(photos / name).pixels, decode(tmp_path / "out" / name).pixels
    line = journal(tmp_path / "out")[name]
    change = written.astype(float) - original
    assert line["linf"] == 1
    assert line["linf_file"] == int(np.abs(change).max())
    assert line["psnr"] == pytest.approx(20 * np.log10(255 / np.sqrt((change**2).mean())), abs=1e-3)
    assert line["margin_after"] == pytest.approx(written.mean() + 7)
    assert line["psnr"] != 50.0


@pytest.mark.parametrize("options", [{"jobs": 1, "batch": 1}, {"jobs": 2, "batch": 5}, {"batch_pixels": 1}])
def test_workers_and_batches_do_not_change_a_byte(tmp_path: Path, photos: Path, options: dict[str, int]) -> None:
    protect(job_of(tmp_path, out=tmp_path / "one"), Fake())
    fake = Fake()
    protect(job_of(tmp_path, out=tmp_path / "two", **options), fake)
    assert tree(tmp_path / "one") == tree(tmp_path / "two")
    assert journal(tmp_path / "one") == journal(tmp_path / "two")
    assert max(size for _, size in fake.batches) <= options.get("batch", 1)


def test_a_seed_changes_the_bytes(tmp_path: Path, photos: Path) -> None:
    protect(job_of(tmp_path, out=tmp_path / "one"), Fake())
    protect(job_of(tmp_path, out=tmp_path / "two"), Fake(seed=1))
    assert tree(tmp_path / "one") != tree(tmp_path / "two")


def test_pictures_of_one_size_are_armed_together(tmp_path: Path, photos: Path) -> None:
    fake = Fake()
    protect(job_of(tmp_path), fake)
    assert sorted(fake.batches) == [((24, 32, 3), 4), ((32, 32, 3), 4)]


def test_rerun_does_nothing_again(tmp_path: Path, photos: Path) -> None:
    protect(job_of(tmp_path), Fake())
    before = (tmp_path / "out/.forearm/journal.jsonl").read_bytes()
    stamps = {path: path.stat().st_mtime_ns for path in (tmp_path / "out").rglob("*.*g")}
    fake = Fake()
    summary = protect(job_of(tmp_path), fake)
    assert counts(summary) == (0, 8, 0, 0, 0)
    assert fake.batches == []
    assert (tmp_path / "out/.forearm/journal.jsonl").read_bytes() == before
    assert stamps == {path: path.stat().st_mtime_ns for path in stamps}
    assert exit_of(summary) == Exit.DONE


def test_rerun_arms_what_is_missing_and_sweeps(tmp_path: Path, photos: Path) -> None:
    protect(job_of(tmp_path), Fake())
    whole = tree(tmp_path / "out")
    (tmp_path / "out/00.png").unlink()
    (tmp_path / "out/summer/.forearm-0123456789abcdef.part").write_bytes(b"half")
    assert counts(protect(job_of(tmp_path), Fake())) == (1, 7, 0, 0, 0)
    assert tree(tmp_path / "out") == whole


@pytest.mark.parametrize(("exists", "expected"), [("skip", (0, 7, 1, 0, 0)), ("fail", (0, 7, 0, 1, 0)), ("overwrite", (1, 7, 0, 0, 0))])
def test_changed_outputs_follow_exists(tmp_path: Path, photos: Path, exists: str, expected: tuple[int, ...]) -> None:
    protect(job_of(tmp_path), Fake())
    whole = tree(tmp_path / "out")
    (tmp_path / "out/00.png").write_bytes(b"mine")
    assert counts(protect(job_of(tmp_path, exists=exists), Fake())) == expected
    assert (tree(tmp_path / "out") == whole) == (exists == "overwrite")
    (tmp_path / "out/00.png").write_bytes(whole["00.png"])
    assert counts(protect(job_of(tmp_path), Fake())) == (0, 8, 0, 0, 0)
    assert journal(tmp_path / "out")["00.png"]["status"] == "armed"


def test_other_settings_are_another_job(tmp_path: Path, photos: Path) -> None:
    protect(job_of(tmp_path), Fake())
    assert counts(protect(job_of(tmp_path), Fake(seed=1))) == (0, 0, 8, 0, 0)
    assert counts(protect(job_of(tmp_path, exists="overwrite"), Fake(seed=1))) == (8, 0, 0, 0, 0)


def test_changed_input_is_armed_anew(tmp_path: Path, photos: Path) -> None:
    protect(job_of(tmp_path), Fake())
    paint(photos / "00.png", 99)
    assert counts(protect(job_of(tmp_path, exists="overwrite"), Fake())) == (1, 7, 0, 0, 0)


def test_torn_journal_is_repaired(tmp_path: Path, photos: Path) -> None:
    protect(job_of(tmp_path), Fake())
    expected = journal(tmp_path / "out"), tree(tmp_path / "out")
    path = tmp_path / "out/.forearm/journal.jsonl"
    path.write_bytes(path.read_bytes()[:-200])
    assert counts(protect(job_of(tmp_path, exists="overwrite"), Fake())) == (1, 7, 0, 0, 0)
    assert (journal(tmp_path / "out"), tree(tmp_path / "out")) == expected


def test_memory_halves_the_batch(tmp_path: Path) -> None:
    for number in range(8):
        paint(tmp_path / f"in/{number}.png", number)
    protect(job_of(tmp_path, out=tmp_path / "whole"), Fake())
    fake = Fake(memory=2)
    assert counts(protect(job_of(tmp_path), fake)) == (8, 0, 0, 0, 0)
    assert [size for _, size in fake.batches] == [8, 4, 2, 2, 4, 2, 2]
    assert tree(tmp_path / "out") == tree(tmp_path / "whole")


def test_a_picture_too_big_alone_fails_alone(tmp_path: Path, photos: Path) -> None:
    summary = protect(job_of(tmp_path), Fake(memory=0))
    assert counts(summary) == (0, 0, 0, 8, 0)
    assert {line.reason for line in summary.failed} == {work.MEMORY}


def test_memory_errors_are_told_from_others() -> None:
    assert out_of_memory(MemoryError())
    assert out_of_memory(RuntimeError("CUDA out of memory. Tried to allocate 2.00 GiB"))
    assert out_of_memory(RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes"))
    assert not out_of_memory(RuntimeError("shape '[2]' is invalid for input of size 3"))


def test_other_errors_of_the_armourer_are_not_hidden(tmp_path: Path, photos: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def arm(*_: object) -> None:
        raise RuntimeError("a fault")

    monkeypatch.setattr(Fake, "arm", arm)
    with pytest.raises(RuntimeError, match="a fault"):
        protect(job_of(tmp_path), Fake())


def test_dry_run_writes_nothing(tmp_path: Path, photos: Path) -> None:
    (photos / "broken.png").write_bytes(b"\x89PNG\r\n\x1a\n")
    fake = Fake()
    summary = protect(job_of(tmp_path, dry_run=True), fake)
    assert counts(summary) == (0, 0, 0, 1, 8)
    assert not (tmp_path / "out").exists()
    assert fake.batches == []
    protect(job_of(tmp_path), Fake())
    before = tree(tmp_path)
    assert counts(protect(job_of(tmp_path, dry_run=True), Fake())) == (0, 8, 0, 1, 0)
    assert tree(tmp_path) == before


def test_globs(tmp_path: Path, photos: Path) -> None:
    summary = protect(job_of(tmp_path, include=("*.png", "*.bmp"), exclude=("summer",)), Fake())
    assert set(tree(tmp_path / "out")) == {"00.png", "06.bmp"}
    assert {line.reason for line in summary.skipped} == {"excluded", "not included"}


def test_in_place_keeps_the_originals(tmp_path: Path, photos: Path) -> None:
    originals = tree(photos)
    (photos / "00.png").chmod(0o640)
    protect(job_of(tmp_path, out=tmp_path / "elsewhere"), Fake())
    job = job_of(tmp_path, out=None, in_place=True, backup=tmp_path / "backup")
    assert counts(protect(job, Fake())) == (8, 0, 0, 0, 0)
    assert tree(tmp_path / "backup") == originals
    assert tree(photos) == tree(tmp_path / "elsewhere")
    assert (photos / "00.png").stat().st_mode & 0o777 == 0o640
    assert counts(protect(job, Fake())) == (0, 8, 0, 0, 0)
    assert tree(tmp_path / "backup") == originals
    assert counts(protect(job, Fake(seed=1))) == (0, 0, 8, 0, 0)
    assert tree(photos) == tree(tmp_path / "elsewhere")


def test_in_place_never_replaces_a_backup(tmp_path: Path, photos: Path) -> None:
    (tmp_path / "backup").mkdir()
    (tmp_path / "backup/00.png").write_bytes(b"precious")
    summary = protect(job_of(tmp_path, out=None, in_place=True, backup=tmp_path / "backup"), Fake())
    assert counts(summary) == (7, 0, 0, 1, 0)
    assert "holds another file" in summary.failed[0].reason
    assert (tmp_path / "backup/00.png").read_bytes() == b"precious"


def test_in_place_again_resumes(tmp_path: Path, photos: Path) -> None:
    protect(job_of(tmp_path, out=None, in_place=True, backup=tmp_path / "first"), Fake())
    again = job_of(tmp_path, out=None, in_place=True, backup=tmp_path / "second", again=True)
    assert counts(protect(again, Fake())) == (8, 0, 0, 0, 0)
    twice = tree(photos)
    assert counts(protect(again, Fake())) == (0, 8, 0, 0, 0)
    assert tree(photos) == twice


def test_armed_inputs_are_refused_unless_again(tmp_path: Path, photos: Path) -> None:
    protect(job_of(tmp_path), Fake())
    twice = job_of(tmp_path, inputs=(tmp_path / "out",), out=tmp_path / "twice")
    summary = protect(twice, Fake())
    assert counts(summary) == (0, 0, 8, 0, 0)
    assert exit_of(summary) == Exit.DONE
    assert counts(protect(dataclasses.replace(twice, again=True), Fake())) == (8, 0, 0, 0, 0)


def test_the_tag_alone_tells_but_not_for_bmp(tmp_path: Path, photos: Path) -> None:
    protect(job_of(tmp_path), Fake())
    (tmp_path / "out/.forearm/journal.jsonl").unlink()
    twice = job_of(tmp_path, inputs=(tmp_path / "out",), out=tmp_path / "twice")
    assert {line.file for line in protect(twice, Fake()).armed} == {"06.bmp", "summer/02.bmp"}


def test_no_tag(tmp_path: Path, photos: Path) -> None:
    protect(job_of(tmp_path, tag=False), Fake())
    (tmp_path / "out/.forearm/journal.jsonl").unlink()
    twice = job_of(tmp_path, inputs=(tmp_path / "out",), out=tmp_path / "twice")
    assert counts(protect(twice, Fake())) == (8, 0, 0, 0, 0)


def test_labels_win(tmp_path: Path, photos: Path) -> None:
    (tmp_path / "labels.csv").write_text(f"file,label\n00.png,dog\n{photos / 'summer/01.jpg'},3\n")
    fake = Fake()
    protect(job_of(tmp_path, labels=tmp_path / "labels.csv"), fake)
    lines = journal(tmp_path / "out")
    assert (lines["00.png"]["label"], lines["00.png"]["labelled_by"]) == (1, "given")
    assert lines["summer/01.jpg"]["label"] == 3
    assert lines["summer/02.bmp"]["labelled_by"] == "labeller"
    assert sorted(fake.asked, key=str) == [1, 3, *[None] * 6]
    assert counts(protect(job_of(tmp_path, labels=tmp_path / "labels.csv"), Fake())) == (0, 8, 0, 0, 0)
    assert counts(protect(job_of(tmp_path), Fake())) == (0, 6, 2, 0, 0)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("file,label\nno.png,1\n", "not among the inputs"),
        ("file,label\n00.png,bird\n", "00.png: label: got 'bird'"),
        ("file,label\n00.png,\n", "has no label"),
        ("file,label\n00.png,1\n00.png,2\n", "two labels"),
        ("name,class\n00.png,1\n", "columns name, class"),
        ("", "columns none"),
    ],
)
def test_bad_labels_stop_before_work(tmp_path: Path, photos: Path, text: str, words: str) -> None:
    (tmp_path / "labels.csv").write_text(text)
    fake = Fake()
    with pytest.raises(SpecError, match=words):
        protect(job_of(tmp_path, labels=tmp_path / "labels.csv"), fake)
    assert fake.batches == []
    assert not any(tree(tmp_path / "out"))


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda p: {"out": None}, "got none"),
        (lambda p: {"in_place": True}, "-o and --in-place"),
        (lambda p: {"out": None, "in_place": True}, "without --backup"),
        (lambda p: {"backup": p / "backup"}, "without --in-place"),
        (lambda p: {"exists": "maybe"}, "one of skip, overwrite, fail"),
        (lambda p: {"jobs": 0}, "jobs: got 0"),
        (lambda p: {"out": p / "in" / "armed"}, "lies inside"),
        (lambda p: {"out": p / "in"}, "lies inside"),
        (lambda p: {"inputs": (p / "in/00.png",), "out": p / "in"}, "written over"),
        (lambda p: {"inputs": (p / "no",)}, "does not exist"),
        (lambda p: {"inputs": (p / "in", p / "in/summer", paint(p / "other/00.png", 5))}, "both become '00.png'"),
        (lambda p: {"inputs": (p / "in", paint(p / "x" / "summer/q.png", 5).parent, paint(p / "summer", 5))}, "needs a folder"),
    ],
)  # fmt: skip
def test_plans_that_cannot_work_are_refused(
    tmp_path: Path, photos: Path, change: Callable[[Path], dict[str, object]], words: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Image.Image, "save", _save_png)
    job = job_of(tmp_path, include=("*",), **change(tmp_path))
    before = tree(tmp_path)
    with pytest.raises(SpecError, match=words):
        protect(job, Fake())
    assert tree(tmp_path) == before


def _save_png(image: Image.Image, path: Path) -> None:
    path.write_bytes(image.tobytes())


def test_one_file_given_twice_is_armed_once(tmp_path: Path, photos: Path) -> None:
    job = job_of(tmp_path, inputs=(photos / "00.png", photos, photos / "00.png"))
    assert counts(protect(job, Fake())) == (8, 0, 0, 0, 0)


def test_nothing_found(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    assert exit_of(protect(job_of(tmp_path), Fake())) == Exit.NOTHING
    (tmp_path / "in/notes.txt").write_text("")
    assert exit_of(protect(job_of(tmp_path), Fake())) == Exit.NOTHING


def test_output_that_cannot_be_made(tmp_path: Path, photos: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError, match="cannot be written") as caught:
        protect(job_of(tmp_path, out=tmp_path / "file" / "out"), Fake())
    assert "\n" not in str(caught.value)


def test_full_disk_costs_that_file(tmp_path: Path, photos: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    stage = work.stage

    def full(out: Path, data: bytes, mode: int) -> Path:
        if out.name == "00.png":
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return stage(out, data, mode)

    monkeypatch.setattr(work, "stage", full)
    summary = protect(job_of(tmp_path), Fake())
    assert counts(summary) == (7, 0, 0, 1, 0)
    assert summary.failed[0].reason == "cannot be written: No space left on device"
    assert "00.png" not in tree(tmp_path / "out")
    monkeypatch.undo()
    assert counts(protect(job_of(tmp_path), Fake())) == (1, 7, 0, 0, 0)


def test_full_disk_under_the_journal_stops(tmp_path: Path, photos: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    written = os.write

    def full(handle: int, data: bytes) -> int:
        if b'"armed"' in data:
            written(handle, data[:10])
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return written(handle, data)

    monkeypatch.setattr(os, "write", full)
    with pytest.raises(OutputError, match="journal cannot be written"):
        protect(job_of(tmp_path), Fake())
    monkeypatch.undo()
    assert tree(tmp_path / "out") == {}
    assert counts(protect(job_of(tmp_path), Fake())) == (8, 0, 0, 0, 0)


def test_a_folder_at_the_output(tmp_path: Path, photos: Path) -> None:
    (tmp_path / "out/00.png").mkdir(parents=True)
    summary = protect(job_of(tmp_path, exists="overwrite"), Fake())
    assert [(line.file, line.reason) for line in summary.failed] == [("00.png", "a folder lies at the output")]


def test_limits(tmp_path: Path, photos: Path) -> None:
    summary = protect(job_of(tmp_path, limits=Limits(max_pixels=24 * 32)), Fake())
    assert counts(summary) == (4, 0, 0, 4, 0)
    summary = protect(job_of(tmp_path, out=tmp_path / "small", limits=Limits(max_bytes=100)), Fake())
    assert all("at most 100, see --max-bytes" in line.reason for line in summary.failed)
    assert summary.failed


def test_stop_leaves_the_rest(tmp_path: Path, photos: Path) -> None:
    seen: list[Progress] = []
    job = job_of(tmp_path, batch=1)
    summary = protect(job, Fake(), seen.append, lambda: any(event.stage == "arm" for event in seen))
    assert len(summary.armed) >= 1
    assert len(summary.left) >= 1
    assert len(summary.armed) + len(summary.left) == 8
    assert exit_of(summary, 2) == Exit.INTERRUPTED
    assert exit_of(summary, 15) == Exit.TERMINATED
    assert counts(protect(job, Fake())) == (len(summary.left), len(summary.armed), 0, 0, 0)


def test_stop_while_planning(tmp_path: Path, photos: Path) -> None:
    summary = protect(job_of(tmp_path), Fake(), stop=lambda: True)
    assert counts(summary) == (0, 0, 0, 0, 8)


def test_progress_counts_every_input(tmp_path: Path, photos: Path) -> None:
    seen: list[Progress] = []
    protect(job_of(tmp_path), Fake(), seen.append)
    assert [event.done for event in seen if event.stage == "plan"] == list(range(1, 9))
    assert [event.done for event in seen if event.stage == "arm"] == list(range(1, 9))
    assert {event.total for event in seen} == {8}


def test_stream_gives_the_bytes_of_the_folder_job(tmp_path: Path, photos: Path) -> None:
    protect(job_of(tmp_path), Fake())
    for name, data in tree(photos).items():
        armed, line = protect_bytes(data, Fake())
        assert armed == (tmp_path / "out" / name).read_bytes()
        assert line.out_sha256 == journal(tmp_path / "out")[name]["out_sha256"]
        assert line.key == journal(tmp_path / "out")[name]["key"]


def test_orientation_of_the_journal_is_as_seen(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    exif = Image.Exif()
    exif[0x0112] = 6
    image = Image.fromarray(np.zeros((20, 40, 3), dtype=np.uint8))
    image.save(tmp_path / "in/turned.jpg", exif=exif)
    protect(job_of(tmp_path), Fake())
    line = journal(tmp_path / "out")["turned.jpg"]
    assert (line["width"], line["height"]) == (20, 40)
    assert counts(protect(job_of(tmp_path), Fake())) == (0, 1, 0, 0, 0)


def test_summary_is_json(tmp_path: Path, photos: Path) -> None:
    summary = protect(job_of(tmp_path), Fake())
    values = json.loads(json.dumps(summary.values()))
    assert values["counts"] == {"armed": 8, "done": 0, "skipped": 0, "failed": 0, "left": 0, "uncertain": 8}
    assert values["median_psnr"] == summary.median_psnr


def test_streams_are_bytes() -> None:
    buffer = io.BytesIO()
    Image.fromarray(np.full((5, 7), 9, dtype=np.uint8)).save(buffer, "PNG")
    armed, line = protect_bytes(buffer.getvalue(), Fake(), label="cat")
    assert decode(armed).pixels.shape == (5, 7, 1)
    assert (line.label, line.format) == (0, "PNG")


class Killed(BaseException):
    """Stands for the end of the process: nothing in the job may catch it."""


@pytest.mark.parametrize(
    ("in_place", "point", "late"),
    [
        (False, "stage", False),
        (False, "commit", False),
        (False, "commit", True),
        (True, "back_up", True),
        (True, "stage", True),
        (True, "commit", False),
        (True, "commit", True),
    ],
)
def test_broken_off_between_any_two_steps_a_rerun_completes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, point: str, late: bool, in_place: bool
) -> None:
    for number in range(3):
        paint(tmp_path / f"in/{number}.png", number)
    originals = tree(tmp_path / "in")
    protect(job_of(tmp_path, out=tmp_path / "whole"), Fake())
    step = getattr(work, point)
    calls: list[object] = []

    def kill(*given: object) -> object:
        calls.append(given)
        if len(calls) == 2 and not late:
            raise Killed
        result = step(*given)
        if len(calls) == 2:
            raise Killed
        return result

    backup = {"out": None, "in_place": True, "backup": tmp_path / "backup"} if in_place else {}
    job = job_of(tmp_path, **backup)
    with monkeypatch.context() as patch:
        patch.setattr(work, point, kill)
        patch.setattr(work, "discard", lambda part: None)
        with pytest.raises(Killed):
            protect(job, Fake())
    summary = protect(job, Fake())
    assert len(summary.armed) + len(summary.done) == 3
    assert tree(tmp_path / "in" if in_place else tmp_path / "out") == tree(tmp_path / "whole")
    assert journal(job.root) == journal(tmp_path / "whole") or in_place
    assert not in_place or tree(tmp_path / "backup") == originals
