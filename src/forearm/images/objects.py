"""Folders of object stores by address (`s3://bucket/photos`, `memory://photos`), through fsspec: listed, fetched, and written whole or not at all."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from forearm.errors import InputError, SpecError
from forearm.images.journal import OutputError
from forearm.images.write import discard, temporary

WHOLE = frozenset({"s3", "s3a", "gs", "gcs", "az", "abfs"})  # whose upload is one act: the object is there complete, or it is not
MARKS = (
    "ETag",
    "etag",
    "md5Hash",
    "content_md5",
    "LastModified",
    "updated",
    "mtime",
    "created",
)  # that change with the content, the surest first

_ADDRESS = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+://.*", re.DOTALL)


def is_address(text: str) -> bool:
    """Whether `text` is an address rather than a path."""
    return _ADDRESS.fullmatch(text) is not None


@dataclass(frozen=True, slots=True)
class Store:
    """A folder, or one object, of a store. Names are below it, with "/". `url` ends without one."""

    url: str
    root: str  # as the file system spells it
    fs: Any

    @classmethod
    def open(cls, url: str) -> Store:
        """SpecError where fsspec, or what it needs for this kind of address, is not installed, or the address cannot be understood."""
        try:
            from fsspec.core import url_to_fs

            fs, root = url_to_fs(url)
        except ImportError as error:
            why = " ".join(str(error).split())
            raise SpecError(f"{url}: {why}; the extra 'cloud', for example pip install 'forearm[cloud]'") from None
        except Exception as error:  # each kind of store has errors of its own
            raise SpecError(f"{url}: {cause(error)}; an address such as 's3://bucket/photos'") from None
        return cls(url.rstrip("/"), root.rstrip("/"), fs)

    def at(self, name: str) -> str:
        """The path of `name` as the file system spells it; of the object itself for ""."""
        return f"{self.root}/{name}" if name else self.root

    def address(self, name: str) -> str:
        """The address of `name`."""
        return f"{self.url}/{name}" if name else self.url

    def find(self, hidden: bool = False) -> dict[str, str]:
        """Every object below, by name, with a mark that changes with its content. Hidden ones, or those alone; links of a local folder are left out."""
        try:
            self.fs.invalidate_cache()
            infos = self.fs.find(self.root, detail=True)
        except FileNotFoundError:
            return {}
        except Exception as error:
            raise InputError(f"{self.url}: cannot be listed ({cause(error)}); an address that can be read") from None
        files = {path: info for path, info in infos.items() if info.get("type") == "file" and not info.get("islink")}
        named = {path.removeprefix(self.root).lstrip("/"): mark_of(info) for path, info in files.items()}
        return {name: named[name] for name in sorted(named) if any(part.startswith(".") for part in name.split("/")) == hidden}

    def marks(self, names: Sequence[str]) -> dict[str, str]:
        """The marks of some objects as they are now."""
        self.fs.invalidate_cache()
        return {name: mark_of(self.fs.info(self.at(name))) for name in names}

    def fetch(self, places: dict[str, Path]) -> dict[str, str]:
        """Objects by name into files; for those that could not be had, why not."""
        wrong: dict[str, str] = {}
        if not places:
            return wrong
        try:
            for path in places.values():
                path.parent.mkdir(parents=True, exist_ok=True)
            self.fs.get([self.at(name) for name in places], [str(path) for path in places.values()])
        except Exception:  # one of them; which one shows when each is asked for alone
            for name, path in places.items():
                try:
                    path.parent.mkdir(parents=True, exist_ok=True)
                    self.fs.get_file(self.at(name), str(path))
                except Exception as error:
                    discard(path)
                    wrong[name] = cause(error)
        return wrong

    def read(self, name: str) -> bytes:
        """An object. InputError where it cannot be read."""
        try:
            data: bytes = self.fs.cat_file(self.at(name))
        except Exception as error:
            raise InputError(f"{self.address(name)}: cannot be read ({cause(error)}); an address that can be read") from None
        return data

    def write(self, name: str, data: bytes) -> None:
        """An object of these bytes, whole or not at all: in one act, or under a hidden name that is then changed. OutputError if it is refused."""
        try:
            if not WHOLE.isdisjoint(protocols(self.fs)):
                self.fs.pipe_file(self.at(name), data)
                return
            part = str(PurePosixPath(self.at(name)).parent / temporary(Path(name)).name)
            self.fs.makedirs(str(PurePosixPath(part).parent), exist_ok=True)
            self.fs.pipe_file(part, data)
            self.fs.mv(part, self.at(name))
        except Exception as error:
            raise OutputError(f"{self.address(name)}: cannot be written ({cause(error)}); an address that can be written to") from None


def protocols(fs: Any) -> tuple[str, ...]:
    """What a file system calls itself."""
    return (fs.protocol,) if isinstance(fs.protocol, str) else tuple(fs.protocol)


def mark_of(info: dict[str, Any]) -> str:
    """The size of an object and the surest of what its store says of its content."""
    said = next((f"{name} {info[name]}" for name in MARKS if info.get(name)), "")
    return f"{info.get('size')} bytes, {said}"


def cause(error: BaseException) -> str:
    """Why a store refused, in one line."""
    return (" ".join(str(error).split())[:200] or type(error).__name__) if not isinstance(error, FileNotFoundError) else "no such object"
