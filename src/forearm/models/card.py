"""A model's card: what the weights are, their sha256, how they were trained, what was measured with which command."""

from __future__ import annotations

import json
import tomllib
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from forearm.errors import ArtifactError

Role = Literal["backbone", "labeller"]


class Measured(BaseModel):
    """One measured figure: `value` and its 95 % `interval` as shares of `n` examples, and the command that gives it."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    what: str
    value: float
    interval: tuple[float, float]
    n: int = Field(ge=1)
    command: str


class Card(BaseModel):
    """What a weight file is. Written beside it as `card.toml`; the embedded models' lie in `forearm/models/cards`."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str = Field(min_length=1)
    arch: str = Field(description="call syntax, bound over ARCHITECTURES")
    weights: str = Field(pattern=r"^[^/\\]+$", description="the file's name, without a folder")
    sha256: str = Field(pattern=r"^[0-9a-f]{64}$", description="of the weight file")
    classes: tuple[str, ...] = Field(min_length=1)
    size: int = Field(ge=1, description="side in pixels of the pictures it was trained on")
    data: str = ""
    recipe: str = ""
    settings: str = ""
    threat: str | None = None
    role: Role | None = None
    measured: tuple[Measured, ...] = ()

    def with_measured(self, new: tuple[Measured, ...]) -> Card:
        """This card with `new` figures; one of the same name is replaced."""
        names = {figure.what for figure in new}
        return self.model_copy(update={"measured": (*(m for m in self.measured if m.what not in names), *new)})


def read_card(path: Path) -> Card:
    """The card in a TOML file. ArtifactError where there is none, or a field is missing, unknown or out of range."""
    try:
        return card_from(path.read_text(encoding="utf-8"), str(path))
    except (OSError, UnicodeDecodeError) as error:
        raise ArtifactError(f"{path}: no readable card ({type(error).__name__}); card.toml beside the weights") from None


def card_from(text: str, where: str) -> Card:
    """The card in `text`; `where` is what an error names."""
    try:
        return Card.model_validate(tomllib.loads(text))
    except tomllib.TOMLDecodeError as error:
        raise ArtifactError(f"{where}: not TOML ({error}); a card, for example as `forearm train` writes it") from None
    except ValidationError as error:
        first = error.errors()[0]
        field = ".".join(str(part) for part in first["loc"])
        raise ArtifactError(f"{where}: {field}: {first['msg']}; the fields {', '.join(Card.model_fields)}") from None


def card_text(card: Card) -> str:
    """The card as TOML; empty fields are left out. `card_from(card_text(card))` is the card."""
    values: dict[str, Any] = card.model_dump(exclude={"measured"}, exclude_defaults=True)
    lines = [f"{name} = {_toml(value)}" for name, value in values.items()]
    for figure in card.measured:
        lines += ["", "[[measured]]", *(f"{name} = {_toml(value)}" for name, value in figure.model_dump().items())]
    return "\n".join(lines) + "\n"


def write_card(card: Card, path: Path) -> None:
    """`card` as `path`, whole or not at all."""
    part = path.with_name(path.name + ".part")
    part.write_text(card_text(card), encoding="utf-8")
    part.replace(path)


def _toml(value: str | int | float | tuple[Any, ...]) -> str:
    """A literal. TOML's basic strings and floats are written as JSON's, but for the delete character."""
    if isinstance(value, tuple):
        return f"[{', '.join(_toml(part) for part in value)}]"
    return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")
