"""A fit in a pipe: a line an epoch as it happens; Ctrl-C says how to go on, and going on does."""

from __future__ import annotations

import os
import re
import shlex
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from tiny_run import Tiny

ROOT = Path(__file__).resolve().parent.parent
EPOCHS = 10


def started(words: list[str]) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "workflows", *words],
        cwd=ROOT,
        env={**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def epochs_of(text: str) -> list[int]:
    """Return the epochs that were told, each with its loss, metric and seconds."""
    told = rf"^epoch (\d+) of {EPOCHS}: loss \d\.\d{{4}}, val_mean \d\.\d{{4}}, \d+\.\d s$"
    return [int(n) for n in re.findall(told, text, re.MULTILINE)]


@pytest.mark.quality  # short tests show the line (callbacks) and the paragraph (interrupt)
def test_a_fit_tells_its_epochs_and_goes_on_after_ctrl_c(tiny: Tiny, tmp_path: Path) -> None:
    run = tiny.prepared.branch(tmp_path / "run")
    settings = [f"train.{name}={EPOCHS}" for name in ("epochs", "patience")]
    words = ["train", "--run", str(tmp_path / "run"), "--set", settings[0], "--set", settings[1]]
    with started(words) as process:
        assert process.stdout is not None
        said = process.stdout.readline()
        assert said.startswith(f"two-tower train: recipe tiny, run {tmp_path / 'run'}, device cpu ")
        while not said.count("\nepoch 3 of ") and (line := process.stdout.readline()):
            said += line
        process.send_signal(signal.SIGINT)  # it is still at work when the third line has come
        rest, _ = process.communicate()
    said += rest
    assert process.returncode == 130, said
    assert "Traceback" not in said
    before = epochs_of(said)
    assert before == list(range(1, len(before) + 1))
    assert 3 <= len(before) < EPOCHS
    assert not run.store.folder("train").exists()
    (command,) = re.findall(
        r"^two-tower: Stopped by Ctrl-C\. The finished epochs are kept\. Continue after the last "
        r"of them: `two-tower (.+)`\.$",
        said,
        re.MULTILINE,
    )
    assert shlex.split(command) == [*words, "--resume"]
    with started(shlex.split(command)) as process:
        said, _ = process.communicate()
    assert process.returncode == 0, said
    after = epochs_of(said)
    # the last epoch may have ended, and been kept or not, while the signal came
    assert after == list(range(after[0], EPOCHS + 1))
    assert 3 < after[0] <= len(before) + 1
    assert run.store.manifest("train").rows["epochs"] == EPOCHS
