"""The matrix file of an audit (TOML): defaults, and grids of data sets x models x defences x attacks x threats, read into cells."""

from __future__ import annotations

import difflib
import itertools
import tomllib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from forearm.attacks.table import ATTACKS, TRAITS
from forearm.core.channel import CHANNELS
from forearm.core.threat import Threat
from forearm.data.sets import DATASETS
from forearm.errors import ForearmError, SpecError
from forearm.evaluate.cell import Cell, backbones
from forearm.evaluate.chosen import Sources, content, full_name
from forearm.evaluate.defense import canonical_spec, knowable, parts, preemptive_part, split_spec, students, usual
from forearm.models.load import SMALL
from forearm.registry import bind, parse

Names = list[str]


class Settings(BaseModel):
    """What both the file and each of its grids may set; a grid's own wins.

    source: a model by name that the attacks are made on, to be judged on the grid's models (transfer from a surrogate); "": none.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    split: str | None = None
    examples: int | None = Field(default=None, ge=1)
    pick: Literal["first", "even"] | None = None
    seed: int | None = None
    labels: Literal["decoupled", "coupled", "given"] | None = None
    backbone: str | None = None
    labeller: str | None = None
    around: Literal["release", "original"] | None = None
    release_threat: str | None = None
    source: str | None = None


class Grid(Settings):
    """One product of lists. informed: "both" adds the attacker who knows the defence, wherever there is something to know; true leaves the one who
    does not know out there, false the one who does.
    """

    datasets: Names | None = None
    models: Names = Field(min_length=1)
    defenses: Names = Field(default=["none"], min_length=1)
    wear: Names = Field(default=["none"], min_length=1)
    attacks: Names = Field(min_length=1)
    threats: Names = Field(min_length=1)
    informed: bool | Literal["both"] = "both"


class Matrix(Settings):
    """A whole file. masking: whether each defended model gets a masking verdict; batch: examples attacked together, for speed and memory alone."""

    dataset: str | None = None
    masking: bool = True
    batch: int = Field(default=25, ge=1)
    grid: list[Grid] = Field(min_length=1)
    where: str = Field(default="matrix", exclude=True)

    def setting(self, grid: Grid, name: str, default: Any = None) -> Any:
        """A setting of a grid: its own, else the file's, else `default`."""
        own = getattr(grid, name)
        given = getattr(self, name) if own is None else own
        return default if given is None else given


def read_matrix(path: Path) -> Matrix:
    """The matrix in a TOML file. SpecError, one line, for what cannot be read or understood."""
    try:
        return matrix_from(path.read_text(encoding="utf-8"), str(path))
    except (OSError, UnicodeDecodeError) as error:
        raise SpecError(f"{path}: no readable matrix ({type(error).__name__}); a TOML file, for example examples/matrix.toml") from None


def matrix_from(text: str, where: str) -> Matrix:
    """The matrix in `text`; every name in it is looked up. `where` is what an error names."""
    try:
        values = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise SpecError(f"{where}: not TOML ({error}); a matrix, for example examples/matrix.toml") from None
    try:
        matrix = Matrix.model_validate(values | {"where": where})
    except ValidationError as error:
        raise SpecError(f"{where}: {_complaint(error)}") from None
    for number, grid in enumerate(matrix.grid, 1):
        with _at(f"{where}: grid {number}"):
            _checked(grid, matrix)
    return matrix


def cells(matrix: Matrix, sources: Sources) -> tuple[Cell, ...]:
    """The cells of all grids, in order, each once; the pictures and cards that they name are read for their hashes.

    Models, defences and wear vary slowly, so that neighbours share models and releases. InputError for a data set that is not there or too small,
    ArtifactError for weights that are not there, SpecError for a model that knows other classes.
    """
    found: dict[str, Cell] = {}
    for number, grid in enumerate(matrix.grid, 1):
        with _at(f"{matrix.where}: grid {number}"):
            lists = (_datasets(matrix, grid), grid.models, grid.defenses, grid.wear, grid.threats, grid.attacks)
            for dataset, model, defense, wear, threat, attack in itertools.product(*lists):
                knows: tuple[bool, ...] = (False, True) if grid.informed == "both" else (grid.informed,)
                for informed in knows if knowable(defense) else (False,):
                    cell = _cell(matrix, grid, sources, dataset, model, defense, wear, threat, attack, informed)
                    found.setdefault(cell.key, cell)
    return tuple(found.values())


