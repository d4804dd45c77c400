"""A copy of an export's folder, and nothing else of its run, answers every verb that reads it."""

from __future__ import annotations

import contextlib
import io
import json
import logging
import os
import shutil
import subprocess
import sys
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from live import served
from tiny_run import CPU, Run, Tiny

from workflows.cli import Call, main
from workflows.ground.errors import ArtifactError, MissingStage, StaleInput
from workflows.serve.app import build
from workflows.serve.current_export import CurrentExport
from workflows.serve.loaded_export import LoadedExport, stamps
from workflows.stages.recommender import ListOptions, Recommender
from workflows.stages.store import Store

#: Where the copy lies below a working folder, what --run says, and where the index goes.
PLACES = {
    "in a run": ("runs/shop/export", "shop", "runs/shop/index"),
    "under another name": ("my shop", "./my shop", "my shop.index"),
    "in runs, without a run": ("runs/shop", "shop", "runs/shop.index"),
}


@dataclass(frozen=True)
class Copy:
    """The copy: what --run says, and the folder of an index."""

    run: str
    index: Path
    monkeypatch: pytest.MonkeyPatch

    def ask(self, *words: str) -> Any:
        """Run a command and return the JSON that it prints."""
        verb, *options = words
        line = ["two-tower", verb, "--run", self.run, "--device", "cpu", "--json", *options]
        self.monkeypatch.setattr(sys, "argv", line)
        # a handler would outlive the stream that it writes to
        self.monkeypatch.setattr(logging, "basicConfig", lambda **_: None)
        with contextlib.redirect_stdout(io.StringIO()) as out, pytest.raises(SystemExit) as end:
            main()
        assert end.value.code == 0
        return json.loads(out.getvalue())


@pytest.fixture(scope="module")
def run(tiny: Tiny) -> Run:
    return tiny.exported


@pytest.fixture(params=list(PLACES))
def copy(
    run: Run,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    request: pytest.FixtureRequest,
) -> Copy:
    """A copy in a working folder that is empty otherwise, and whose path has a space."""
    place, name, index = PLACES[request.param]
    here = tmp_path / "some where"
    shutil.copytree(run.store.folder("export"), here / place)
    monkeypatch.chdir(here)
    return Copy(name, here / index, monkeypatch)


def lists(run: Run, *users: str, **options: Any) -> list[dict[str, Any]]:
    """Return the lists that the whole run gives."""
    recommender = Recommender.open(run.store, run.recipe)
    return recommender.lists(np.array(users, object), ListOptions(**options)).to_pylist()


def test_it_recommends_as_the_run_does(run: Run, copy: Copy) -> None:
    words = ("--user", "u6", "--user", "nobody", "-k", "100", "--show-history")
    answer = copy.ask("recommend", *words)
    assert answer["lists"] == lists(run, "u6", "nobody", k=100)
    mine = [row["item_id"] for row in answer["lists"] if row["user_id"] == "u6"]
    history = run.histories(withheld=1)["u6"]
    assert set(mine) == run.items - set(history)
    assert [row["item_id"] for row in answer["histories"]["u6"]] == history[::-1]
    counts = Counter(item for of in run.histories(withheld=1).values() for item in of)
    popular = [row for row in answer["lists"] if row["user_id"] == "nobody"]
    assert {row["answered_by"] for row in popular} == {"popularity"}
    assert [row["score"] for row in popular] == sorted(
        (float(counts[item]) for item in run.items), reverse=True
    )
    assert all(row["score"] == counts[row["item_id"]] for row in popular)


def test_lists_of_all_users_are_written_beside_it(run: Run, copy: Copy) -> None:
    folder = Path(copy.ask("recommend", "-k", "3")["folder"])
    assert folder.resolve() == copy.index.with_name(copy.index.name.replace("index", "recommend"))
    found = pq.read_table(folder / "lists").to_pylist()
    everybody = Recommender.open(run.store, run.recipe).export.user_ids.to_pylist()
    assert found == lists(run, *everybody, k=3)


def test_it_gets_an_index_and_new_items(run: Run, copy: Copy) -> None:
    assert copy.ask("index")["items"] == len(run.items)
    Path("new.csv").write_text("item_id,title,price,genres\nnew 1,First,2.5,a|b\n", "utf-8")
    result = copy.ask("index", "--add", "new.csv")
    assert (result["items"], result["added"]) == (len(run.items) + 1, 1)
    assert Path(result["folder"]).resolve() == copy.index
    assert (copy.index / "added_items.parquet").is_file()
    (only,) = copy.ask("recommend", "--user", "u6", "--only", "title=First")["lists"]
    assert only["item_id"] == "new 1"


