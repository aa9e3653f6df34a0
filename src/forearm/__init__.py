"""forearm: defend picture classifiers before release, at test time and at training time, and measure it honestly.

The front doors below are imported when they are first used, so `import forearm` is cheap.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from forearm.core.noise import Noise
    from forearm.core.threat import Threat
    from forearm.defenses.inference.conceal import conceal
    from forearm.errors import ArtifactError, BudgetError, ForearmError, InputError, SpecError
    from forearm.jobs.arm import ArmReport
    from forearm.jobs.audit import audit
    from forearm.jobs.front import arm, attack
    from forearm.models.load import load_model

__version__ = "0.1.0"

_DOORS = {
    "ArmReport": "forearm.jobs.arm",
    "ArtifactError": "forearm.errors",
    "BudgetError": "forearm.errors",
    "ForearmError": "forearm.errors",
    "InputError": "forearm.errors",
    "Noise": "forearm.core.noise",
    "SpecError": "forearm.errors",
    "Threat": "forearm.core.threat",
    "arm": "forearm.jobs.front",
    "attack": "forearm.jobs.front",
    "audit": "forearm.jobs.audit",
    "conceal": "forearm.defenses.inference.conceal",
    "load_model": "forearm.models.load",
}

__all__ = [
    "ArmReport",
    "ArtifactError",
    "BudgetError",
    "ForearmError",
    "InputError",
    "Noise",
    "SpecError",
    "Threat",
    "arm",
    "attack",
    "audit",
    "conceal",
    "load_model",
]


def __getattr__(name: str) -> Any:
    if name not in _DOORS:
        raise AttributeError(f"module 'forearm' has no attribute {name!r}; it has {', '.join(__all__)}")
    return getattr(importlib.import_module(_DOORS[name]), name)


def __dir__() -> list[str]:
    return sorted([*__all__, "__version__"])
