"""`forearm protect`: arm pictures before their release."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from forearm.cli.examples import ending
from forearm.cli.exits import Exit, exit_for, exit_of, visible
from forearm.cli.options import (
    Address,
    Again,
    Backbone,
    Backup,
    Batch,
    BatchPixels,
    Defense,
    Device,
    DryRun,
    Engine,
    Exclude,
    Exists,
    HeatMap,
    Include,
    InPlace,
    Jobs,
    Json,
    Label,
    Labeller,
    Labels,
    Lpips,
    MaxBytes,
    MaxLpips,
    MaxPixels,
    MinPsnr,
    NoTag,
    Out,
    Paths,
    Seed,
    ShardOf,
    Spool,
    Strength,
    Survive,
    Threat,
    Threshold,
    Workers,
    check_engine,
)
from forearm.defenses.preemptive.protector import DEFAULT
from forearm.errors import ForearmError, InputError, SpecError

if TYPE_CHECKING:
    from rich.console import Console

    from forearm.images.limits import Limits
    from forearm.jobs.arm import Armourer
    from forearm.jobs.plan import ProtectJob
    from forearm.jobs.protect import Progress as Event
    from forearm.jobs.protect import Report
    from forearm.jobs.remote import Hands
    from forearm.jobs.stop import Stop
    from forearm.jobs.summary import Summary

STREAM = Path("-")
WARNING = "Hardening a wrong label is the worst failure of this method: look at the labels in the journal, and give your own with --labels."
EPILOG = ending("protect")


def protect(
    paths: Paths, *, out: Out = None, defense: Defense = DEFAULT, threat: Threat = None, strength: Strength = None,
    survive: Survive = None, min_psnr: MinPsnr = None, max_lpips: MaxLpips = None, lpips: Lpips = None, backbone: Backbone = None,
    labeller: Labeller = None, labels: Labels = None, label: Label = None, threshold: Threshold = 0.5, seed: Seed = 0,
    device: Device = None, include: Include = None, exclude: Exclude = None, in_place: InPlace = False,
    backup: Backup = None, exists: Exists = "skip", again: Again = False, no_tag: NoTag = False, dry_run: DryRun = False, jobs: Jobs = 2,
    batch: Batch = 64, batch_pixels: BatchPixels = 4_000_000, max_pixels: MaxPixels = None, max_bytes: MaxBytes = None,
    heat_map: HeatMap = None, shard: ShardOf = None, engine: Engine = "local", workers: Workers = None, address: Address = None,
    spool: Spool = None, as_json: Json = False,
) -> None:  # fmt: skip
    """Arm pictures: same folders, names, formats and metadata, with pixels that resist attacks.

    The same command goes on where it was broken off.
    """
    try:
        from forearm.images.objects import is_address
        from forearm.images.shard import Shard
        from forearm.jobs.armory import Armory
        from forearm.jobs.plan import ProtectJob

        check_engine(engine, workers, address)
        armourer = Armory.open(
            defense=defense, threat=threat, backbone=backbone, labeller=labeller, seed=seed, device=device,
            threshold=threshold, strength=strength, survive=survive, min_psnr=min_psnr, max_lpips=max_lpips, lpips=lpips,
        )  # fmt: skip
        job = ProtectJob(
            tuple(map(Path, paths)), None if out is None else Path(out), in_place, backup, tuple(include or ()), tuple(exclude or ()), labels, exists, again,
            not no_tag, dry_run, jobs, batch, batch_pixels, limits_of(max_pixels, max_bytes), None if shard is None else Shard.parse(shard),
        )  # fmt: skip
        remote = any(is_address(text) for text in (*paths, out or ""))
        check_maps(job, heat_map, remote)
        if STREAM in (*job.inputs, job.out):
            if remote or shard is not None or engine != "local":
                raise SpecError("-: got it with an address, --shard or --engine; files, for example -o armed.png")
            code = stream(job, armourer, label, as_json)
        elif label is not None:
            raise SpecError("label: got --label for a folder; --labels FILE, for example --labels labels.csv")
        else:
            if remote and out is None:
                raise SpecError("output: got none; an address, for example -o s3://bucket/armed")
            if remote and address is not None and spool is None:
                raise SpecError("spool: got none with --address; a folder that all workers see, for example --spool /shared/spool")
            arm = partial(arm_objects, paths, out or "", spool) if remote else arm_folder
            with hands_of(engine, job, armourer, workers, address) as hands:
                code = folder(job, armourer, as_json, heat_map, partial(arm, hands=hands))
    except ForearmError as error:
        typer.echo(f"forearm: {visible(str(error))}", err=True)
        raise typer.Exit(exit_for(error)) from None
    raise typer.Exit(code)


def limits_of(max_pixels: int | None, max_bytes: int | None) -> Limits:
    """The limits of the codec with those that the user set."""
    from dataclasses import replace

    from forearm.images.limits import LIMITS

    return replace(LIMITS, max_pixels=max_pixels or LIMITS.max_pixels, max_bytes=max_bytes or LIMITS.max_bytes)


@contextmanager
def hands_of(engine: str, job: ProtectJob, armourer: Armourer, workers: int | None, address: str | None) -> Iterator[Hands | None]:
    """Who arms the pictures: None for this process."""
    if engine == "local" or job.dry_run:
        yield None
        return
    from forearm.engines.ray import Fleet
    from forearm.jobs.remote import Bench, Block

    gpu = str(getattr(armourer, "device", "cpu")).startswith("cuda")
    with Fleet[Block](partial(Bench, job, armourer), workers, address, gpu) as fleet:
        yield fleet


def arm_folder(job: ProtectJob, armourer: Armourer, report: Report, stop: Stop, hands: Hands | None = None) -> Summary:
    """The folder job."""
    from forearm.jobs.protect import protect as work

    return work(job, armourer, report, stop, hands)


def arm_objects(
    inputs: list[str], out: str, spool: Path | None, job: ProtectJob, armourer: Armourer, report: Report, stop: Stop, hands: Hands | None = None
) -> Summary:  # fmt: skip
    """The same on object stores."""
    from forearm.engines.objects import protect_objects

    return protect_objects(job, inputs, out, armourer, report, stop, hands, spool)


def check_maps(job: ProtectJob, heat_map: Path | None, remote: bool) -> None:
    """SpecError for heat maps of a stream or of addresses, and for a place where the next run would take them for pictures."""
    from os.path import realpath

    from forearm.images.folder import within

    if heat_map is None:
        return
    if remote or STREAM in (*job.inputs, job.out):
        raise SpecError("heat-map: got it for a stream or an address; folders, for example protect photos/ -o armed/ --heat-map maps/")
    for path in job.inputs:
        if path.is_dir() and within(realpath(heat_map), realpath(path)):
            raise SpecError(f"heat-map: {str(heat_map)!r} lies inside the input {str(path)!r}; a folder beside it, for example maps/")


def folder(job: ProtectJob, armourer: Armourer, as_json: bool, heat_map: Path | None, arm: Callable[..., Summary]) -> Exit:
    """Run a job of many pictures by `arm` with a progress bar on stderr, and draw its changes into `heat_map`."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    from forearm.jobs.stop import on_signals

    console = Console(stderr=True)
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with on_signals() as stop, Progress(*columns, console=console, disable=not console.is_terminal) as bar:
        shown = bar.add_task("plan", total=None)

        def report(event: Event) -> None:
            bar.update(shown, description=event.stage, completed=event.done, total=event.total)

        summary = arm(job, armourer, report, stop)
    table(console, summary, armourer.notes())
    if heat_map is not None and not job.dry_run and summary.armed + summary.done:
        from forearm.report.slider import write_looks

        for why in write_looks(heat_map, (*summary.done, *summary.armed), job.root, in_place=job.in_place):
            console.print(visible(why), markup=False, highlight=False, soft_wrap=True)
    if as_json:
        typer.echo(json.dumps(summary.values()))
    code = exit_of(summary, stop.signal)
    return Exit.DONE if code is Exit.NOTHING and job.shard is not None else code  # a shard may be empty


