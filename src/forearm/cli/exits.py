"""Exit codes of the commands, in one place."""

from __future__ import annotations

import signal
from enum import IntEnum
from typing import TYPE_CHECKING

from forearm.errors import ArtifactError, ForearmError

if TYPE_CHECKING:
    from forearm.jobs.summary import Summary


class Exit(IntEnum):
    """What a command's exit code says."""

    DONE = 0
    FAILED = 1
    USAGE = 2
    NOTHING = 3
    ARTIFACT = 4
    OUTPUT = 5
    INTERRUPTED = 130
    TERMINATED = 143


MEANINGS = {
    Exit.DONE: "everything is armed, now or by an earlier run, or was skipped for a reason",
    Exit.FAILED: "some inputs failed; the journal says why",
    Exit.USAGE: "an option, a label or an input that cannot be understood; nothing was done",
    Exit.NOTHING: "no pictures found",
    Exit.ARTIFACT: "weights or cards are missing or changed",
    Exit.OUTPUT: "the output folder or its journal cannot be written",
    Exit.INTERRUPTED: "stopped by Ctrl-C (SIGINT) after finishing what was in flight; run again to go on",
    Exit.TERMINATED: "the same by SIGTERM",
}


def exit_of(summary: Summary, stopped_by: int = 0) -> Exit:
    """The exit code of a folder job; `stopped_by`: the signal that stopped it before its end, or 0."""
    if stopped_by and summary.left and not summary.dry_run:
        return Exit.TERMINATED if stopped_by == signal.SIGTERM else Exit.INTERRUPTED
    if summary.failed:
        return Exit.FAILED
    return Exit.NOTHING if summary.empty else Exit.DONE


def exit_for(error: ForearmError) -> Exit:
    """The exit code of a command that was refused."""
    from forearm.images.journal import OutputError

    if isinstance(error, ArtifactError):
        return Exit.ARTIFACT
    return Exit.OUTPUT if isinstance(error, OutputError) else Exit.USAGE


def epilog() -> str:
    """The table of exit codes for `--help`."""
    return "Exit codes: " + "; ".join(f"{int(code)} {meaning}" for code, meaning in MEANINGS.items()) + "."


def visible(text: str) -> str:
    """Text that any terminal takes: control characters and broken encodings are escaped."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape", "surrogatepass").decode() for c in text)
