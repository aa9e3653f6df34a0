"""`forearm report`: reads a store and writes the page, its plots and its tables."""

from __future__ import annotations

from pathlib import Path

from forearm.errors import InputError
from forearm.evaluate.store import Store
from forearm.images.journal import OutputError
from forearm.images.write import commit, stage
from forearm.report import page
from forearm.report.again import matrix_text
from forearm.report.chart import curves_png, worst_png
from forearm.report.findings import benches
from forearm.report.pictures import find, gallery

UNRECORDED = "versions that the store does not record"


def write_report(store: Path, out: Path, *, data: Path | None = None, command: str = "") -> tuple[Path, ...]:
    """Write the report of an audit's store into the folder `out`; the files, report.html first.

    report.html stands alone: tables, curves and pictures are inside. Beside it report.md, table.csv (one line an attack and one a worst case),
    rows.csv (one line an example and attack), matrix.toml (which makes the store again) and plots/*.png. The same store, data and versions give
    the same bytes. data: the folder of the data sets, for the originals of released pictures (default: where `data.sets` looks); command: what
    the page names as its origin. InputError where there is no store or no finished cell, ArtifactError for a damaged one, SpecError without the
    extra `report`, OutputError where `out` cannot be written.
    """
    for package in ("jinja2", "matplotlib"):
        page.need(package)
    if not store.is_dir():
        raise InputError(f"{store}: no such folder; a store that 'forearm audit matrix.toml --store runs/' wrote, for example runs/")
    held = Store(store)
    found, verdicts = benches(held), held.masking()
    matrix = matrix_text(found, bool(verdicts))
    made = (held.made_with(one.cell) for bench in found for entry in bench.entries for one in entry.attempts)
    computed = [" and ".join(one or UNRECORDED for one in versions) for versions in made]
    told = page.page(found, verdicts, gallery(held, found, find(data)), command, matrix, computed)
    files = {
        "report.html": page.html(told).encode(),
        "report.md": page.markdown(told).encode(),
        "table.csv": page.table(found).write_csv().encode(),
        "rows.csv": page.rows(found).write_csv().encode(),
        "matrix.toml": matrix.encode(),
    }
    for section in told.sections:
        files[f"plots/{section.anchor}-worst.png"] = worst_png(section.bench)
        if section.chart is not None:
            files[f"plots/{section.anchor}-curves.png"] = curves_png(section.bench)
    written = []
    for name, content in files.items():
        file = out / name
        try:
            commit(stage(file, content, 0o644), file)
        except OSError as error:
            raise OutputError(f"{file}: cannot be written ({error.strerror}); a folder that can, for example -o report/") from None
        written.append(file)
    return tuple(written)
