"""`forearm data` from the command line."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from forearm.cli.data import app
from forearm.data import sets
from forearm.data.catalogue import CATALOGUE
from forearm.errors import SpecError
from forearm.jobs import data as job
from tests.data.pickled import batch
from tests.data.publisher import Publisher, entry, publishing, tar

RUN = CliRunner()
PIXELS = np.random.default_rng(0).integers(0, 256, (3, 3072), dtype=np.uint8)


@pytest.fixture
def publisher(monkeypatch: pytest.MonkeyPatch) -> Iterator[Publisher]:
    monkeypatch.setenv("no_proxy", "*")
    with publishing() as one:
        yield one


def publish(publisher: Publisher, monkeypatch: pytest.MonkeyPatch) -> None:
    """CIFAR-10 as this publisher has it: three test pictures."""
    content = tar({"cifar-10-batches-py/test_batch": batch(PIXELS, [1, 2, 3])})
    monkeypatch.setitem(CATALOGUE, "cifar10", entry(publisher.file("cifar-10-python.tar.gz", content, unpacked=10**6)))


def rows(*options: str) -> dict[str, dict[str, object]]:
    result = RUN.invoke(app, ["list", "--json", *options])
    return {row["name"]: row for row in json.loads(result.stdout)}


def test_fetch_then_list_then_load(publisher: Publisher, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    publish(publisher, monkeypatch)
    monkeypatch.setenv("FOREARM_DATA", str(tmp_path))
    assert rows()["cifar10"]["present"] == []
    result = RUN.invoke(app, ["fetch", "cifar10"])
    assert (result.exit_code, result.stdout.strip()) == (0, f"{tmp_path / 'cifar10'}: fetched cifar-10-python.tar.gz")
    assert rows()["cifar10"]["present"] == ["test"]
    assert rows()["cifar10"]["where"] == str(tmp_path / "cifar10")
    assert sets.load("cifar10", "test").labels.tolist() == [1, 2, 3]
    assert "all there" in RUN.invoke(app, ["fetch", "cifar10"]).stdout
    assert rows("--verify")["cifar10"]["check"] == "ok"
    assert RUN.invoke(app, ["list", "--verify"]).exit_code == 0
    (tmp_path / "cifar10" / "cifar-10-batches-py" / "test_batch").write_bytes(batch(PIXELS, [1, 2, 4]))
    assert rows("--verify")["cifar10"]["check"] == "changed: cifar-10-batches-py"
    assert RUN.invoke(app, ["list", "--verify"]).exit_code == 1
    assert RUN.invoke(app, ["list"]).exit_code == 0


def test_a_made_set_lies_where_it_is_made_from(publisher: Publisher, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """CIFAR-10-C is made from CIFAR-10 until the published arrays are there."""
    publish(publisher, monkeypatch)
    monkeypatch.setenv("FOREARM_DATA", str(tmp_path))
    assert (rows()["cifar10_c"]["present"], rows()["cifar10_c"]["where"]) == ([], "")
    RUN.invoke(app, ["fetch", "cifar10"])
    for there in ((), ("cifar10_c",)):
        for name in there:
            (tmp_path / name).mkdir()
        row = rows("--verify")["cifar10_c"]
        assert (row["present"], row["where"], row["check"]) == (["test"], str(tmp_path / "cifar10"), "ok")
    np.save(tmp_path / "cifar10_c" / "gaussian_noise.npy", PIXELS.reshape(3, 3, 32, 32).transpose(0, 2, 3, 1)[[0] * 5])
    np.save(tmp_path / "cifar10_c" / "labels.npy", np.ones(5, np.uint8))
    row = rows("--verify")["cifar10_c"]
    assert (row["present"], row["where"], row["check"]) == (["test"], str(tmp_path / "cifar10_c"), "not fetched")


def test_fetch_to_a_folder(publisher: Publisher, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    publish(publisher, monkeypatch)
    result = RUN.invoke(app, ["fetch", "cifar10", "--to", str(tmp_path)])
    assert result.exit_code == 0
    assert f"export FOREARM_DATA={tmp_path}" in result.stderr
    assert len(sets.load("cifar10", "test", tmp_path / "cifar10")) == 3


def test_no_network_is_exit_code_1_and_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from forearm.data import fetch

    with publishing() as gone:
        publish(gone, monkeypatch)
    monkeypatch.setenv("no_proxy", "*")
    monkeypatch.setattr(fetch, "TRIES", 1)
    result = RUN.invoke(app, ["fetch", "cifar10", "--to", str(tmp_path)])
    assert result.exit_code == 1
    assert result.stderr.count("\n") == 1
    assert "could not get http://127.0.0.1" in result.stderr


def test_what_cannot_be_fetched_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, why in (("cifar", "did you mean 'cifar10'"), ("imagenet", "after registration"), ("zzz", "one of cifar10")):
        error = RUN.invoke(app, ["fetch", name, "--to", str(tmp_path)]).exception
        assert isinstance(error, SpecError)
        assert why in str(error)
    monkeypatch.delenv("FOREARM_DATA", raising=False)
    monkeypatch.setattr(sets, "root", lambda: tmp_path / "nowhere")
    with pytest.raises(SpecError, match="--to DIR"):
        job.get("cifar10")


def test_the_table_has_every_data_set(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FOREARM_DATA", str(tmp_path))
    result = RUN.invoke(app, ["list"], env={"COLUMNS": "200"})
    assert result.exit_code == 0
    for name in sets.DATASETS:
        assert name in result.stdout
    assert {row["where"] for row in rows().values()} == {""}
    assert rows()["imagenet"]["fetchable"] is False


def test_a_set_that_was_not_fetched_has_nothing_to_check_against(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FOREARM_DATA", str(tmp_path))
    (tmp_path / "cifar10").mkdir()
    (tmp_path / "cifar10" / "test_batch").write_bytes(batch(PIXELS, [1, 2, 3]))
    assert rows("--verify")["cifar10"]["check"] == "not fetched"
    assert RUN.invoke(app, ["list", "--verify"]).exit_code == 0
    (tmp_path / "cifar10" / "fetched.json").write_text("{")
    assert "not a record" in str(rows("--verify")["cifar10"]["check"])
    assert RUN.invoke(app, ["list", "--verify"]).exit_code == 1
