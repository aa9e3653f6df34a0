"""Weight files: fetched, checked against their sha256, and read without running anything that is in them."""

from __future__ import annotations

import hashlib
import io
import os
import pickle
import tempfile
import zipfile
from pathlib import Path
from typing import Any
from urllib.error import URLError
from urllib.parse import urlsplit
from urllib.request import urlopen

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load as load_safetensors
from torch import Tensor, nn

from forearm.errors import ArtifactError
from forearm.models.blocks import Normalize

WRAPPERS = ("state_dict", "last", "model_state_dict", "model", "net")  # of several weights in one file the last epoch's
COUNTERS = "num_batches_tracked"  # of batch norm; no forward pass in eval mode reads them


def cache() -> Path:
    """Where fetched files are kept: `$XDG_CACHE_HOME/forearm`, or `~/.cache/forearm`."""
    given = os.environ.get("XDG_CACHE_HOME")
    return (Path(given) if given else Path.home() / ".cache") / "forearm"


def is_url(text: str) -> bool:
    """Whether `text` is an address rather than a path."""
    return text.startswith(("https://", "http://"))


def fetch(url: str, sha256: str | None = None, timeout: float = 60.0) -> tuple[Path, str]:
    """The file at an address, from the cache or fetched into it, and its sha256.

    The sum must be given, as `sha256` or at the address's end ("https://host/file#sha256=..."). ArtifactError without
    it, and where the bytes have another. The file appears in the cache whole and checked, or not at all.
    """
    address, _, fragment = url.partition("#")
    wanted = sha256 or fragment.removeprefix("sha256=")
    if len(wanted) != 64 or set(wanted) - set("0123456789abcdef"):
        raise ArtifactError(f"{url}: no sha256; 64 hexadecimal digits at the end, for example {address}#sha256={'0' * 64}")
    name = Path(urlsplit(address).path).name or "file"
    kept = cache() / wanted[:16] / name
    if kept.is_file() and file_sum(kept) == wanted:
        return kept, wanted
    kept.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.NamedTemporaryFile(dir=kept.parent, suffix=".part", delete=False) as part:
        try:
            found = hashlib.sha256()
            with urlopen(address, timeout=timeout) as answer:
                while block := answer.read(1 << 20):
                    found.update(block)
                    part.write(block)
            if found.hexdigest() != wanted:
                raise ArtifactError(f"{address}: sha256 {found.hexdigest()}; expected {wanted}")
            part.close()
            Path(part.name).replace(kept)
        except (URLError, OSError) as error:
            raise ArtifactError(f"{address}: cannot be fetched ({error}); a reachable address, or a local file") from None
        finally:
            Path(part.name).unlink(missing_ok=True)
    return kept, wanted


def file_sum(path: Path) -> str:
    """The sha256 of a file. ArtifactError where it cannot be read."""
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise ArtifactError(f"{path}: no readable file ({type(error).__name__}); a weight file") from None


def read_weights(path: Path, sha256: str | None = None) -> tuple[dict[str, Tensor], str]:
    """The entries of a weight file (.safetensors, .npz, or anything `torch.save` wrote), and its sha256.

    ArtifactError where the file is missing, its bytes have another sum than `sha256`, or it holds anything but tensors
    in plain containers: pickled objects are refused, not run. The bytes that are summed are the bytes that are read.
    """
    try:
        data = path.read_bytes()
    except OSError as error:
        raise ArtifactError(f"{path}: no readable weights ({type(error).__name__}); a .safetensors, .npz, .pt or .th file") from None
    found = hashlib.sha256(data).hexdigest()
    if sha256 is not None and found != sha256:
        raise ArtifactError(f"{path}: sha256 {found}; expected {sha256}")
    try:
        if path.suffix == ".safetensors":
            return load_safetensors(data), found
        if path.suffix == ".npz":
            with np.load(io.BytesIO(data), allow_pickle=False) as arrays:
                return {name: torch.from_numpy(arrays[name]) for name in arrays.files}, found
        return _unwrapped(torch.load(io.BytesIO(data), map_location="cpu", weights_only=True), path), found
    except (
        SafetensorError,
        pickle.UnpicklingError,
        zipfile.BadZipFile,
        RuntimeError,
        ValueError,
        TypeError,
        EOFError,
    ) as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise ArtifactError(f"{path}: not readable as weights ({reason}); tensors in a .safetensors, .npz or state-dict file") from None


def _unwrapped(content: Any, path: Path) -> dict[str, Tensor]:
    """The state inside a checkpoint: the dictionary itself, or the one under a usual name."""
    while isinstance(content, dict):
        inner = next((content[name] for name in WRAPPERS if isinstance(content.get(name), dict)), None)
        if inner is None:
            break
        content = inner
    if not isinstance(content, dict) or not any(isinstance(value, Tensor) for value in content.values()):
        raise ArtifactError(f"{path}: no state dict; a dictionary of tensors, bare or under one of {', '.join(WRAPPERS)}")
    return {str(name): value for name, value in content.items() if isinstance(value, Tensor)}


def fill(network: nn.Module, state: dict[str, Tensor], where: str) -> None:
    """Put `state` into `network`, as float32.

    Every entry must be used and every weight be given, each of its shape: ArtifactError names the first that is not.
    Batch norm's counters may be missing; `normalize.mean` and `normalize.std`, where the file has them, replace the
    architecture's constants.
    """
    constants = {name for name in ("normalize.mean", "normalize.std") if name in state}
    given = {name: value for name, value in state.items() if not name.endswith(COUNTERS) and name not in constants}
    wanted = {name: value for name, value in network.state_dict().items() if not name.endswith(COUNTERS)}
    for name, value in wanted.items():
        if name not in given:
            raise ArtifactError(f"{where}: no entry {name!r}; {len(wanted)} entries of the architecture, this one {tuple(value.shape)}")
        if given[name].shape != value.shape:
            raise ArtifactError(f"{where}: {name!r} is {tuple(given[name].shape)}; the architecture's is {tuple(value.shape)}")
    for name in given:
        if name not in wanted:
            raise ArtifactError(f"{where}: the entry {name!r} has no place; only the {len(wanted)} entries of the architecture")
    network.load_state_dict({name: value.float() for name, value in given.items()}, strict=False)
    normalize = getattr(network, "normalize", None)
    for name in constants:
        if isinstance(normalize, Normalize):
            normalize.get_buffer(name.removeprefix("normalize.")).copy_(state[name].reshape(1, -1, 1, 1))
