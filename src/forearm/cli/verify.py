"""`forearm verify` and `forearm inspect`: look at armed files."""

from __future__ import annotations

import json
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.table import Table

from forearm.cli.complete import among, attacks, models

if TYPE_CHECKING:
    from forearm.jobs.compare import Check


def verify(
    path: Annotated[str, typer.Argument(help="A folder or address that `forearm protect` wrote, or one armed file.")],
    original: Annotated[str | None, typer.Option(help="The original of one armed file, where no journal knows it.")] = None,
    attack: Annotated[str, typer.Option(autocompletion=attacks, help="The attack on each target, before and after.")] = "pgd(steps=20)",
    target: Annotated[
        list[str] | None,
        typer.Option(autocompletion=models, help="A target model by name or path; may be given several times (default: embedded ones)."),
    ] = None,
    threat: Annotated[
        str | None, typer.Option(help="Budget to hold the files to and to attack with (default: what each file was armed for).")
    ] = None,
    backbone: Annotated[
        str | None, typer.Option(autocompletion=models, help="The backbone that the files were armed with, where it is not embedded.")
    ] = None,
    labeller: Annotated[
        str | None, typer.Option(autocompletion=models, help="The labeller, for files whose label no journal knows.")
    ] = None,
    device: Annotated[str | None, typer.Option(help="cpu or cuda (default: a GPU if there is one).")] = None,
    lpips: Annotated[Path | None, typer.Option(help="Folder with the published LPIPS-Squeeze weights: adds LPIPS to the JSON.")] = None,
    survive: Annotated[
        str | None,
        typer.Option(
            autocompletion=among("web", "social", "archive"),
            help="Also measure after publishing: web, social, archive, or steps such as 'jpeg:75,resize:1080'.",
        ),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON to stdout instead of the table.")] = False,
) -> None:
    """Measure armed files anew against their originals: budget, label and margin, and targets under attack before and after."""
    from forearm.images.objects import is_address
    from forearm.jobs.verify import as_json as to_json
    from forearm.jobs.verify import pairings, verify

    look = partial(
        verify, attack=attack, targets=target or None, threat=threat, backbone=backbone, labeller=labeller, device=device,
        lpips_weights=lpips, survive=survive,
    )  # fmt: skip
    console = Console(stderr=True)
    if is_address(path):
        from forearm.engines.objects import verify_objects

        found, total = verify_objects(path, original, look), ""
    else:
        pairs = pairings(Path(path), None if original is None else Path(original))
        found, total = look(pairs), f" of {len(pairs)}"
    checks = []
    with console.status("verifying") as status:
        for check in found:
            checks.append(check)
            status.update(f"verified {len(checks)}{total} files")
    typer.echo(to_json(checks)) if as_json else _print(checks, attack)
    if any(check.problem for check in checks):
        raise typer.Exit(1)


def _print(checks: Sequence[Check], attack: str) -> None:
    from forearm.jobs.verify import summary

    console = Console(width=None if Console().is_terminal else 120)
    table = Table(
        "file", "label", "Linf", "PSNR", "SSIM", "margin", "targets right under attack", "", title="Armed files against their originals"
    )
    for check in checks:
        if not check.name:
            table.add_row(check.file, "", "", "", "", "", "", f"[red]{check.problem}[/red]")
            continue
        before, after = (sum(getattr(t, f"robust_{when}") for t in check.targets) for when in ("before", "after"))
        table.add_row(
            Path(check.file).name,
            check.name,
            f"{check.linf}/255",
            f"{check.psnr:.1f} dB",
            f"{check.ssim:.3f}",
            f"{check.margin_before:+.1f} -> {check.margin_after:+.1f}",
            f"{before} -> {after} of {len(check.targets)}",
            f"[red]{check.problem}[/red]" if check.problem else "[green]ok[/green]" if check.lossless else "[green]ok, lossy[/green]",
        )
    console.print(table)
    total = summary(checks)
    targets = Table("target", "files", "right, before", "right, armed", "under attack, before", "under attack, armed", title=attack)
    for name, row in total["targets"].items():
        targets.add_row(name, *(str(row[column]) for column in ("files", "clean_before", "clean_after", "robust_before", "robust_after")))
    console.print(targets)
    if "survival" in total:
        _print_survival(console, checks, total["survival"])
    console.print(f"{total['good']} of {total['files']} files are well. 'Right' means: says the label that the file was armed with.")


def _print_survival(console: Console, checks: Sequence[Check], total: dict[str, int]) -> None:
    """What holds after publishing, a line a file: original -> armed, both published."""
    found = [(check, check.survival) for check in checks if check.survival is not None]
    table = Table(
        "file", "published at", "label", "margin", "targets right under attack", title=f"After {found[0][1].chain}: original -> armed"
    )
    for check, survival in found:
        held = survival.says == check.name
        before, after = survival.robust
        table.add_row(
            Path(check.file).name,
            f"{survival.width} x {survival.height}",
            f"[green]{survival.says}[/green]" if held else f"[red]{survival.says}, not {check.name}[/red]",
            f"{survival.margin_before:+.1f} -> {survival.margin_after:+.1f}",
            f"{before} -> {after} of {len(survival.targets)}",
        )
    console.print(table)
    console.print(
        f"Published, the label holds on {total['label_holds']} of {total['files']} files. Under attack {total['robust_after']} of "
        f"{total['judged']} verdicts on them are right; {total['robust_unpublished']} before publishing, and {total['robust_before']} on "
        "the originals, published."
    )


def inspect(
    path: Annotated[Path, typer.Argument(help="A picture file.")],
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Say what a picture is, whether it is armed, and with what. A tag that was stripped cannot be seen."""
    from forearm.jobs.verify import inspect

    facts = inspect(path)
    if as_json:
        typer.echo(json.dumps(facts))
        return
    for name, value in facts.items():
        if name == "armed":
            value = ", ".join(f"{key} {what}" for key, what in value.items()) if value else "no tag"
        typer.echo(f"{name:12}{', '.join(value) or 'none' if isinstance(value, list) else value}")
