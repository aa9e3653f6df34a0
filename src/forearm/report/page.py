"""The report as text: an HTML page that needs nothing but itself, Markdown, and tables as CSV."""

from __future__ import annotations

import dataclasses
import importlib
import importlib.metadata
import platform
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import polars as pl

import forearm
from forearm.errors import SpecError
from forearm.evaluate.masking import Masking
from forearm.evaluate.statistics import Attacked, Share
from forearm.report import words
from forearm.report.chart import Chart, chart
from forearm.report.findings import UNCHANGED, Bench, Comparison, Entry, judged
from forearm.report.pictures import Gallery

if TYPE_CHECKING:
    from jinja2 import Environment

PACKAGES = ("torch", "numpy", "polars", "pillow", "matplotlib", "jinja2")
Verdicts = Sequence[Mapping[str, Any]]


@dataclass(frozen=True, slots=True)
class Row:
    """One defence on one bench as the page tells it. remarks: what a reader must not miss."""

    name: str
    entry: Entry
    comparison: Comparison | None
    masking: Masking | None
    remarks: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Section:
    """One bench as the page tells it. anchor: its id on the page and in file names."""

    anchor: str
    bench: Bench
    rows: tuple[Row, ...]
    chart: Chart | None


@dataclass(frozen=True, slots=True)
class Judged:
    """One masking verdict and what it is about."""

    title: str
    masking: Masking


@dataclass(frozen=True, slots=True)
class Page:
    """All that the templates show. versions: of what made the page; computed: of what computed the rows, with the number of attacks."""

    sections: tuple[Section, ...]
    judged: tuple[Judged, ...]
    gallery: Gallery
    command: str
    matrix: str
    versions: dict[str, str]
    computed: tuple[tuple[str, int], ...]

    @property
    def cells(self) -> int:
        """How many cells the store holds."""
        return sum(len(entry.attempts) for section in self.sections for entry in section.bench.entries)

    @property
    def contents(self) -> tuple[str, ...]:
        """Every name of weights and pictures with the sha256 that it stood for."""
        cells = [one.cell for section in self.sections for entry in section.bench.entries for one in entry.attempts]
        named = {"model": "model", "backbone": "backbone", "labeller": "labeller", "source": "source", "pictures": "dataset"}
        told = {
            f"{getattr(cell, named[one.partition('=')[0]])}: {one}"
            for cell in cells
            for one in cell.contents
            if one.partition("=")[0] in named
        }
        return tuple(sorted(told))


def page(found: Sequence[Bench], verdicts: Verdicts, gallery: Gallery, command: str, matrix: str, computed: Iterable[str]) -> Page:
    """The page of these benches.

    command: the one that made it; matrix: the file that makes the store again; computed: for each cell the versions that computed its rows.
    """
    sections = []
    for number, bench in enumerate(found, 1):
        rows = tuple(_row(name, entry, bench, verdicts) for name, entry in zip(bench.names, bench.entries, strict=True))
        sections.append(Section(f"bench-{number}", bench, rows, chart(bench)))
    about = [(one["about"], Masking.from_dict(one["verdict"])) for one in verdicts]
    told = tuple(Judged(f"{of['model']} on {of['dataset']}, {of['defense']}, {of['threat']}", masking) for of, masking in about)
    versions = {"forearm": forearm.__version__, "python": platform.python_version()} | {
        package: importlib.metadata.version(package) for package in PACKAGES
    }
    counted = tuple(sorted(Counter(computed).items(), reverse=True))
    return Page(tuple(sections), tuple(sorted(told, key=lambda one: one.title)), gallery, command, matrix, versions, counted)


def _row(name: str, entry: Entry, bench: Bench, verdicts: Verdicts) -> Row:
    verdict = judged(entry, verdicts)
    masking = None if verdict is None else Masking.from_dict(dict(verdict["verdict"]))
    comparison = bench.comparison(entry)
    remarks = ["not attacked by anyone who knows it"] if entry.unknown else []
    remarks += ["masked gradients"] if masking is not None and masking.masked else []
    stuck = ", ".join(dict.fromkeys(entry.stuck))
    remarks += [f"more than {UNCHANGED:.0%} of the pictures came back unchanged from {stuck}"] if stuck else []
    remarks += ["other attacks than on none"] if comparison is not None and not comparison.same_attacks else []
    return Row(name, entry, comparison, masking, tuple(remarks))


