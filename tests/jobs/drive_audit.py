"""Run an audit in a process of its own: MATRIX STORE DATA JOBS. For tests that kill it: each step of it is one line on stdout."""

from __future__ import annotations

import sys
from pathlib import Path

if __name__ == "__main__":
    from forearm.cli.audit import exit_of
    from forearm.evaluate.matrix import read_matrix
    from forearm.jobs.audit import AuditJob, run
    from forearm.jobs.stop import on_signals

    matrix, store, data, jobs = sys.argv[1:]
    job = AuditJob(read_matrix(Path(matrix)), Path(store), int(jobs), folder=Path(data))

    def report(event: object) -> None:
        sys.stdout.write("event\n")
        sys.stdout.flush()

    with on_signals() as stop:
        summary = run(job, report, stop)
    sys.exit(int(exit_of(summary, stop.signal)))
