"""`forearm protect` and `verify` on object stores: fsspec's store in memory, and a real S3 server in this process where moto is installed."""

from __future__ import annotations

import json
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from forearm.engines.objects import protect_objects, verify_objects
from forearm.errors import SpecError
from forearm.images.journal import Line, OutputError
from forearm.images.objects import Store, is_address
from forearm.images.shard import Shard
from forearm.jobs.plan import ProtectJob
from forearm.jobs.protect import protect
from forearm.jobs.summary import Summary
from tests.jobs.armourers import Fake
from tests.jobs.photos import album, journal, paint, tree

pytest.importorskip("fsspec", reason="fsspec is not installed")


@pytest.fixture(scope="module")
def bucket(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A bucket of an S3 server in this process, which listens on the loopback interface."""
    pytest.importorskip("s3fs", reason="s3fs is not installed")
    server_of = pytest.importorskip("moto.server", reason="moto[server] is not installed").ThreadedMotoServer
    server = server_of(ip_address="127.0.0.1", port=0)
    server.start()
    config = tmp_path_factory.mktemp("fsspec")
    from fsspec.config import conf

    before = dict(conf)
    host, port = server.get_host_and_port()
    conf["s3"] = {"endpoint_url": f"http://{host}:{port}", "key": "testing", "secret": "testing"}
    Store.open("s3://photos").fs.mkdir("photos")
    yield f"s3://photos/{config.name}"
    conf.clear()
    conf.update(before)
    server.stop()


@pytest.fixture
def memory() -> str:
    return f"memory://{uuid.uuid4().hex}"


def upload(folder: Path, url: str) -> Store:
    """The folder's files at an address."""
    store = Store.open(url)
    for name, data in tree(folder).items():
        store.fs.makedirs(store.at(name).rpartition("/")[0], exist_ok=True)
        store.fs.pipe_file(store.at(name), data)
    return store


def files(url: str) -> dict[str, bytes]:
    """Every file at an address but the journal's, hidden ones among them."""
    store = Store.open(url)
    names = [*store.find(), *(name for name in store.find(hidden=True) if not name.startswith(".forearm/"))]
    return {name: store.read(name) for name in names}


def lines(url: str) -> dict[str, dict[str, Any]]:
    """The last line of each file over all journal parts, without what differs from run to run."""
    store = Store.open(url)
    last = {}
    for part in sorted(name for name in store.find(hidden=True) if name.endswith(".jsonl")):
        for text in store.read(part).splitlines():
            line = json.loads(text)
            last[line["file"]] = {name: value for name, value in line.items() if name not in ("seconds", "source")}
    return last


def counts(summary: Summary) -> tuple[int, ...]:
    return tuple(len(part) for part in (summary.armed, summary.done, summary.skipped, summary.failed, summary.left))


JOB = ProtectJob((), jobs=1)


@pytest.fixture
def local(tmp_path: Path) -> Path:
    """An album with things that cannot be armed, and what the folder job makes of it."""
    album(tmp_path / "in")
    (tmp_path / "in/notes.txt").write_text("no picture")
    (tmp_path / "in/broken.png").write_bytes(b"\x89PNG\r\n\x1a\n")
    protect(ProtectJob((tmp_path / "in",), tmp_path / "out", jobs=1), Fake())
    return tmp_path


def check(local: Path, url: str) -> None:
    """From an address to an address, in blocks: the bytes and the journal are those of the folder job, a rerun fetches nothing, a loss is made good."""
    upload(local / "in", f"{url}/in")
    summary = protect_objects(JOB, [f"{url}/in"], f"{url}/out", Fake(), block=3)
    assert counts(summary) == (8, 0, 1, 1, 0)
    assert {line.source for line in summary.armed} == {f"{url}/in/{line.file}" for line in summary.armed}
    assert files(f"{url}/out") == tree(local / "out")
    assert lines(f"{url}/out") == journal(local / "out")
    fake = Fake()
    assert counts(protect_objects(JOB, [f"{url}/in"], f"{url}/out", fake, block=3)) == (0, 8, 1, 1, 0)
    assert fake.batches == []
    store = Store.open(f"{url}/out")
    store.fs.rm_file(store.at("00.png"))
    store.write("summer/01.jpg", b"changed")
    assert counts(protect_objects(JOB, [f"{url}/in"], f"{url}/out", Fake(), block=5)) == (1, 6, 2, 1, 0)
    assert files(f"{url}/out")["00.png"] == tree(local / "out")["00.png"]


def test_a_store_in_memory_gets_what_a_folder_gets(local: Path, memory: str) -> None:
    check(local, memory)


def test_an_s3_bucket_gets_what_a_folder_gets(local: Path, bucket: str) -> None:
    check(local, bucket)


def test_a_local_folder_goes_to_a_store_and_back(local: Path, memory: str) -> None:
    assert counts(protect_objects(JOB, [str(local / "in")], memory, Fake())) == (8, 0, 1, 1, 0)
    assert files(memory) == tree(local / "out")
    upload(local / "in", f"{memory}-in")
    protect_objects(JOB, [f"{memory}-in"], str(local / "back"), Fake())
    assert tree(local / "back") == tree(local / "out")


def test_shards_make_the_whole(local: Path, memory: str) -> None:
    upload(local / "in", f"{memory}/in")
    for number in (1, 2, 3):
        protect_objects(ProtectJob((), jobs=1, shard=Shard(number, 3)), [f"{memory}/in"], f"{memory}/out", Fake())
    assert files(f"{memory}/out") == tree(local / "out")
    assert lines(f"{memory}/out") == journal(local / "out")
    assert counts(protect_objects(JOB, [f"{memory}/in"], f"{memory}/out", Fake())) == (0, 8, 1, 1, 0)


@pytest.mark.parametrize("at", [0, 1, 3, 6, 8, 11])
def test_broken_off_at_any_write_a_rerun_completes(local: Path, memory: str, at: int, monkeypatch: pytest.MonkeyPatch) -> None:
    upload(local / "in", f"{memory}/in")
    write, written = Store.write, []

    def refusing(self: Store, name: str, data: bytes) -> None:
        if len(written) == at:
            raise OutputError("the connection is lost")
        written.append(name)
        write(self, name, data)

    monkeypatch.setattr(Store, "write", refusing)
    with pytest.raises(OutputError, match="lost"):
        protect_objects(JOB, [f"{memory}/in"], f"{memory}/out", Fake(), block=5)
    monkeypatch.undo()
    whole = tree(local / "out")
    assert all(data == whole[name] for name, data in files(f"{memory}/out").items())
    summary = protect_objects(JOB, [f"{memory}/in"], f"{memory}/out", Fake(), block=5)
    assert len(summary.armed) + len(summary.done) == 8
    assert files(f"{memory}/out") == whole
    assert lines(f"{memory}/out") == journal(local / "out")


def test_an_upload_that_breaks_leaves_no_output(memory: str, monkeypatch: pytest.MonkeyPatch) -> None:
    store = Store.open(memory)
    pipe = type(store.fs).pipe_file

    def half(self: Any, path: str, data: bytes, **options: Any) -> None:
        pipe(self, path, data[: len(data) // 2])
        raise OSError("the connection is lost")

    monkeypatch.setattr(type(store.fs), "pipe_file", half)
    with pytest.raises(OutputError, match="the connection is lost"):
        store.write("a.png", b"whole")
    monkeypatch.undo()
    assert store.find() == {}
    store.write("a.png", b"whole")
    assert files(memory) == {"a.png": b"whole"}


def test_other_settings_and_exists_are_as_in_a_folder(local: Path, memory: str) -> None:
    upload(local / "in", f"{memory}/in")
    protect_objects(JOB, [f"{memory}/in"], f"{memory}/out", Fake())
    assert counts(protect_objects(JOB, [f"{memory}/in"], f"{memory}/out", Fake(seed=1))) == (0, 0, 9, 1, 0)
    overwrite = ProtectJob((), jobs=1, exists="overwrite")
    assert counts(protect_objects(overwrite, [f"{memory}/in"], f"{memory}/out", Fake(seed=1))) == (8, 0, 1, 1, 0)
    assert counts(protect_objects(JOB, [f"{memory}/in"], f"{memory}/out", Fake(seed=1))) == (0, 8, 1, 1, 0)
    assert files(f"{memory}/out") != tree(local / "out")


def test_labels_a_dry_run_and_globs(local: Path, memory: str) -> None:
    upload(local / "in", f"{memory}/in")
    (local / "labels.csv").write_text("file,label\n00.png,dog\nsummer/01.jpg,3\n")
    job = ProtectJob((), jobs=1, labels=local / "labels.csv", exclude=("broken.png",))
    fake = Fake()
    assert counts(protect_objects(ProtectJob((), jobs=1, dry_run=True), [f"{memory}/in"], f"{memory}/out", fake)) == (0, 0, 1, 1, 8)
    assert fake.batches == []
    assert files(f"{memory}/out") == {}
    protect_objects(job, [f"{memory}/in"], f"{memory}/out", fake, block=2)
    protect(ProtectJob((local / "in",), local / "labelled", jobs=1, labels=local / "labels.csv", exclude=("broken.png",)), Fake())
    assert files(f"{memory}/out") == tree(local / "labelled")
    assert lines(f"{memory}/out")["00.png"]["label"] == 1


def test_an_output_among_the_inputs_is_not_armed_again(tmp_path: Path, memory: str) -> None:
    paint(tmp_path / "in/a.bmp", 1)  # which carries no tag
    upload(tmp_path / "in", f"{memory}/in")
    protect_objects(JOB, [f"{memory}/in"], f"{memory}/out", Fake())
    assert counts(protect_objects(JOB, [f"{memory}/out"], f"{memory}/twice", Fake())) == (0, 0, 1, 0, 0)


def test_names_that_no_folder_can_hold_fail_alone(tmp_path: Path, memory: str) -> None:
    store = upload(album(tmp_path / "in", 2), f"{memory}/in")
    data = store.read("00.png")
    for name in ("a//b.png", "../../escape.png", f"{'n' * 300}.png"):
        store.fs.store[f"{store.root}/{name}"] = store.fs.store[store.at("00.png")]
    summary = protect_objects(JOB, [f"{memory}/in"], f"{memory}/out", Fake(), spool=tmp_path)
    assert counts(summary) == (2, 0, 0, 2, 0)
    assert set(files(f"{memory}/out")) == {"00.png", "summer/01.jpg"}
    assert [path.name for path in tmp_path.iterdir()] == ["in"]
    assert store.read("00.png") == data


def test_what_cannot_work_is_told_first(tmp_path: Path, memory: str) -> None:
    upload(album(tmp_path / "in", 2), f"{memory}/in")
    for inputs, out, words in (
        ([f"{memory}/in"], f"{memory}/in/out", "inside the input"),
        ([f"{memory}/nothing"], f"{memory}/out", "where nothing lies"),
        ([f"{memory}/in", f"{memory}/in/summer"], f"{memory}/out", "where nothing lies|become"),
        (["nosuch://a/b"], f"{memory}/out", "nosuch"),
    ):
        if "become" in words:
            upload(tmp_path / "in", f"{memory}/in/summer")
        with pytest.raises(SpecError, match=words):
            protect_objects(JOB, inputs, out, Fake())
    assert is_address("s3://a/b")
    assert not is_address("photos/2024")
    assert not is_address("C:/photos")


def test_stopped_between_blocks_the_rest_is_left(local: Path, memory: str) -> None:
    upload(local / "in", f"{memory}/in")
    seen: list[Line] = []

    def report(event: Any) -> None:
        seen.append(event)

    summary = protect_objects(JOB, [f"{memory}/in"], f"{memory}/out", Fake(), report, lambda: len(seen) > 3, block=3)
    assert len(summary.armed) + len(summary.left) + len(summary.failed) == 9
    assert summary.left
    protect_objects(JOB, [f"{memory}/in"], f"{memory}/out", Fake())
    assert files(f"{memory}/out") == tree(local / "out")


def test_verify_reads_what_the_journals_name(tmp_path: Path, memory: str, pair: dict[str, str]) -> None:
    from functools import partial

    from forearm.jobs.armory import Armory
    from forearm.jobs.verify import verify

    upload(album(tmp_path / "in", 2), f"{memory}/in")
    protect_objects(JOB, [f"{memory}/in"], f"{memory}/out", Armory.open("mspd(copies=2)", **pair))
    look = partial(verify, attack="fgsm", targets=[pair["backbone"]], backbone=pair["backbone"])
    checks = list(verify_objects(f"{memory}/out", None, look))
    assert {check.file for check in checks} == {f"{memory}/out/00.png", f"{memory}/out/summer/01.jpg"}
    assert all(check.problem is None and check.targets for check in checks)
    store = Store.open(f"{memory}/in")
    store.fs.rm_file(store.at("00.png"))
    (lost,) = [check for check in verify_objects(f"{memory}/out", None, look) if check.problem]
    assert lost.original == f"{memory}/in/00.png"
    single = list(verify_objects(f"{memory}/out/summer/01.jpg", f"{memory}/in/summer/01.jpg", look))
    assert len(single) == 1
    assert single[0].problem is None
