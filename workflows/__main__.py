"""`python -m workflows` is `two-tower`."""

from __future__ import annotations

from workflows.cli import main

main()
