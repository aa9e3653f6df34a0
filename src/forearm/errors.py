"""The error tree. A message reads `where: what was given; what is allowed, with an example`."""


class ForearmError(Exception):
    """Anything this project raises on purpose."""


class SpecError(ForearmError, ValueError):
    """A name, number or option that cannot be understood."""


class InputError(ForearmError, ValueError):
    """A picture, label file or data set that cannot be used."""


class ArtifactError(ForearmError):
    """Weights, cards or checkpoints that are missing, changed or of another shape."""


class BudgetError(ForearmError):
    """A result that left its threat's ball or the box [0, 1]."""
