"""A tiny backbone and labeller of different architectures, on disk."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.models.tiny import write_model


@pytest.fixture(scope="session")
def pair(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Options that name the two models, for Armory.open and forearm.arm."""
    folder: Path = tmp_path_factory.mktemp("pair")
    write_model(folder / "backbone")
    write_model(folder / "labeller", arch="resnet9(width=4)", threat=None)
    return {"backbone": str(folder / "backbone"), "labeller": str(folder / "labeller")}
