"""Serve a finished run as `two-tower serve` does, with the recipe of the run."""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2]))

from workflows.ground.device import choose

DEVICE = choose("cpu")  # before TensorFlow is imported

from workflows.serve import serve
from workflows.stages.store import Store


def main() -> None:
    """Serve a run on a port until a signal stops it."""
    run, port = sys.argv[1:]
    store = Store(Path(run))
    serve(store.recipe("export"), store, DEVICE, port=int(port), watch=0)


if __name__ == "__main__":
    main()
