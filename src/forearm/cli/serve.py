"""`forearm serve`: the same arming over HTTP, with a web page."""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from forearm.cli.options import Backbone, Defense, Device, Labeller, Seed, Threat, Threshold
from forearm.defenses.preemptive.protector import DEFAULT
from forearm.errors import SpecError

if TYPE_CHECKING:
    from forearm.jobs.armory import Armory

KEY = "FOREARM_API_KEY"


def serve(
    *,
    host: Annotated[str, typer.Option(help="Address to listen on; one that others reach needs an API key.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="Port; 0 takes any free one.")] = 8000,
    api_key_file: Annotated[Path | None, typer.Option(help=f"File with the API key (or the variable {KEY}).")] = None,
    name: Annotated[list[str] | None, typer.Option(help="A further host name that clients use; may be given again.")] = None,
    defense: Defense = DEFAULT,
    threat: Threat = None,
    backbone: Backbone = None,
    labeller: Labeller = None,
    threshold: Threshold = 0.5,
    seed: Seed = 0,
    device: Device = None,
    queue: Annotated[int, typer.Option(min=1, help="Requests in the house; further ones are told to come again (429).")] = 32,
    batch: Annotated[int, typer.Option(min=1, help="Small pictures of one shape handed to the models together, at most.")] = 4,
    decoders: Annotated[int, typer.Option(min=1, help="Processes that decode and encode.")] = 2,
    timeout: Annotated[float, typer.Option(min=0.1, help="Seconds from a request's last byte to its answer.")] = 120.0,
    drain: Annotated[float, typer.Option(min=1.0, help="Seconds that a stop waits for what is in flight.")] = 120.0,
    max_pixels: Annotated[int, typer.Option(min=1, help="Refuse pictures with more pixels.")] = 24_000_000,
    max_bytes: Annotated[int, typer.Option(min=1, help="Refuse files with more bytes.")] = 32 * 2**20,
) -> None:
    """Serve the arming over HTTP, with a web page at /. Ctrl-C or SIGTERM finishes what is in flight and ends with code 0.

    Needs the extra 'service'. A picture gets the same bytes as from `forearm protect` with the same options.
    """
    from forearm.images.limits import Limits
    from forearm.service.settings import Settings

    settings = Settings(
        host=host, port=port, api_key=key_of(api_key_file), names=tuple(name or ()), queue=queue, batch=batch, decoders=decoders,
        timeout=timeout, drain=drain, limits=Limits(max_bytes=max_bytes, max_pixels=max_pixels),
    )  # fmt: skip
    try:
        from forearm.service.server import serve as run
    except ModuleNotFoundError as error:
        if (error.name or "").startswith("forearm"):
            raise
        raise SpecError(f"serve: {error.name} is not installed; the extra 'service', for example pip install 'forearm[service]'") from None
    from forearm.jobs.armory import Armory
    from forearm.service.verifying import Inspector

    armory = Armory.open(defense, threat, backbone, labeller, seed, device, threshold)
    load_aside(armory)
    run(settings, armory, Inspector(armory), lambda address: typer.echo(f"forearm serves {address} (Ctrl-C finishes and stops)", err=True))


def load_aside(armory: Armory) -> None:
    """Load the models for small pictures and for photos, so that what cannot be loaded is told before anything listens.

    In a thread that ends: OpenMP keeps threads for each thread that ever computed, and once there are more of them than cores it lets all wait
    asleep at every barrier. The main thread must not be one of them while the service's own compute.
    """
    with ThreadPoolExecutor(1) as aside:
        list(aside.map(lambda side: armory.pair(side, side), (32, 256)))


def key_of(path: Path | None) -> str | None:
    """The API key from a file or from the environment; None for none."""
    if path is None:
        return os.environ.get(KEY) or None
    try:
        return path.read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError) as error:
        raise SpecError(
            f"{path}: no readable key ({type(error).__name__}); a text file that holds the key alone, for example key.txt"
        ) from None