def test_it_lists_similar_items_and_is_handed_over(run: Run, copy: Copy) -> None:
    similar = Recommender.open(run.store, run.recipe).similar("003", ListOptions(k=4))
    assert copy.ask("similar-items", "--item", "003", "-k", "4") == similar
    assert copy.ask("load", "--to", "opensearch")["items"] == len(run.items)
    assert copy.ask("triton")["items"] == len(run.items)


def test_it_is_served(run: Run, copy: Copy) -> None:
    recipe, store, _ = Call(run=copy.run, verb="serve").open(CPU)
    current = CurrentExport(lambda: LoadedExport.open(store, recipe), lambda: stamps(store))
    with served(build(current)) as client:
        assert client.get("/health").json()["run"] == copy.run.removeprefix("./")
        answer = client.get("/recommend/u6", params={"k": 5}).json()["items"]
        assert [item["item"] for item in answer] == [r["item_id"] for r in lists(run, "u6", k=5)]
        past = client.get("/history/u6").json()["items"]
        assert [item["item"] for item in past] == run.histories(withheld=1)["u6"][::-1]
        body = {"users": [{"features": {"city": "Oslo", "history_item_id": ["003"]}}]}
        (told,) = client.post("/recommend", json=body).json()["lists"]
        assert told["answered_by"] == "raw features"


#: Runs the command line where these packages cannot be imported.
WITHOUT = """
import sys

class Guard:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in ("merlin", "nvtabular", "dask", "distributed", "tensorflow"):
            raise ImportError(name + " is not installed here")

sys.meta_path.insert(0, Guard())
from workflows.cli import main
main()
"""


def test_lists_of_known_users_need_neither_merlin_nor_tensorflow(run: Run, tmp_path: Path) -> None:
    shutil.copytree(run.store.folder("export"), tmp_path / "my shop")
    words = ["recommend", "--run", "./my shop", "--user", "u6", "-k", "3", "--json"]
    done = subprocess.run(
        [sys.executable, "-c", WITHOUT, *words, "--device", "cpu"],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[1])},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "run my shop" in done.stderr
    assert json.loads(done.stdout)["lists"] == lists(run, "u6", k=3)


def test_audiences_of_an_export_need_tensorflow_but_not_merlin() -> None:
    heavy = "{'merlin', 'nvtabular', 'dask', 'distributed'}"
    code = f"import sys, workflows.offers.audience; print(*sorted({heavy} & {{*sys.modules}}))"
    done = subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[1])},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == ""


def test_the_folder_itself_may_be_the_working_folder(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree(run.store.folder("export"), tmp_path / "a copy")
    monkeypatch.chdir(tmp_path / "a copy")
    for path in (Path(), Path("../a copy"), tmp_path / "a copy"):
        store = Store(path)
        assert (store.name, store.folder("export").resolve()) == ("a copy", Path.cwd())
        assert store.folder("index").resolve() == tmp_path / "a copy.index"
        assert store.read("export", run.recipe).stage == "export"


def test_a_damaged_copy_is_named(run: Run, tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(run.store.folder("export"), copy)
    (copy / "histories.parquet").write_bytes(b"x")
    damaged = r"copy/histories\.parquet is not the file.*damaged\. Copy the export of its run again"
    with pytest.raises(ArtifactError, match=damaged):
        Recommender.open(Store(copy), run.recipe)
    (copy / "manifest.json").write_text("{")
    with pytest.raises(ArtifactError, match=r"copy/manifest\.json cannot be read"):
        Recommender.open(Store(copy), run.recipe)


def test_a_verb_that_needs_the_run_names_the_copy(run: Run, tmp_path: Path) -> None:
    shutil.copytree(run.store.folder("export"), tmp_path / "a copy")
    asked = Call(run=str(tmp_path / "a copy"), verb="train")
    with pytest.raises(MissingStage, match=r"/a copy is an export without its run, and `train` re"):
        asked.open(CPU)


def test_an_earlier_stage_that_is_there_must_be_the_one_it_was_made_from(
    run: Run, tmp_path: Path
) -> None:
    whole = run.branch(tmp_path / "run", stages=("train", "export"))
    assert Recommender.open(whole.store, run.recipe).export.as_of == "test"
    with (
        pytest.raises(MissingStage, match="etl is not there yet"),
        whole.store.write("evaluate", run.recipe, CPU),
    ):
        pass
    shutil.copytree(run.store.folder("etl"), tmp_path / "run" / "etl")
    assert Recommender.open(whole.store, run.recipe).export.as_of == "test"
    with whole.store.write("etl", run.recipe, CPU):
        pass
    with pytest.raises(StaleInput, match="made from an earlier etl stage"):
        Recommender.open(whole.store, run.recipe)
