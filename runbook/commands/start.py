"""`runbook`: begins what takes longest before anything else is imported."""

from __future__ import annotations

import sys

from runbook.late import at_once


def main() -> None:
    """Run the command line; for `runbook run` kernels are made ready meanwhile."""
    if sys.argv[1:2] == ["run"] and not {"--help", "-h"} & set(sys.argv):
        from runbook.jupyter import forked  # noqa: PLC0415 - only a run needs it

        forked.begin()
        forked.ahead()
        with at_once():
            from runbook import pipeline  # noqa: F401, PLC0415 - as below, and all at once takes less
    with at_once():
        from runbook import cli  # noqa: PLC0415 - it takes a while, in which the other gets ready

    cli.main()