def _cell(
    matrix: Matrix, grid: Grid, sources: Sources, dataset: str, model: str, defense: str, wear: str, threat: str, attack: str, informed: bool
) -> Cell:  # fmt: skip
    dataset, model = _spec(dataset), full_name(model)
    split, pick = matrix.setting(grid, "split", "test"), matrix.setting(grid, "pick", "first")
    pictures = sources.pictures(dataset, split, matrix.setting(grid, "examples"), pick)
    labels = matrix.setting(grid, "labels", "decoupled")
    bound = Threat.parse(threat)
    release = backbone = labeller = source = ""
    contents = [content("model", sources.card(model)), f"pictures={pictures.sha256}"]
    _same_classes(model, len(sources.card(model).classes), dataset, len(pictures.classes))
    if (before := preemptive_part(defense)) != "none":
        pair = usual(before, max(pictures.pixels.shape[2:]) <= SMALL)
        release = str(replace(Threat.parse(matrix.setting(grid, "release_threat", threat)), targeted=False))
        backbone = "+".join(full_name(name) for _, name in backbones(matrix.setting(grid, "backbone", pair[0])))
        labeller = full_name(matrix.setting(grid, "labeller", pair[1])) if labels == "decoupled" else ""
        for role, name in (*backbones(backbone), ("labeller", labeller)):
            if name:
                contents.append(content(role, sources.card(name)))
                _same_classes(name, len(sources.card(name).classes), dataset, len(pictures.classes))
    contents += [content("student", sources.card(name)) for name in students(defense)]
    if given := matrix.setting(grid, "source", ""):
        source = _source(full_name(given), sources, model, defense)
    if source:
        contents.append(content("source", sources.card(source)))
        _same_classes(source, len(sources.card(source).classes), dataset, len(pictures.classes))
    return Cell(
        dataset=dataset,
        split=split,
        model=model,
        defense="+".join(parts(defense)),
        wear=_chain(wear),
        attack=_spec(attack),
        threat=str(bound),
        examples=len(pictures),
        informed=informed,
        seed=matrix.setting(grid, "seed", 0),
        labels=labels,
        backbone=backbone,
        labeller=labeller,
        around=matrix.setting(grid, "around", "release"),
        contents=tuple(sorted(contents)),
        release_threat=release,
        pick=pick,
        source=source,
    )


def _source(name: str, sources: Sources, model: str, defense: str) -> str:
    """The model that attacks are made on; "" where that is the victim itself: the same weights, which nothing hardens."""
    same = content("", sources.card(name)) == content("", sources.card(model))
    return "" if same and parts(defense) == (preemptive_part(defense),) else name


def wears(chain: str) -> tuple[str, ...]:
    """The channels of "resize(side=24)+jpeg(quality=75)", in order."""
    return tuple(split_spec(chain))


def _chain(chain: str) -> str:
    real = [spec for spec in map(_spec, wears(chain)) if spec != "none"]
    return "+".join(real) or "none"


def _spec(text: str) -> str:
    return canonical_spec(*parse(text))


def _same_classes(name: str, known: int, dataset: str, wanted: int) -> None:
    if known != wanted:
        raise SpecError(f"model: {name!r} knows {known} classes, the data set {dataset!r} has {wanted}; a model of the same classes")


def _datasets(matrix: Matrix, grid: Grid) -> list[str]:
    given = grid.datasets or ([matrix.dataset] if matrix.dataset else [])
    if not given:
        raise SpecError('no data set; dataset at the top or datasets in the grid, for example dataset = "cifar10"')
    return given


def _checked(grid: Grid, matrix: Matrix) -> None:
    """Look up every name of a grid, without reading a model or a data set."""
    for name, table, given in (("datasets", DATASETS, _datasets(matrix, grid)), ("attacks", ATTACKS, grid.attacks)):
        with _at(name):
            for spec in given:
                bind(table, spec)
                if table is ATTACKS and "source" in parse(spec)[1]:
                    raise SpecError(
                        f'{parse(spec)[0]}: source is no option here; a setting of the grid, for example source = "cifar10_labeller"'
                    )
    with _at("wear"):
        for spec in (spec for chain in grid.wear for spec in wears(chain)):
            bind(CHANNELS, spec)
    for spec in grid.defenses:
        parts(spec)
    release = matrix.setting(grid, "release_threat")
    for threat in [*grid.threats, *([release] if release else [])]:
        Threat.parse(threat)
    for attack, threat in itertools.product(grid.attacks, grid.threats):
        name, bound = parse(attack)[0], Threat.parse(threat)
        traits = TRAITS[name]
        if bound.norm.name not in traits.norms or (bound.targeted and not traits.targeted):
            way = "" if traits.targeted else ", untargeted"
            raise SpecError(
                f"the attack {name!r} cannot have the threat {threat!r}; it takes {', '.join(traits.norms)}{way}, in a grid of its own"
            )
        if traits.kind == "query" and matrix.setting(grid, "source"):
            raise SpecError(
                f'the attack {name!r} asks the victim and takes nothing from a source; one with gradients, or a grid with source = ""'
            )


@contextmanager
def _at(where: str) -> Iterator[None]:
    """Errors of the project say where they happened."""
    try:
        yield
    except ForearmError as error:
        raise type(error)(f"{where}: {error}") from None


def _complaint(error: ValidationError) -> str:
    """The first thing that is wrong, in one line."""
    first = error.errors()[0]
    place = ".".join(str(part + 1) if isinstance(part, int) else part for part in first["loc"] if part not in ("bool", "literal['both']"))
    if first["type"] != "extra_forbidden":
        return f"{place}: {first['msg']}, got {str(first['input'])[:60]!r}"
    known = Grid.model_fields if first["loc"][0] == "grid" else Matrix.model_fields
    names = [name for name in known if name != "where"]
    close = difflib.get_close_matches(str(first["loc"][-1]), names, 1)
    return f"{place}: no such setting; {f'did you mean {close[0]!r}?' if close else 'one of ' + ', '.join(names)}"
