"""The tiny pair of models of the folder job's tests."""

from __future__ import annotations

from tests.jobs.conftest import pair

__all__ = ["pair"]
