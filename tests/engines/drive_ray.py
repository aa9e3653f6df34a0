"""Run the folder job of FOLDER with one Ray worker and the fake armourer, in a process of its own. For a test that stops it."""

from __future__ import annotations

import sys
from functools import partial
from pathlib import Path

if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).parents[2]))
    from forearm.cli.exits import exit_of
    from forearm.engines.ray import Fleet
    from forearm.jobs.plan import ProtectJob
    from forearm.jobs.protect import protect
    from forearm.jobs.remote import Bench, Block
    from forearm.jobs.stop import on_signals
    from tests.jobs.armourers import Fake

    folder = Path(sys.argv[1])
    job = ProtectJob((folder / "in",), folder / "out", jobs=1)

    def report(event: object) -> None:
        sys.stdout.write("event\n")
        sys.stdout.flush()

    with Fleet[Block](partial(Bench, job, Fake(sleep=0.1)), 1) as fleet, on_signals() as stop:
        summary = protect(job, Fake(), report, stop, fleet)
    sys.exit(int(exit_of(summary, stop.signal)))