def table(console: Console, summary: Summary, notes: list[str]) -> None:
    """Counts, what asks for a look, what the models know, and the warning."""
    from rich.table import Table

    values = summary.values()
    rows = Table("pictures", "count", show_edge=False)
    for name, count in values["counts"].items():
        title = "would be armed" if name == "left" and summary.dry_run else name
        rows.add_row(title, str(count))
    if summary.median_psnr is not None:
        rows.add_row("median PSNR", f"{summary.median_psnr:.1f} dB")
    for eps, count in summary.budgets.items():
        rows.add_row(f"budget {eps}/255", str(count))
    console.print(rows)
    for line in summary.failed[:20]:
        console.print(visible(f"failed: {line.file}: {line.reason}"), markup=False, highlight=False, soft_wrap=True)
    for line in summary.uncertain[:20]:
        text = f"uncertain: {line.file}: {line.name} ({line.confidence:.2f}, by the {line.labelled_by})"
        console.print(visible(text), markup=False, highlight=False, soft_wrap=True)
    if len(summary.failed) > 20 or len(summary.uncertain) > 20:
        console.print("... and more: see the journal", markup=False)
    if summary.armed:
        for note in notes:
            console.print(note, markup=False, soft_wrap=True)
        console.print(WARNING, markup=False, soft_wrap=True)


