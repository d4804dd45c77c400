"""Which ranks a training has, and what is said when they cannot start or when one ends."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from tiny_run import Run, Tiny

from workflows.ground import launch
from workflows.ground.errors import RankError
from workflows.ground.launch import LOST, Fault
from workflows.ground.ranks import Cluster, Rank, find_cluster, hosts, unreachable
from workflows.stages.train_files import TrainFiles

ROOT = Path(__file__).resolve().parent.parent
TWO = {"worker": ["a:1", "b:2"]}


def tf_config(cluster: object, kind: str = "worker", index: object = 0) -> dict[str, str]:
    return {"TF_CONFIG": json.dumps({"cluster": cluster, "task": {"type": kind, "index": index}})}


# --- which ranks there are ---


def test_one_process_is_the_default_and_what_workers_1_means() -> None:
    assert find_cluster(None, {}) is None
    assert find_cluster(1, {}) is None
    assert find_cluster(1, tf_config(TWO)) is None
    assert find_cluster(None, tf_config({"worker": ["a:1"]})) is None


def test_workers_are_ranks_of_this_machine_with_ports_of_their_own() -> None:
    cluster = find_cluster(3, {})
    assert cluster is not None
    assert list(cluster.here) == [0, 1, 2]
    assert len(set(cluster.addresses)) == 3
    assert all(address.startswith("127.0.0.1:") for address in cluster.addresses)
    assert unreachable(cluster.addresses) == list(cluster.addresses)


@pytest.mark.parametrize(
    ("cluster", "kind", "index", "rank"),
    [
        (TWO, "worker", 1, 1),
        ({"chief": ["c:9"], "worker": ["a:1"]}, "chief", 0, 0),
        ({"chief": ["c:9"], "worker": ["a:1"]}, "worker", 0, 1),
    ],
)
def test_tf_config_names_the_ranks(cluster: object, kind: str, index: int, rank: int) -> None:
    found = find_cluster(None, tf_config(cluster, kind, index))
    assert found is not None
    assert list(found.here) == [rank]
    assert len(found.addresses) == 2
    assert found.addresses[0] in ("a:1", "c:9")


@pytest.mark.parametrize(
    ("environment", "told"),
    [
        ({"TF_CONFIG": "{"}, "TF_CONFIG cannot be used (JSONDecodeError"),
        (tf_config(TWO, index=2), "task worker 2 is not in its cluster"),
        (tf_config(TWO, kind="ps"), "TF_CONFIG cannot be used (KeyError: 'ps')"),
        (tf_config({"worker": ["a", "b:2"]}), "TF_CONFIG: 'a' is no address; expected host:port."),
        (tf_config({"worker": ["a:1", "a:1"]}), "TF_CONFIG names an address twice: a:1, a:1."),
        ({"SLURM_STEP_NUM_TASKS": "2"}, "SLURM step cannot be used (KeyError"),
    ],
)
def test_variables_that_cannot_be_used_are_explained(
    environment: dict[str, str], told: str
) -> None:
    with pytest.raises(RankError, match=re.escape(told)):
        find_cluster(None, environment)


def test_workers_beside_tf_config_are_refused() -> None:
    with pytest.raises(RankError, match=r"--workers is 2, but TF_CONFIG already names 2 processes"):
        find_cluster(2, tf_config(TWO))


@pytest.mark.parametrize("name", ["HOROVOD_SIZE", "OMPI_COMM_WORLD_SIZE"])
def test_horovodrun_is_refused_by_name(name: str) -> None:
    with pytest.raises(RankError, match=rf"{name} is 4: horovodrun .*--workers 4"):
        find_cluster(None, {name: "4"})
    assert find_cluster(None, {name: "1"}) is None


def test_a_slurm_step_names_the_ranks() -> None:
    found = find_cluster(
        None,
        {
            "SLURM_STEP_NUM_TASKS": "5",
            "SLURM_STEP_NODELIST": "gpu[08-09],big",
            "SLURM_STEP_TASKS_PER_NODE": "2(x2),1",
            "SLURM_PROCID": "3",
            "SLURM_JOB_ID": "10007",
        },
    )
    assert found is not None
    assert found.addresses == (
        *("gpu08:20007", "gpu08:20008", "gpu09:20007", "gpu09:20008"),
        "big:20007",
    )
    assert list(found.here) == [3]


def test_lists_of_slurm_are_read() -> None:
    assert hosts("n[01-03,7],m,x[1]-ib,y") == ["n01", "n02", "n03", "n7", "m", "x1-ib", "y"]


# --- the end of a rank ---


class _Ended:
    """A process that ended."""

    def __init__(self, code: int) -> None:
        self.returncode = code


def explained(codes: list[int], folder: Path) -> Fault:
    """Return what is said of ranks that ended with these codes, the first code but 0 first."""
    ranks = []
    for number, code in enumerate(codes):
        said = folder / f"{number}.txt" if number else None
        if said:
            said.write_text(f"two-tower: what rank {number} says\n", encoding="utf-8")
        rank = Rank(number, ["a:1"] * len(codes), str(folder), os.getpid())
        ranks.append(launch.Started(rank, _Ended(code), said))  # type: ignore[arg-type]
    first = next(r for r in ranks if r.process.returncode)
    return launch._explain(ranks, first, len(ranks))


def test_the_rank_that_ended_the_others_is_explained_once(tmp_path: Path) -> None:
    killed = "Rank 1 of 2 was ended by SIGKILL, as the system does if memory is full"
    assert explained([LOST, -signal.SIGKILL], tmp_path) == Fault(killed, "", 2)
    assert explained([-signal.SIGTERM, LOST], tmp_path).sentence == (
        "Rank 0 of 2 was ended by SIGTERM"
    )
    # rank 0 has said it itself
    assert explained([2, 2], tmp_path) == explained([2, LOST], tmp_path) == Fault("", "", 2)
    assert explained([LOST, 2], tmp_path) == Fault("", "two-tower: what rank 1 says\n", 2)
    assert "Another of the 1 ranks" in explained([LOST], tmp_path).sentence


@pytest.fixture
def ranks_that(monkeypatch: pytest.MonkeyPatch) -> Callable[..., list[subprocess.Popen[bytes]]]:
    """Return a function that has ranks run lines of Python; their processes come in its list."""

    def run(*lines: str) -> list[subprocess.Popen[bytes]]:
        started: list[subprocess.Popen[bytes]] = []

        def start(rank: Rank, cluster: Cluster, gpu: str | None) -> launch.Started:
            code = f"import os, signal, time; {lines[rank.number]}"
            started.append(subprocess.Popen([sys.executable, "-c", code]))
            return launch.Started(rank, started[-1], None)

        monkeypatch.setattr(launch, "_start", start)
        return started

    return run


def run_two() -> Fault | None:
    cluster = find_cluster(2, {})
    assert cluster is not None
    return launch.run_ranks(cluster)


def test_the_end_of_a_rank_ends_the_others(ranks_that, monkeypatch) -> None:
    monkeypatch.setattr(launch, "_ENDING", 0.2)
    started = ranks_that("time.sleep(600)", "os.kill(os.getpid(), signal.SIGKILL)")
    fault = run_two()
    assert fault is not None
    assert fault.sentence.startswith("Rank 1 of 2 was ended by SIGKILL")
    assert all(process.poll() is not None for process in started)
    ranks_that("time.sleep(0.1)", "pass")
    assert run_two() is None


def test_ranks_that_do_not_reach_each_other_are_ended(ranks_that, monkeypatch) -> None:
    monkeypatch.setattr(launch, "STARTING", 0.2)
    started = ranks_that("time.sleep(600)", "time.sleep(600)")
    with pytest.raises(RankError, match=r"The 2 ranks .* nobody answers at 127\.0\.0\.1:\d+, 127"):
        run_two()
    assert all(process.poll() is not None for process in started)


def test_a_rank_ends_with_the_process_that_started_it() -> None:
    child = (
        "import os, time; from workflows.ground import launch, ranks; "
        "launch.end_with_parent(ranks.Rank(0, [], '', os.getppid())); "
        "print(os.getpid(), flush=True); time.sleep(600)"
    )
    parent = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {child!r}])"
    with subprocess.Popen(
        [sys.executable, "-c", parent], stdout=subprocess.PIPE, env={"PYTHONPATH": str(ROOT)}
    ) as process:
        assert process.stdout is not None
        pid = int(process.stdout.readline())
        process.kill()
    ends = time.monotonic() + 20
    while runs(pid):
        assert time.monotonic() < ends
        time.sleep(0.01)


def runs(pid: int) -> bool:
    """Return whether a process runs; one that ended may wait for its parent to know it."""
    try:
        return Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").split()[2] != "Z"
    except FileNotFoundError:
        return False


# --- trainings ---


def command(run: Run, *words: str) -> list[str]:
    code = f"import sys; sys.path[:] = {sys.path!r}; from workflows.cli import main; main()"
    where = ("--recipe", str(run.world.recipe_file), "--run", str(run.store.root))
    settings = ("--set", "train.epochs=20", "--set", "train.patience=20")
    return [sys.executable, "-c", code, "train", *where, *settings, "--workers", "2", *words]


VARIABLES = {**os.environ, "TF_NUM_INTRAOP_THREADS": "1", "OMP_NUM_THREADS": "1"}


@pytest.mark.quality  # about a minute: four processes that import TensorFlow, one after another
def test_a_training_by_two_ranks_goes_on_after_the_end_of_one(tiny: Tiny, tmp_path: Path) -> None:
    """test_collectives.py compares the weights with those of one process."""
    run = tiny.prepared.branch(tmp_path / "run")
    process = subprocess.Popen(command(run), env=VARIABLES, stderr=subprocess.PIPE)
    checkpoint = run.store.root / ".train.checkpoint" / "model" / "state.json"
    victim = wait_for(checkpoint, process)
    os.kill(victim, signal.SIGKILL)
    said = process.communicate(timeout=30)[1].decode()
    if process.returncode:  # the training was not finished already
        assert process.returncode == 2
        assert "Traceback" not in said
        assert re.fullmatch(
            r"two-tower: Rank 1 of 2 was ended by SIGKILL, .*\. The training has stopped\. The "
            r"finished epochs are kept\. .*: `two-tower train .* --workers 2 --resume`\.",
            said.splitlines()[-1],
        )
        words = command(run, "--resume")
        done = subprocess.run(words, env=VARIABLES, check=True, stderr=subprocess.PIPE)
        assert "resuming after epoch" in done.stderr.decode()
    assert len(TrainFiles(run.store.folder("train")).read_history()) == 20
    assert {path.name for path in run.store.root.iterdir()} == {".lock", "etl", "train"}


def wait_for(checkpoint: Path, process: subprocess.Popen[bytes]) -> int:
    """Wait until an epoch is finished, and return the process id of rank 1."""
    while not checkpoint.exists():
        assert process.poll() is None, process.communicate()[1].decode()
        time.sleep(0.01)
    return children(process.pid)[1]


def children(parent: int) -> list[int]:
    """Return the process ids of the ranks that a process started, in their order."""
    listed = Path(f"/proc/{parent}/task/{parent}/children").read_text(encoding="utf-8")
    return [int(pid) for pid in listed.split()]


def test_offers_train_in_one_process(tmp_path: Path) -> None:
    from workflows.ground.errors import RecipeError
    from workflows.model_kinds import refuse_options
    from workflows.recipe import load

    recipe = load(ROOT / "recipes" / "movielens-offers.yaml", [])
    with pytest.raises(RecipeError, match="has no --workers: leave that out"):
        refuse_options(recipe, {"--workers": True})
