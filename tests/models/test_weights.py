"""Weight files: sums are checked, objects are refused, downloads appear whole or not at all."""

from __future__ import annotations

import hashlib
import os
import threading
from collections.abc import Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from forearm.errors import ArtifactError
from forearm.models.weights import cache, fetch, file_sum, fill, read_weights


class Bomb:
    """Unpickling one makes a folder."""

    def __init__(self, path: str) -> None:
        self.path = path

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.mkdir, (self.path,)


def test_a_pickled_object_is_refused_and_not_run(tmp_path: Path) -> None:
    torch.save({"state_dict": {"w": torch.zeros(1)}, "x": Bomb(str(tmp_path / "boom"))}, tmp_path / "a.pt")
    with pytest.raises(ArtifactError, match="not readable as weights") as caught:
        read_weights(tmp_path / "a.pt")
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "boom").exists()
    torch.load(tmp_path / "a.pt", weights_only=False)  # the bomb is live
    assert (tmp_path / "boom").exists()


def test_a_pickled_array_is_refused(tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz", w=np.array([{"a": 1}], dtype=object))
    with pytest.raises(ArtifactError, match="not readable as weights"):
        read_weights(tmp_path / "a.npz")


@pytest.mark.parametrize("name", ["a.safetensors", "a.npz", "a.pt", "a.th"])
def test_garbage_and_missing_files(tmp_path: Path, name: str) -> None:
    with pytest.raises(ArtifactError, match="no readable weights"):
        read_weights(tmp_path / name)
    (tmp_path / name).write_bytes(b"garbage" * 9)
    with pytest.raises(ArtifactError, match="not readable as weights"):
        read_weights(tmp_path / name)


@pytest.mark.parametrize("wrap", [(), ("state_dict",), ("last",), ("model", "state_dict")])
def test_a_state_is_found_inside_a_checkpoint(tmp_path: Path, wrap: tuple[str, ...]) -> None:
    content: dict[str, object] = {"w": torch.arange(3.0), "epoch": 7}
    for name in wrap:
        content = {name: content, "best": {"w": torch.zeros(3)}, "epoch": 7}
    torch.save(content, tmp_path / "a.pt")
    state, found = read_weights(tmp_path / "a.pt")
    assert list(state) == ["w"]
    assert torch.equal(state["w"], torch.arange(3.0))
    assert found == file_sum(tmp_path / "a.pt")


def test_a_changed_byte_is_seen(tmp_path: Path) -> None:
    path = tmp_path / "a.safetensors"
    save_file({"w": torch.arange(3.0)}, path)
    sha256 = file_sum(path)
    assert read_weights(path, sha256)[1] == sha256
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)
    with pytest.raises(ArtifactError, match=f"expected {sha256}"):
        read_weights(path, sha256)


def test_fill_names_the_first_bad_entry() -> None:
    layer = nn.Linear(2, 3)
    good: dict[str, Tensor] = {"weight": torch.ones(3, 2).half(), "bias": torch.ones(3).half()}
    fill(layer, good, "here")
    assert layer.weight.dtype == torch.float32
    assert float(layer.weight.detach().sum()) == 6.0
    with pytest.raises(ArtifactError, match=r"here: no entry 'bias'"):
        fill(layer, {"weight": good["weight"]}, "here")
    with pytest.raises(ArtifactError, match=r"'weight' is \(2, 3\); the architecture's is \(3, 2\)"):
        fill(layer, good | {"weight": torch.ones(2, 3)}, "here")
    with pytest.raises(ArtifactError, match=r"the entry 'extra' has no place"):
        fill(layer, good | {"extra": torch.ones(1)}, "here")


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[str, Path]]:
    """A web server over a folder, and an empty cache."""
    folder = tmp_path / "site"
    folder.mkdir()
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(SimpleHTTPRequestHandler, "log_message", lambda *_: None)
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(SimpleHTTPRequestHandler, directory=str(folder)))
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}", folder
    server.shutdown()
    server.server_close()
    thread.join()


def test_a_file_is_fetched_once_and_kept(site: tuple[str, Path]) -> None:
    address, folder = site
    (folder / "a.pt").write_bytes(b"weights")
    wanted = hashlib.sha256(b"weights").hexdigest()
    path, found = fetch(f"{address}/a.pt#sha256={wanted}")
    assert (path.read_bytes(), path.name, found) == (b"weights", "a.pt", wanted)
    (folder / "a.pt").unlink()
    assert fetch(f"{address}/a.pt", wanted) == (path, wanted)
    path.write_bytes(b"changed in the cache")
    with pytest.raises(ArtifactError, match="cannot be fetched"):
        fetch(f"{address}/a.pt", wanted)


def test_a_wrong_sum_leaves_nothing(site: tuple[str, Path]) -> None:
    address, folder = site
    (folder / "a.pt").write_bytes(b"other")
    with pytest.raises(ArtifactError, match=f"expected {'0' * 64}"):
        fetch(f"{address}/a.pt#sha256={'0' * 64}")
    assert [path for path in cache().rglob("*") if path.is_file()] == []


@pytest.mark.parametrize("end", ["", "#sha256=", "#sha256=12", "#sha256=" + "g" * 64])
def test_without_a_sum_nothing_is_fetched(end: str) -> None:
    with pytest.raises(ArtifactError, match="no sha256"):
        fetch(f"https://host.invalid/a.pt{end}")
