"""A recipe file in TOML and what the command line says, as the settings of one run."""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError

from forearm.errors import SpecError

Settings = TypeVar("Settings", bound=BaseModel)


def recipe_values(recipe: Path | None, overrides: dict[str, Any], example: str) -> dict[str, Any]:
    """The values of the file `recipe`, if one is given, and over them those of `overrides` that are not None.

    Raises SpecError in one line, which names `recipes/<example>`, for a file that cannot be read.
    """
    values: dict[str, Any] = {}
    if recipe is not None:
        try:
            values = tomllib.loads(recipe.read_text())
        except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
            raise SpecError(f"{recipe}: not a readable TOML recipe ({error}); for example recipes/{example}") from None
    return values | {name: value for name, value in overrides.items() if value is not None}


def checked(settings: type[Settings], values: dict[str, Any], source: Path | str) -> Settings:
    """`values` as `settings`. Raises SpecError in one line that begins with `source` for an unknown name or a value that does not fit."""
    try:
        return settings.model_validate(values)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        raise SpecError(f"{source}: {where}: {first['msg']}; one of {', '.join(settings.model_fields)}") from None
