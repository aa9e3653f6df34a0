"""A user's label file: `file,label` in CSV, a label by name or number. The user's label wins over every model's."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from pathlib import Path

from forearm.errors import SpecError
from forearm.images.folder import Found


def read_labels(path: Path, found: Sequence[Found]) -> dict[str, str]:
    """Name in the mirrored tree -> label, as written.

    The column `file` holds that name, or the path of the input. SpecError for a file that cannot be read, columns that
    are missing, a file that is not among the inputs, and a file with two labels.
    """
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            reader = csv.DictReader(file)
            if not {"file", "label"} <= set(reader.fieldnames or ()):
                raise SpecError(f"{path}: columns {', '.join(reader.fieldnames or ()) or 'none'}; file and label, for example beach.jpg,3")
            rows = [((row["file"] or "").strip(), (row["label"] or "").strip()) for row in reader]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise SpecError(f"{path}: not a readable label file ({error}); CSV with columns file,label, for example beach.jpg,3") from None
    names = {entry.name: entry.name for entry in found}
    paths = {str(entry.path.absolute()): entry.name for entry in found}
    labels: dict[str, str] = {}
    for file_, label in rows:
        name = names.get(file_) or paths.get(str(Path(file_).absolute()))
        if name is None:
            raise SpecError(
                f"{path}: the file {file_!r} is not among the inputs; a name below the input folder, for example 'summer/beach.jpg'"
            )
        if not label:
            raise SpecError(f"{path}: the file {file_!r} has no label; a class by name or number, for example 3")
        if labels.setdefault(name, label) != label:
            raise SpecError(f"{path}: the file {file_!r} has two labels, {labels[name]!r} and {label!r}; one each")
    return labels
