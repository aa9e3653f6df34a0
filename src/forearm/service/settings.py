"""How a service is set up. Checked once, before anything is loaded or bound."""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass, field

from forearm.errors import SpecError
from forearm.images.limits import Limits

SHORTEST_KEY = 16  # characters
SERVED = Limits(max_bytes=32 * 2**20, max_pixels=24_000_000)
LOCAL_NAMES = ("localhost", "127.0.0.1", "::1")


@dataclass(frozen=True, slots=True)
class ArchiveLimits:
    """Bounds on one zip archive."""

    max_bytes: int = 256 * 2**20  # the archive as sent
    max_members: int = 1000
    max_inflated: int = 2**30  # all members together, as its directory says


ARCHIVES = ArchiveLimits()


@dataclass(frozen=True, slots=True)
class Settings:
    """Addresses, caps and times of a service. SpecError for what cannot work or must not be.

    Memory at the worst: `queue` files of `limits.max_bytes`, and `batch` + 3 decoded pictures (or one a core and 3) of `limits.max_pixels`
    at about 7 bytes a pixel, besides the models and the decoders.
    """

    host: str = "127.0.0.1"
    port: int = 8000  # 0: any free one
    api_key: str | None = field(default=None, repr=False)
    names: tuple[str, ...] = ()  # further names in the Host header under which clients reach it
    queue: int = 32  # requests in the house; one more is told to come again (429)
    batch: int = 4  # pictures of one shape that are handed to the models together, at most
    batch_pixels: int = 65_536  # and their pixels, unless one picture has more
    decoders: int = 2  # processes that decode and encode
    decode_seconds: float = 30.0  # on one picture; then its process is ended
    timeout: float = 120.0  # seconds from the last byte of a request to its answer; of an archive, a picture
    upload_timeout: float = 60.0  # seconds for a request's body
    head_timeout: float = 10.0  # seconds for a request's first line and headers
    drain: float = 120.0  # seconds that a stop waits for what is in flight
    connections: int = 256  # open at once; further ones are closed
    limits: Limits = SERVED
    archive: ArchiveLimits = ARCHIVES

    def __post_init__(self) -> None:
        if not 0 <= self.port <= 65_535:
            raise SpecError(f"port: got {self.port}; 0 (any free one) to 65535, for example 8000")
        for name in ("queue", "batch", "batch_pixels", "decoders", "connections"):
            if getattr(self, name) < 1:
                raise SpecError(f"{name}: got {getattr(self, name)}; at least 1, for example 4")
        for name in ("decode_seconds", "timeout", "upload_timeout", "head_timeout", "drain"):
            if not getattr(self, name) > 0:
                raise SpecError(f"{name}: got {getattr(self, name)}; seconds above 0, for example 60")
        if self.api_key is not None and (len(self.api_key) < SHORTEST_KEY or not self.api_key.isascii() or not self.api_key.isprintable()):
            raise SpecError(
                f"api key: got {len(self.api_key)} characters; at least {SHORTEST_KEY} printable ASCII ones, for example from 'openssl rand -hex 16'"
            )
        if not self.local and self.api_key is None:
            raise SpecError(
                f"host: got {self.host!r}, which others can reach, without an API key; 127.0.0.1, or a key, for example --api-key-file key.txt"
            )

    @property
    def local(self) -> bool:
        """Whether only this machine can reach the address."""
        try:
            return ipaddress.ip_address(self.host).is_loopback
        except ValueError:
            return self.host == "localhost"

    @property
    def hosts(self) -> frozenset[str] | None:
        """The names that a request's Host header may give; None for any (a public address without `names`)."""
        if not self.local and not self.names:
            return None
        return frozenset(name.lower() for name in (*self.names, self.host, *(LOCAL_NAMES if self.local else ())))

    @property
    def decoder_memory(self) -> int:
        """Bytes of address space for one decoder beyond what it starts with: decoded, encoded and read back at the largest."""
        return 192 * 2**20 + 48 * self.limits.max_pixels + 4 * self.limits.max_bytes
