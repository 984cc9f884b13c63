"""The command line, part by part: what `runbook`'s commands do, beside `cli` that names them."""
