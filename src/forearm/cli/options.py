"""What `protect` can be told, and what other commands share of it."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from forearm.cli.complete import among, models, protectors
from forearm.errors import SpecError

ENGINES = ("local", "ray")

Paths = Annotated[list[str], typer.Argument(help="Folders, pictures and addresses (s3://bucket/photos); - reads one picture from stdin.")]
Out = Annotated[str | None, typer.Option("--out", "-o", help="Output folder or address; - writes one picture to stdout.")]
Defense = Annotated[
    str, typer.Option(autocompletion=protectors, help="Defence by name, for example mspd, as published, or 'mspd(copies=10)'.")
]
Threat = Annotated[
    str | None, typer.Option(help="Threat, for example linf:8/255 (default: linf:8/255 up to 64 pixels, linf:4/255 for photos).")
]
Strength = Annotated[
    str | None,
    typer.Option(
        autocompletion=among("subtle", "balanced", "strong"),
        help="Instead of a threat: subtle, balanced or strong (photos 2, 4, 8 /255; small pictures 4, 8, 12 /255).",
    ),
]
Survive = Annotated[
    str | None,
    typer.Option(
        autocompletion=among("web", "social", "archive"),
        help="What publishing does, to arm for it: web, social, archive, or steps such as 'jpeg:75,resize:1080'.",
    ),
]
MinPsnr = Annotated[float | None, typer.Option(metavar="DB", help="Least PSNR: the budget shrinks for each picture until it is kept.")]
MaxLpips = Annotated[float | None, typer.Option(metavar="X", help="Greatest LPIPS-Squeeze distance, likewise; needs --lpips.")]
Lpips = Annotated[Path | None, typer.Option(help="Folder with the published LPIPS-Squeeze weights.")]
HeatMap = Annotated[
    Path | None, typer.Option(help="Folder for a small map of the change of each file, and a page to slide before and after.")
]
Backbone = Annotated[
    str | None,
    typer.Option(
        autocompletion=models,
        help="The network that says which change helps: name or path, or several as in a+b (default: the embedded ones for the picture's size).",
    ),
]
Labeller = Annotated[
    str | None,
    typer.Option(
        autocompletion=models,
        help="The network that says what a picture shows: name or path; 'backbone' lets the backbone do it (default: the embedded one).",
    ),
]
Labels = Annotated[Path | None, typer.Option(help="Your labels: CSV with the columns file,label; they win.")]
Label = Annotated[str | None, typer.Option(help="The label of a single picture from stdin.")]
Threshold = Annotated[float, typer.Option(min=0.0, max=1.0, help="Below this confidence a label is uncertain.")]
Seed = Annotated[int, typer.Option(help="Seed of the noise. Keep it to yourself: it helps to undo the arming.")]
Device = Annotated[str | None, typer.Option(help="cpu, cuda, cuda:1 (default: a GPU if there is one).")]
Include = Annotated[list[str] | None, typer.Option(help="Only files that match this glob; may be given again.")]
Exclude = Annotated[list[str] | None, typer.Option(help="Not what matches this glob, file or folder; wins.")]
InPlace = Annotated[bool, typer.Option("--in-place", help="Replace the inputs; needs --backup.")]
Backup = Annotated[Path | None, typer.Option(help="Folder for the originals and the journal of --in-place.")]
Exists = Annotated[
    str,
    typer.Option(autocompletion=among("skip", "overwrite", "fail"), help="Outputs that are there from elsewhere: skip, overwrite or fail."),
]
Again = Annotated[bool, typer.Option("--again", help="Arm what is armed already once more.")]
NoTag = Annotated[bool, typer.Option("--no-tag", help="Do not write into the file that it is armed.")]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Say what would be done; write nothing.")]
Jobs = Annotated[int, typer.Option(min=1, help="Worker processes that decode and encode.")]
Batch = Annotated[int, typer.Option(min=1, help="Pictures armed at once, at most.")]
BatchPixels = Annotated[int, typer.Option(min=1, help="Pixels armed at once, unless one picture has more.")]
MaxPixels = Annotated[int | None, typer.Option(min=1, help="Refuse pictures with more pixels (default: 50 million).")]
MaxBytes = Annotated[int | None, typer.Option(min=1, help="Refuse files with more bytes (default: 64 MiB).")]
ShardOf = Annotated[str | None, typer.Option("--shard", metavar="I/N", help="Only part I of N of the files; each machine takes one.")]
Engine = Annotated[
    str,
    typer.Option(autocompletion=among(*ENGINES), help="local: this machine's processes; ray: workers on a Ray cluster (extra 'ray')."),
]
Workers = Annotated[int | None, typer.Option(min=1, help="Ray workers, each with the models and a CPU (default: one a CPU, or a GPU).")]
Address = Annotated[str | None, typer.Option(help="The Ray cluster's address, 'auto' for the one here (default: one for this run alone).")]
Spool = Annotated[Path | None, typer.Option(help="Where blocks of files from addresses lie meanwhile; Ray workers elsewhere must see it.")]
Json = Annotated[bool, typer.Option("--json", help="Print the summary to stdout as JSON.")]


def check_engine(engine: str, workers: int | None, address: str | None) -> None:
    """SpecError for an engine that there is not, and for options of the other one."""
    if engine not in ENGINES:
        raise SpecError(f"engine: got {engine!r}; one of {', '.join(ENGINES)}, for example 'ray'")
    if engine != "ray" and (workers is not None or address is not None):
        raise SpecError("engine: got --workers or --address without Ray; both belong to it, for example --engine ray --workers 4")
