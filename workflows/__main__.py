"""`python -m workflows` runs the same command line as `two-tower`."""

from __future__ import annotations

from workflows.cli import main

main()
