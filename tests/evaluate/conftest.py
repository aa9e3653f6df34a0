"""One bench in miniature for all tests of a session."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.evaluate.bench import write_bench


@pytest.fixture(scope="session")
def bench(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a bench; nobody writes into it."""
    return write_bench(tmp_path_factory.mktemp("bench"))
