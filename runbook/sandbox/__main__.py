"""`python -m runbook.sandbox`: the practice cluster alone."""

from __future__ import annotations

import sys

from runbook.errors import RunbookError
from runbook.sandbox.cli import app

try:
    app(prog_name="runbook sandbox")
except RunbookError as error:
    sys.stderr.write(f"{error}\n")
    sys.exit(error.exit_status)
