"""No verb loads a model file without a check for operations that can harm the machine."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest
from live import served
from tampering import link_weights, plant, resign
from test_serve import STAGES, current
from tiny_run import CPU, Tiny

from workflows.etl import etl
from workflows.ground.errors import ArtifactError
from workflows.serve.app import build
from workflows.stages.store import Store
from workflows.stages.train_files import TrainFiles
from workflows.train import train

ROOT = Path(__file__).parents[1]
#: Function that loads a model → the check that must come before it, in the same function.
LOOKS = {"load_weights": "refuse_unsafe_weights", "load": "refuse_unsafe_model"}
#: They read what the same verb has just written, before its manifest is signed.
SELFCHECKS = {"workflows/towers/selfcheck.py"}


def test_serve_refuses_a_planted_tower_by_name_at_the_first_raw_value_and_at_a_reload(
    tiny: Tiny, tmp_path: Path
) -> None:
    run = tiny.exported.branch(tmp_path / "run", stages=STAGES)
    honest = current(run)
    assert honest.served.embed("users", [{}])  # the towers are loaded, so a reload loads them, too
    export = run.store.folder("export")
    for tower in ("query_tower_raw", "item_tower_raw"):
        plant(export / tower, "WriteFile", str(tmp_path / "pwned").encode())
    resign(export)
    with pytest.raises(ArtifactError, match=r"holds the operation WriteFile .*It was not loaded"):
        honest.reload()
    with served(build(current(run))) as client:
        for path, body in (
            ("/embed", {"users": [{"age": 30}]}),
            ("/embed", {"items": [{"price": 2}]}),
            ("/recommend", {"users": [{"features": {"age": 30}}]}),
        ):
            answer = client.post(path, json=body)
            assert answer.status_code == 503
            assert "holds the operation WriteFile" in answer.text
        assert client.get("/recommend/u6").status_code == 200  # lists need no tower
    assert not (tmp_path / "pwned").exists()


def test_a_warm_start_from_planted_weights_is_refused(tiny: Tiny, tmp_path: Path) -> None:
    planted = tiny.trained.branch(tmp_path / "planted", stages=("etl", "train"))
    link_weights(TrainFiles(planted.store.folder("train")).weights, tmp_path / "secret.h5")
    resign(planted.store.folder("train"))
    run = tiny.prepared.branch(tmp_path / "run")
    with pytest.raises(ArtifactError, match=r"planted.*has a link at 'planted'.*It was not loaded"):
        train(run.recipe, run.store, CPU, warm_start=planted.store)
    assert not run.store.folder("train").exists()


def test_an_etl_that_grows_from_planted_statistics_is_refused(tiny: Tiny, tmp_path: Path) -> None:
    planted = tiny.prepared.branch(tmp_path / "planted")
    (planted.store.folder("etl") / "statistics.json").write_text("null")
    resign(planted.store.folder("etl"))
    with pytest.raises(ArtifactError, match=r"planted.* is not what `two-tower etl` writes"):
        etl(planted.recipe, Store(tmp_path / "run"), CPU, data=planted.world.folder,
            grow_from=planted.store)  # fmt: skip


def test_every_place_that_loads_a_model_looks_at_it_first() -> None:
    """Audience, report, evaluate, export, triton, index --add and warm starts go through these."""
    found = []
    for path in sorted((ROOT / "workflows").rglob("*.py")):
        name = str(path.relative_to(ROOT))
        for function in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if not isinstance(function, ast.FunctionDef) or name in SELFCHECKS:
                continue
            calls = [node.func for node in ast.walk(function) if isinstance(node, ast.Call)]
            lines = {c.attr: c.lineno for c in calls if isinstance(c, ast.Attribute)}
            for call in calls:
                text = ast.unparse(call)
                if text.endswith((".saved_model.load", "model.load_weights")):
                    found.append(name)
                    look = LOOKS[text.rpartition(".")[2]]
                    assert lines.get(look, 10**6) < call.lineno, f"{name}: {text} without {look}"
    assert found == [
        "workflows/offers/audience.py",
        "workflows/stages/embedding.py",
        "workflows/stages/train_files.py",
    ]