def html(told: Page) -> str:
    """The page. Every name is escaped; there is no script, and nothing is loaded from elsewhere."""
    return _environment().get_template("report.html").render(page=told)


def markdown(told: Page) -> str:
    """The tables and remarks as Markdown."""
    return _environment().get_template("report.md").render(page=told)


def table(found: Sequence[Bench]) -> pl.DataFrame:
    """One line an attack and one a worst case: shares in [0, 1] with intervals and both denominators."""
    lines = []
    for bench in found:
        for name, entry in zip(bench.names, bench.entries, strict=True):
            cell = entry.cell
            own: dict[str, Any] = {"dataset": cell.dataset, "model": cell.model, "threat": cell.threat, "wear": cell.wear, "defense": name}
            own |= {"n": entry.clean.n, "clean": entry.clean.value, "before": entry.before.value}
            for one in entry.attempts:
                unchanged = None if one.unchanged is None else one.unchanged.value
                lines.append(
                    own
                    | {"attack": one.cell.attack, "source": one.cell.source or None, "informed": str(one.cell.informed).lower()}
                    | _line(one.attacked)
                    | {"unchanged": unchanged}
                )
            worst = {"false": entry.uninformed, "true": entry.informed, "both": entry.worst}
            lines += [
                own | {"attack": "worst case", "source": None, "informed": informed} | _line(attacked) | {"unchanged": None}
                for informed, attacked in worst.items()
                if attacked is not None
            ]
    return pl.DataFrame(lines, infer_schema_length=None)


def rows(found: Sequence[Bench]) -> pl.DataFrame:
    """Every verdict of every attack with the fields of its cell: one line an example and attack."""
    frames = []
    for one in (one for bench in found for entry in bench.entries for one in entry.attempts):
        fields = {name: value for name, value in dataclasses.asdict(one.cell).items() if name != "contents"}
        frames.append(
            one.rows.select(pl.lit(one.cell.key).alias("cell"), *(pl.lit(value).alias(name) for name, value in fields.items()), pl.all())
        )
    return pl.concat(frames)


def _line(attacked: Attacked) -> dict[str, float | None]:
    low, high = attacked.accuracy.interval
    kept = attacked.kept
    return {
        "robust_accuracy": attacked.accuracy.value,
        "low": low,
        "high": high,
        "still_right_of_right_before": None if kept is None else kept.value,
        "kept_low": None if kept is None else kept.interval[0],
        "kept_high": None if kept is None else kept.interval[1],
    }


def need(package: str) -> None:
    """SpecError, in one line, where an optional package is missing."""
    try:
        importlib.import_module(package)
    except ImportError:
        raise SpecError(f"report: {package} is not installed; the extra that has it, for example pip install 'forearm[report]'") from None


def _environment() -> Environment:
    need("jinja2")
    from jinja2 import Environment, PackageLoader, StrictUndefined, select_autoescape

    environment = Environment(
        loader=PackageLoader("forearm.report", "templates"),
        autoescape=select_autoescape(("html",), default=False),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters |= {
        "percent": words.percent,
        "interval": words.interval,
        "points": words.points,
        "points_interval": words.points_interval,
        "chance": words.chance,
        "md": _md,
        "across": _across,
    }
    return environment


def _md(text: object) -> str:
    """Text in a Markdown table: what would end a cell or start a tag is escaped."""
    safe = str(text).replace("\\", "\\\\").replace("\n", " ")
    for letter in "|<>*_`[]":
        safe = safe.replace(letter, "\\" + letter)
    return safe


def _across(share: Share | float) -> str:
    """Where a share lies on a scale of 100."""
    return f"{100 * (share.value if isinstance(share, Share) else share):.2f}"
