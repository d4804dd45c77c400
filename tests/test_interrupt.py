"""Ctrl-C in every verb: one paragraph that says how to go on, exit code 130, no traceback."""

from __future__ import annotations

import os
import shlex
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from world import World

from workflows.cli import VERBS, Call, main

ROOT = Path(__file__).resolve().parent.parent
EXAMPLES = {"similar-items": "--item 1", "audience": "--offer a=b", "similar-offers": "--offer a=b"}
NAMES = [verb.__name__.replace("_", "-") for verb in VERBS]
Run = Callable[[str], tuple[int, str]]


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    """Return a function that runs a command line and gives exit code and stderr."""

    before = signal.getsignal(signal.SIGINT)

    def run(line: str) -> tuple[int, str]:
        monkeypatch.setattr(sys, "argv", ["two-tower", *shlex.split(line)])
        with pytest.raises(SystemExit) as end:
            main()
        signal.signal(signal.SIGINT, before)  # a second Ctrl-C would have ended the process
        return int(end.value.code or 0), capsys.readouterr().err

    return run


@pytest.fixture
def stopped(monkeypatch: pytest.MonkeyPatch) -> None:
    """Ctrl-C comes when a verb looks for its recipe or device."""

    def stop(*_: object, **__: object) -> None:
        signal.raise_signal(signal.SIGINT)

    monkeypatch.setattr(Call, "open", stop)
    monkeypatch.setattr(Call, "device", stop)
    for module in ("samples.sample", "workflows.doctor.doctor", "workflows.recipe.schema.schema"):
        monkeypatch.setattr(module, stop)


@pytest.mark.usefixtures("stopped")
@pytest.mark.parametrize("verb", NAMES)
def test_every_verb_ends_with_one_paragraph(run: Run, verb: str) -> None:
    line = f"{verb} {EXAMPLES.get(verb, '')} --run 'my run'".replace("  ", " ")
    code, said = run(line)
    assert code == 130
    (told,) = said.splitlines()
    assert told.startswith("two-tower: Stopped by Ctrl-C. ")
    assert told.endswith(f": `two-tower {line}`.")


@pytest.mark.usefixtures("stopped")
def test_train_and_tune_say_what_is_kept(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    nothing = "Earlier results are kept; no incomplete result is left. Begin again: `two-tower"
    assert f"{nothing} train --run x`." in run("train --run x")[1]
    Path("runs/x/.train.checkpoint/model").mkdir(parents=True)
    Path("runs/x/.train.checkpoint/model/state.json").write_text("{}", encoding="utf-8")
    kept = "The finished epochs are kept. Continue after the last of them: `two-tower train"
    assert f"{kept} --run x --set a=b --resume`." in run("train --run x --set a=b")[1]
    assert f"{kept} --resume --run x`." in run("train --resume --run x")[1]
    assert (
        "The finished trials are kept. Continue with the same command: `two-tower tune"
        in (run("tune --run x")[1])
    )


def test_what_a_library_makes_of_the_interruption_is_no_traceback(
    run: Run, world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    def swallowed(*_: object, **__: object) -> None:
        try:
            signal.raise_signal(signal.SIGINT)
        except KeyboardInterrupt:
            raise RuntimeError("a worker is gone") from None

    monkeypatch.chdir(world.folder)
    monkeypatch.setattr("workflows.etl.etl", swallowed)
    code, said = run("etl --recipe tiny.yaml")
    assert code == 130
    assert said.splitlines()[-1].startswith("two-tower: Stopped by Ctrl-C. ")
    monkeypatch.setattr("workflows.etl.etl", lambda *_, **__: 1 / 0)
    monkeypatch.setattr(sys, "argv", ["two-tower", "etl", "--recipe", "tiny.yaml"])
    with pytest.raises(ZeroDivisionError):  # a fault of the code is still told as one
        main()


def test_a_process_is_ended_after_its_first_line(world: World, tmp_path: Path) -> None:
    """The line comes before the imports, so that the signal meets them, or the work itself."""
    arguments = ["etl", "--recipe", str(world.recipe_file), "--run", str(tmp_path / "run")]
    with subprocess.Popen(
        [sys.executable, "-m", "workflows", *arguments],
        cwd=ROOT,
        env={**os.environ, "PYTHONUNBUFFERED": ""},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stderr is not None
        first = process.stderr.readline()
        process.send_signal(signal.SIGINT)
        out, err = process.communicate()
    assert first.startswith(f"two-tower etl: recipe tiny, run {tmp_path / 'run'}, device cpu (")
    assert (process.returncode, out) == (130, "")
    assert "Traceback" not in err
    assert err.splitlines()[-1] == (
        "two-tower: Stopped by Ctrl-C. Earlier results are kept; no incomplete result is left. "
        f"Begin again: `{shlex.join(['two-tower', *arguments])}`."
    )
    assert not (tmp_path / "run" / "etl").exists()
