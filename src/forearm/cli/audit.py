"""`forearm audit`: attack models and defences, and store what became of every example."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from forearm.cli.exits import Exit, visible
from forearm.cli.options import Address, Engine, Workers, check_engine

if TYPE_CHECKING:
    from rich.console import Console

    from forearm.evaluate.cell import Cell
    from forearm.jobs.audit import AuditJob, Summary
    from forearm.jobs.blocks import Hands
    from forearm.jobs.standings import Standing

NOBODY = "not attacked by anyone who knows it"
MatrixFile = Annotated[Path, typer.Argument(help="The matrix in TOML, for example examples/matrix.toml.")]
StoreFolder = Annotated[Path, typer.Option("--store", "-s", help="Folder of the rows; the same command goes on where it was broken off.")]
Jobs = Annotated[int, typer.Option(min=1, help="Worker processes, of one thread each.")]
Batch = Annotated[
    int | None, typer.Option(min=1, help="Examples attacked together (default: the matrix's); changes speed and memory alone.")
]
DryRun = Annotated[bool, typer.Option("--dry-run", help="List the cells and what is done of them; run nothing.")]
Only = Annotated[str, typer.Option(help="Only the cells whose description, as --dry-run lists it, contains this text.")]
Data = Annotated[Path | None, typer.Option(help="Where the data sets lie (default: FOREARM_DATA).")]


def audit(
    matrix: MatrixFile, *, store: StoreFolder, jobs: Jobs = 2, batch: Batch = None, dry_run: DryRun = False, only: Only = "", data: Data = None,
    engine: Engine = "local", workers: Workers = None, address: Address = None,
) -> None:  # fmt: skip
    """Attack every cell of a matrix: data sets x models x defences x attacks x threats, by attackers who know the defence and who do not.

    With source = "NAME" in the matrix, or in a grid of it, attacks are made on that model and judged on the others: transfer from a surrogate.

    Rows of single examples go into the store, whole or not at all; the worst case over all attackers is the number that counts.
    """
    from rich.console import Console

    from forearm.evaluate.matrix import read_matrix
    from forearm.jobs.audit import AuditJob, outlook
    from forearm.jobs.blocks import Task

    check_engine(engine, workers, address)
    job = AuditJob(read_matrix(matrix), store, jobs, batch, only, data)
    if dry_run:
        for cell, done in outlook(job):
            typer.echo(visible(f"{'done' if done == cell.blocks else 'to do'} {done}/{cell.blocks} blocks  {cell}"))
        return
    console = Console(stderr=True)
    if engine == "ray":
        from forearm.engines.ray import Fleet

        with Fleet[Task](None, workers, address) as hands:
            summary, signal = watched(job, console, hands)
    else:
        summary, signal = watched(job, console)
    table(console, job, summary)
    raise typer.Exit(exit_of(summary, signal))


def watched(job: AuditJob, console: Console, hands: Hands | None = None) -> tuple[Summary, int]:
    """Run the audit with a progress bar on stderr; what became of it, and the signal that stopped it or 0. `hands`: who works, in place of processes."""
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

    from forearm.jobs import audit as work
    from forearm.jobs.stop import on_signals

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(), TimeRemainingColumn())
    with on_signals() as stop, Progress(*columns, console=console, disable=not console.is_terminal) as bar:
        shown = {stage: bar.add_task(stage, total=None, visible=False) for stage in ("release", "attack", "masking")}

        def report(event: work.Progress) -> None:
            bar.update(shown[event.stage], completed=event.done, total=event.total, visible=True)

        return work.run(job, report, stop, hands), stop.signal


def exit_of(summary: Summary, signal: int) -> Exit:
    """The exit code of an audit."""
    import signal as signals

    if signal and summary.stopped:
        return Exit.TERMINATED if signal == signals.SIGTERM else Exit.INTERRUPTED
    return Exit.FAILED if summary.failed else Exit.DONE


def table(console: Console, job: AuditJob, summary: Summary) -> None:
    """Robust accuracy by attack and in the worst case, of the cells that are complete; what failed, and what was left."""
    from rich.markup import escape
    from rich.table import Table

    from forearm.evaluate.store import Store
    from forearm.jobs.standings import standings

    found = standings(Store(job.store), summary.cells)
    rows = Table(show_edge=False, title="robust accuracy in percent, with 95 % Wilson intervals", title_justify="left")
    for name in ("attack", "uninformed", "informed"):
        rows.add_column(name, justify="left" if name == "attack" else "right")
    for standing in found:
        rows.add_section()
        rows.add_row(f"[bold]{escape(heading(standing.cell))}[/bold]")
        for line in lines(standing):
            rows.add_row(*line)
    console.print(rows)
    for standing in found:
        if standing.unattacked:
            console.print(visible(f"{standing.cell.model}, {standing.cell.defense}: {NOBODY}"), markup=False, soft_wrap=True)
    for note in summary.notes:
        console.print(visible(note), markup=False, highlight=False, soft_wrap=True)
    for _, error in summary.failed:
        console.print(visible(f"failed: {error}"), markup=False, highlight=False, soft_wrap=True)
    if summary.left:
        console.print(f"{len(summary.left)} of {len(summary.left) + len(summary.cells)} cells are not complete; the same command goes on")


def heading(cell: Cell) -> str:
    """What the rows of one model under one defence are about."""
    worn = "" if cell.wear == "none" else f", worn by {cell.wear}"
    return f"{cell.dataset}, {cell.threat}{worn}\n{cell.model}, {cell.defense}"


def lines(standing: Standing) -> list[tuple[str, ...]]:
    """The rows of one model under one defence: no attack, each attack, the worst case."""
    from rich.markup import escape

    found: list[tuple[str, ...]] = [("none", share(standing.protected, standing.n), "")]
    for attack in dict.fromkeys(name for name, _, _ in standing.attacks):
        by = {informed: right for name, informed, right in standing.attacks if name == attack}
        found.append((escape(attack), *(share(by[who], standing.n) if who in by else "" for who in (False, True))))
    worst = f"[bold]{share(standing.worst, standing.n)}[/bold]"
    knows = any(informed for _, informed, _ in standing.attacks)
    found.append(("[bold]worst case over all[/bold]", *(("", worst) if knows else (worst, ""))))
    return found


def share(right: int, n: int) -> str:
    """A count of n in percent, with its interval."""
    from forearm.evaluate.statistics import wilson

    low, high = wilson(right, n)
    return f"{100 * right / n:.1f} ({100 * low:.1f} to {100 * high:.1f})"
