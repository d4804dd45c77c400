"""The README is true: its recipe runs, its commands exist, and the snippets of the docs work."""

from __future__ import annotations

import contextlib
import csv
import io
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from tiny_run import check_here, steps_run_eagerly
from typer.testing import CliRunner

from workflows.cli import VERBS, app
from workflows.towers import checks

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")
#: The pages with the snippets that read an export, and with the table of verbs.
EXPORT = (ROOT / "docs" / "how-to" / "use-an-export.md").read_text(encoding="utf-8")
FIRST_RUN = (ROOT / "docs" / "start" / "first-run.md").read_text(encoding="utf-8")


def block(language: str, start: str) -> str:
    """Return the code block of the docs or the README that begins with some text."""
    found = re.findall(rf"```{language}\n(.*?)```", EXPORT + README, re.DOTALL)
    return next(text for text in found if text.startswith(start))


def write_shop(folder: Path) -> None:
    """Write raw files as the README's recipe describes them; 20 % of the events are views."""
    rng = np.random.default_rng(0)
    skus = [f"{i:05d}" for i in range(30)]
    with (folder / "events.csv").open("w", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(["customer", "sku", "event", "at"])
        for step in range(1500):
            customer = int(rng.integers(60))
            sku = skus[int(rng.integers(10)) + 10 * (customer % 3)]
            event = "purchase" if rng.random() < 0.8 else "view"
            rows.writerow([f"-{customer}", sku, event, 1_600_000_000 + step * 3600])
    pq.write_table(
        pa.table(
            {
                "sku": skus,
                "name": [f"Thing {i}" for i in range(30)],
                "category": [f"c{i // 10}" for i in range(30)],
                "tags": ["a|b", "", None] * 10,
                "price": pa.array([None if i == 3 else float(i) for i in range(30)]),
            }
        ),
        folder / "products.parquet",
    )


def run(*words: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    """Run two-tower as a user would."""
    return subprocess.run(
        [sys.executable, "-m", "workflows", *words],
        cwd=cwd,
        env={"PYTHONPATH": str(ROOT), "PATH": "/usr/bin:/bin", "TWO_TOWER_DEVICE": "cpu"},
        capture_output=True,
        text=True,
        check=False,
    )


def printed(snippet: str) -> str:
    """Run a snippet that imports nothing of this package or of Merlin; return its output.

    That an export can be read in a process that has neither is shown by test_export.py.
    """
    imports = re.findall(r"^\s*(?:import|from) (\w+)", snippet, re.MULTILINE)
    assert set(imports) <= {"numpy", "pyarrow", "tensorflow"}
    with contextlib.redirect_stdout(io.StringIO()) as told:
        exec(compile(snippet, "use-an-export.md", "exec"), {})
    return told.getvalue()


CALL = ("--recipe", "shop.yaml", "--set", "train.epochs=2", "--set", "train.batch_size=512")


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The README's own-data recipe, taken from raw files to an export by the command line."""
    folder = tmp_path_factory.mktemp("shop")
    write_shop(folder)
    (folder / "shop.yaml").write_text(block("yaml", "# shop.yaml"), encoding="utf-8")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setattr(checks, "check_from_outside", check_here)
        for verb in ("etl", "train", "export"):
            with steps_run_eagerly() if verb == "train" else contextlib.nullcontext():
                called = CliRunner().invoke(app, [verb, *CALL])
            assert called.exit_code == 0, (verb, called.output, called.exception)
    return folder


@pytest.mark.quality
def test_every_verb_runs_in_a_process_of_its_own(tmp_path: Path) -> None:
    write_shop(tmp_path)
    (tmp_path / "shop.yaml").write_text(block("yaml", "# shop.yaml"), encoding="utf-8")
    for verb in ("etl", "train", "evaluate", "export", "index", "recommend", "report"):
        done = run(verb, *CALL, cwd=tmp_path)
        assert done.returncode == 0, f"{verb}: {done.stderr[-2000:]}"


def test_the_second_recipe_is_short() -> None:
    lines = [line for line in block("yaml", "# shop.yaml").splitlines() if line.strip()]
    assert len(lines) < 20


def test_the_second_recipe_runs_from_raw_files_to_an_export(shop: Path) -> None:
    embeddings = pq.read_table(shop / "runs/shop/export/item_embeddings.parquet")
    assert sorted(embeddings["sku"].to_pylist()) == [f"{i:05d}" for i in range(30)]


def test_the_snippet_goes_from_a_raw_id_to_ten_titles(
    shop: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    snippet = block("python", "import numpy")
    changes = {
        "runs/movielens-100k/export": "runs/shop/export",
        '"user_id", "==", "196"': '"customer", "==", "-7"',
        'item_features.parquet")["title"]': 'item_features.parquet")["name"]',
        'items["item_id"]': 'items["sku"]',
    }
    for readme, here in changes.items():
        assert readme in snippet
        snippet = snippet.replace(readme, here)
    monkeypatch.chdir(shop)
    lines = printed(snippet).strip().splitlines()
    assert len(lines) == 10
    assert len(set(lines)) == 10
    assert all(re.fullmatch(r"\d{5} Thing \d+", line) for line in lines)


def test_the_second_snippet_embeds_a_user_of_no_table(
    shop: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    snippet = block("python", "import tensorflow").replace("movielens-100k", "shop")
    changed = snippet.replace("history_item_id", "history_sku")
    assert changed != snippet
    monkeypatch.chdir(shop)
    (shape,) = re.findall(r"shape=\((\d+), (\d+)\)", printed(changed))
    width = pq.read_schema(shop / "runs/shop/export/item_embeddings.parquet").field("embedding")
    assert shape == ("1", str(width.type.list_size))


def test_every_make_target_and_verb_that_it_names_exists() -> None:
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    targets = {w for line in re.findall(r"make ((?:[a-z-]+ ?)+)", README) for w in line.split()}
    named = re.findall(r"^\| `([a-z-]+)` \|", README + FIRST_RUN, re.MULTILINE)
    verbs = set(named)
    assert {"etl", "train", "export", "test"} <= targets
    assert {t for t in targets if not re.search(rf"\b{t}\b", makefile)} == set()
    assert {"etl", "train", "evaluate", "export"} <= verbs
    assert verbs - {verb.__name__.replace("_", "-") for verb in VERBS} == set()


def test_no_placeholder_is_left() -> None:
    assert re.findall(r"@[A-Z]+@", README) == []
