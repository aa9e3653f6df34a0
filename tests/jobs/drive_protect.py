"""Run the folder job with the fake armourer in a process of its own: IN OUT SLEEP JOBS. For tests that kill it."""

from __future__ import annotations

import sys
from pathlib import Path

if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).parent))
    from armourers import Fake

    from forearm.cli.exits import exit_of
    from forearm.jobs.plan import ProtectJob
    from forearm.jobs.protect import protect
    from forearm.jobs.stop import on_signals

    source, out, sleep, jobs = sys.argv[1:]
    job = ProtectJob((Path(source),), Path(out), jobs=int(jobs), batch=3)

    def report(event: object) -> None:
        sys.stdout.write("event\n")
        sys.stdout.flush()

    with on_signals() as stop:
        summary = protect(job, Fake(sleep=float(sleep)), report, stop)
    sys.exit(int(exit_of(summary, stop.signal)))
