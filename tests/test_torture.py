"""The campaigns of benchmarks/torture, small: `make torture` runs them at full size."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

from tiny_run import Tiny

RUNNER = Path(__file__).parents[1] / "benchmarks" / "torture" / "run.py"


def test_nothing_is_lost_by_kills_power_disks_and_strangers(tiny: Tiny, tmp_path: Path) -> None:
    """All campaigns run in forked children of one process; that of requests has its own test."""
    scene, told = tmp_path / "scene", tmp_path / "told.json"
    shutil.copytree(tiny.exported.world.folder, scene / "raw")
    for stage in ("etl", "train", "export"):
        shutil.copytree(tiny.exported.store.folder(stage), scene / "run" / stage)
    words = [sys.executable, RUNNER, "--small", "--scene", scene, "--json", told]
    done = subprocess.run(words, capture_output=True, text=True, check=False, cwd=tmp_path)
    assert done.returncode == 0, done.stdout[-5000:] + done.stderr[-5000:]
    campaigns = {each["campaign"]: each for each in json.loads(told.read_text())["campaigns"]}
    has_gcc = shutil.which("gcc") is not None
    assert len(campaigns) == 6 + has_gcc
    for name, each in campaigns.items():
        assert (each["losses"], each["survived"]) == ([], each["tried"]), name
        assert each["tried"] > 1, name
    # the controls: something was hit, refused and read, and without syncs there are losses
    assert {"old result", "new result"} & set(campaigns["kills"]["seen"])
    assert {"done", "refused"} <= set(campaigns["recipes"]["seen"])
    assert campaigns["hostile folders"]["seen"]["exit code 2"] > 2
    if not has_gcc:
        return
    (control,) = (seen for seen in campaigns["power loss"]["seen"] if "without syncs" in seen)
    assert int(control.split()[0]) > 0
