"""CIFAR's pickles are read, and nothing in a hostile one is ever called."""

from __future__ import annotations

import contextlib
import os
import pickle
from collections import OrderedDict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from forearm.data.pickles import read_pickle
from forearm.errors import InputError
from tests.data.pickled import array, batch, text

PIXELS = np.random.default_rng(0).integers(0, 256, (4, 3072), dtype=np.uint8)


class Runs:
    """Unpickled, it makes a folder: the usual way in."""

    def __init__(self, where: Path) -> None:
        self.where = where

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self.where),)


def test_a_batch_as_python_2_wrote_it(tmp_path: Path) -> None:
    content = batch(PIXELS, [3, 8, 0, 255])
    (tmp_path / "test_batch").write_bytes(content)
    found = read_pickle(tmp_path / "test_batch")
    assert np.array_equal(found["data"], PIXELS)
    assert found["labels"] == [3, 8, 0, 255]
    assert found["filenames"] == ["0.png", "1.png", "2.png", "3.png"]
    theirs = pickle.loads(content, encoding="latin1")  # the bytes above are a pickle to Python too
    assert np.array_equal(theirs["data"], PIXELS)
    assert theirs["labels"] == found["labels"]


@pytest.mark.parametrize("protocol", [1, 2, 3, 4])
@pytest.mark.parametrize("dtype", ["uint8", "<i2", ">i4", "int64"])
def test_batches_as_python_3_writes_them(protocol: int, dtype: str, tmp_path: Path) -> None:
    data = PIXELS.astype(dtype)
    for name, array_ in (("c", data), ("f", np.asfortranarray(data))):
        file = tmp_path / name
        file.write_bytes(pickle.dumps({b"data": array_, "labels": [1, 70000, -2], "flag": True, "none": None, "t": (1, 2)}, protocol))
        found = read_pickle(file)
        assert np.array_equal(found["data"], array_)
        assert (found["labels"], found["flag"], found["none"], found["t"]) == ([1, 70000, -2], True, None, (1, 2))


@pytest.mark.parametrize("protocol", [0, 1, 2, 3, 4, 5])
def test_a_pickle_that_runs_something_is_refused(protocol: int, tmp_path: Path) -> None:
    target, file = tmp_path / "made", tmp_path / "data_batch_1"
    file.write_bytes(pickle.dumps({"labels": [1], "data": Runs(target)}, protocol))
    with pytest.raises(InputError, match="refused as a pickle") as caught:
        read_pickle(file)
    assert "\n" not in str(caught.value)
    assert not target.exists()
    pickle.loads(file.read_bytes())  # the same bytes do run where they are unpickled
    assert target.is_dir()


def test_the_names_that_are_known_are_not_looked_up_either(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def never(*_: object) -> None:
        raise AssertionError("called")

    file = tmp_path / "test_batch"
    file.write_bytes(batch(PIXELS, [1, 2, 3, 4]))
    monkeypatch.setattr(pickle, "Unpickler", never)
    monkeypatch.setattr(pickle, "loads", never)
    monkeypatch.setattr(np._core.multiarray, "_reconstruct", never)
    assert np.array_equal(read_pickle(file)["data"], PIXELS)


def wrap(value: bytes) -> bytes:
    return b"\x80\x02}(" + text("data") + value + b"u."


COLUMNS = b"J\x00\x0c\x00\x00"  # the shape's 3,072; an eighth of it fits entries of eight bytes
HOSTILE = {
    "a call of os.system": wrap(b"cos\nsystem\nU\x04true\x85R"),
    "a name alone": wrap(b"cos\nsystem\n"),
    "a name from the stack": wrap(b"\x8c\x02os\x8c\x06system\x93"),
    "numpy's own loader": wrap(b"cnumpy\nload\nU\x01x\x85R"),
    "getattr": wrap(b"cbuiltins\ngetattr\ncnumpy\nndarray\nU\x01x\x86R"),
    "an instance": wrap(b"(ios\nsystem\n"),
    "an object": wrap(b"(cnumpy\nndarray\no"),
    "a new object": wrap(b"cnumpy\nndarray\n)\x81"),
    "a persistent id": wrap(b"Pname\n"),
    "an extension": wrap(b"\x82\x01"),
    "an array of objects": wrap(array(PIXELS, b"O8").replace(COLUMNS, b"J\x80\x01\x00\x00")),
    "an array of floats": wrap(array(PIXELS, b"f8").replace(COLUMNS, b"J\x80\x01\x00\x00")),
    "a dtype that is called as an array": wrap(b"cnumpy.core.multiarray\n_reconstruct\ncnumpy\ndtype\nK\x00\x85U\x01b\x87R"),
    "more shape than bytes": wrap(array(PIXELS).replace(COLUMNS, b"J\x00\x0c\x00\x7f")),
    "less than nothing": wrap(array(PIXELS).replace(COLUMNS, b"J\xff\xff\xff\xff")),
    "a state of nothing": wrap(b"U\x01xU\x01yb"),
    "items of a list": b"\x80\x02](U\x01aU\x01bu.",
    "a list": b"\x80\x02].",
    "a key that is a tuple of tuples": b"\x80\x02}(" + b")" + b"\x85" * 200000 + b"K\x01u.",
    "half a dictionary": b"\x80\x02}(U\x01au.",
    "an empty stack": b"\x80\x02R.",
    "no end": b"\x80\x02}",
    "a memo far away": b"\x80\x02}r\xff\xff\xff\x7fj\xfe\xff\xff\x7f.",
    "nothing": b"",
    "a picture": b"\x89PNG\r\n\x1a\n",
}


@pytest.mark.parametrize("content", HOSTILE.values(), ids=list(HOSTILE))
def test_hostile_pickles_are_refused_in_one_line(content: bytes, tmp_path: Path) -> None:
    file = tmp_path / "data_batch_1"
    file.write_bytes(content)
    with pytest.raises(InputError, match="refused as a pickle") as caught:
        read_pickle(file)
    assert "\n" not in str(caught.value)


def test_a_plain_class_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "data_batch_1"
    file.write_bytes(pickle.dumps(OrderedDict(labels=[1])))
    with pytest.raises(InputError, match="collections OrderedDict"):
        read_pickle(file)


def test_a_file_that_is_far_too_large_is_not_read(tmp_path: Path) -> None:
    file = tmp_path / "data_batch_1"
    with file.open("wb") as hollow:
        hollow.truncate(2**30)
    with pytest.raises(InputError, match="1073741824 bytes"):
        read_pickle(file)


@pytest.mark.filterwarnings("ignore:invalid escape sequence")
@settings(max_examples=200, deadline=None)
@given(st.integers(0, 10_000), st.binary(max_size=6))
def test_damaged_pickles_are_read_or_refused(tmp_path_factory: pytest.TempPathFactory, at: int, bytes_: bytes) -> None:
    content = batch(PIXELS[:1, :16], [1])
    at %= len(content)
    file = tmp_path_factory.mktemp("damaged") / "data_batch_1"
    file.write_bytes(content[:at] + bytes_ + content[at + 1 :])
    with contextlib.suppress(InputError):
        assert isinstance(read_pickle(file), dict)