def stream(job: ProtectJob, armourer: Armourer, label: str | None, as_json: bool) -> Exit:
    """One picture: from stdin or a file, to stdout or a file."""
    from forearm.images.folder import open_regular
    from forearm.images.journal import OutputError
    from forearm.images.write import commit, stage
    from forearm.jobs.single import protect_bytes

    out = job.out or STREAM
    if len(job.inputs) != 1 or job.in_place or job.labels is not None or job.dry_run:
        raise SpecError("-: got several inputs or an option for folders; one picture, for example protect - < a.png > b.png")
    if as_json and out == STREAM:
        raise SpecError("--json: got it with the picture on stdout; a file for the picture, for example -o armed.png")
    source = job.inputs[0]
    if out != STREAM and out.is_dir():
        raise SpecError(f"output: got the folder {str(out)!r} for stdin; a file, for example -o armed.png")
    if out != STREAM and out.exists() and job.exists != "overwrite":
        raise SpecError(f"output: {str(out)!r} exists; another name, or --exists overwrite")
    try:
        if source == STREAM:
            data = sys.stdin.buffer.read(job.limits.max_bytes + 1)
        else:
            with open_regular(source) as file:
                data = file.read(job.limits.max_bytes + 1)
        armed, line = protect_bytes(data, armourer, label=label, tag=job.tag, again=job.again, limits=job.limits, name=str(source))
    except InputError as error:
        typer.echo(f"forearm: {visible(str(error))}", err=True)
        return Exit.FAILED
    except OSError as error:
        raise SpecError(f"{source}: cannot be read ({error.strerror}); a picture, for example beach.jpg") from None
    if out == STREAM:
        sys.stdout.buffer.write(armed)
        sys.stdout.buffer.flush()
    else:
        try:
            commit(stage(out, armed, 0o644), out)
        except OSError as error:
            raise OutputError(f"{out}: cannot be written ({error.strerror}); a folder with write permission") from None
    if as_json:
        typer.echo(line.text())
    sure = "uncertain" if line.uncertain else f"{line.confidence:.2f}"
    typer.echo(f"armed as {line.name} ({sure}, by {line.labelled_by}); PSNR {line.psnr or float('inf'):.1f} dB", err=True)
    return Exit.DONE
