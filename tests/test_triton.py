"""The model repository: configurations by Triton's own schema, answers beside the export's."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from google.protobuf import text_format
from tiny_run import Run, Tiny

from models.core.exact import search
from models.core.retriever import Ragged
from workflows.ground.errors import StorageError
from workflows.stages.recommender import ListOptions, Recommender
from workflows.stages.user_features import overlay_given
from workflows.triton import ITEMS, QUERY, WHOLE, config, triton
from workflows.triton.config import Spec

STAGES = ("etl", "train", "export")


@pytest.fixture(scope="module")
def run(tiny: Tiny, tmp_path_factory: pytest.TempPathFactory) -> Run:
    return tiny.exported.branch(tmp_path_factory.mktemp("triton") / "run", stages=STAGES)


@pytest.fixture(scope="module")
def repository(run: Run, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return triton(run.recipe, run.store, to=tmp_path_factory.mktemp("to") / "models").folder


def parsed(text: str) -> Any:
    """Parse a configuration by Triton's protobuf schema; an unknown field is an error."""
    model_config_pb2 = pytest.importorskip("tritonclient.grpc.model_config_pb2")
    return text_format.Parse(text, model_config_pb2.ModelConfig())


def configuration(repository: Path, name: str) -> Any:
    return parsed((repository / name / "config.pbtxt").read_text(encoding="utf-8"))


def specs(tensors: Any) -> dict[str, tuple[int, list[int]]]:
    return {tensor.name: (tensor.data_type, list(tensor.dims)) for tensor in tensors}


# ── configurations ──────────────────────────────────────────────────────────────────────


def test_each_model_is_configured_under_its_own_name(repository):
    assert sorted(path.name for path in repository.iterdir()) == [WHOLE, ITEMS, QUERY]
    for name in (WHOLE, ITEMS, QUERY):
        told = configuration(repository, name)
        assert (told.name, told.max_batch_size) == (name, 0)
        assert (repository / name / "1").is_dir()
        assert told.input
        assert told.output
    assert configuration(repository, QUERY).platform == "tensorflow_savedmodel"
    assert configuration(repository, ITEMS).backend == "python"
    assert configuration(repository, WHOLE).platform == "ensemble"


def test_the_query_tower_is_configured_as_its_signature_says(repository):
    import tensorflow as tf

    triton_pb = pytest.importorskip("tritonclient.grpc.model_config_pb2")
    saved = tf.saved_model.load(str(repository / QUERY / "1" / "model.savedmodel"))
    signature = saved.signatures["serving_default"]
    kinds = {tf.string: triton_pb.TYPE_STRING, tf.float32: triton_pb.TYPE_FP32}

    def of(tensor: Any) -> tuple[int, list[int]]:
        return kinds[tensor.dtype], [-1 if n is None else n for n in tensor.shape]

    told = configuration(repository, QUERY)
    inputs = signature.structured_input_signature[1]
    assert specs(told.input) == {name: of(spec) for name, spec in inputs.items()}
    outputs = signature.structured_outputs
    assert specs(told.output) == {name: of(spec) for name, spec in outputs.items()}


def test_the_steps_of_the_ensemble_fit_together(repository):
    whole = configuration(repository, WHOLE)
    there = specs(whole.input)
    for step in whole.ensemble_scheduling.step:
        model = configuration(repository, step.model_name)
        inputs, outputs = specs(model.input), specs(model.output)
        assert set(step.input_map) == set(inputs)
        assert set(step.output_map) == set(outputs)
        for name, tensor in step.input_map.items():
            assert there[tensor] == inputs[name], name
        there |= {tensor: outputs[name] for name, tensor in step.output_map.items()}
    assert {name: there[name] for name in specs(whole.output)} == specs(whole.output)
    used = {t for step in whole.ensemble_scheduling.step for t in step.input_map.values()}
    assert set(specs(whole.input)) <= used


def test_any_name_is_quoted_and_a_wrong_field_is_noticed():
    names = ('a "b"', "c\\d", "Ж\n", "plain")
    told = parsed(config.savedmodel("x", {n: Spec("TYPE_FP32", (-1,)) for n in names}, {}))
    assert [tensor.name for tensor in told.input] == list(names)
    with pytest.raises(text_format.ParseError, match="max_batch"):  # the control
        parsed('name: "x"\nmax_batch: 0\n')


# ── answers ─────────────────────────────────────────────────────────────────────────────

#: What Triton gives a Python backend, as far as model.py uses it.
STUB = """
class Tensor:
    def __init__(self, name, array): self.name, self.array = name, array
    def as_numpy(self): return self.array
class TritonError:
    def __init__(self, message): self.text = message
    def message(self): return self.text
class InferenceResponse:
    def __init__(self, output_tensors, error=None): self.tensors, self.error = output_tensors, error
def get_input_tensor_by_name(request, name): return request.get(name)
"""
#: Asks model.py in a process that has numpy alone: requests in, answers out, as JSON.
ASK = """
import builtins, json, runpy, sys
real = builtins.__import__
def only(name, *rest, **options):
    root = name.partition(".")[0]
    if root in ("pyarrow", "tensorflow", "workflows", "models", "faiss", "scipy"):
        raise ImportError(root)
    return real(name, *rest, **options)
builtins.__import__ = only
import numpy as np
import triton_python_backend_utils as pb
folder = sys.argv[1]
model = runpy.run_path(folder + "/1/model.py")["TritonPythonModel"]()
model.initialize({"model_repository": folder, "model_version": "1"})
requests = []
for told in json.load(sys.stdin):
    arrays = {
        "embedding": np.array(told["embedding"], np.float32),
        "exclude": np.array([[i.encode() for i in row] for row in told["exclude"]], object),
        "k": np.array(told["k"], np.int32),
    }
    requests.append({n: pb.Tensor(n, a) for n, a in arrays.items() if n in told})
answers = []
for response in model.execute(requests):
    if response.error:
        answers.append({"error": response.error.message()})
        continue
    tensors = {t.name: t.as_numpy() for t in response.tensors}
    ids = [[i.decode() for i in row] for row in tensors["item_id"]]
    answers.append({"ids": ids, "scores": tensors["score"].astype(float).tolist()})
print(json.dumps(answers))
"""


@pytest.fixture(scope="module")
def ask(repository: Path, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """Return a function that puts requests to model.py in a process of its own."""
    place = tmp_path_factory.mktemp("stub")
    (place / "triton_python_backend_utils.py").write_text(STUB)

    def asked(requests: list[dict[str, Any]]) -> list[dict[str, Any]]:
        done = subprocess.run(
            [sys.executable, "-c", ASK, str(repository / ITEMS)],
            input=json.dumps(requests),
            capture_output=True,
            text=True,
            env={"PYTHONPATH": str(place)},
            check=False,
        )
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)

    return asked


def test_raw_values_through_both_models_give_the_lists_of_the_export(run, repository, ask):
    import tensorflow as tf

    saved = tf.saved_model.load(str(repository / QUERY / "1" / "model.savedmodel"))
    tower = saved.signatures["serving_default"]
    export = Recommender.open(run.store, run.recipe)
    users = ["u6", "u7", "-8200171396217105230"]
    ids = np.array(users, object)
    columns = list(export.export.query_tower.inputs)
    about = overlay_given(export.export, export.user_rows(ids), None, columns)
    inputs = {}
    for name, spec in tower.structured_input_signature[1].items():
        values = about[name].to_pylist()
        if spec.shape.rank == 2:
            width = max(len(v or []) for v in values)
            values = [[*(v or []), *[""] * (width - len(v or []))] for v in values]
        elif spec.dtype == tf.string:
            values = [v or "" for v in values]
        else:
            values = [float("nan") if v is None else v for v in values]
        inputs[name] = tf.constant(values, spec.dtype)
    vectors = tower(**inputs)["embedding"].numpy()
    seen = run.histories(withheld=1)
    longest = max(len(seen[user]) for user in users)
    exclude = [[*seen[user], *[""] * (longest - len(seen[user]))] for user in users]
    (answer,) = ask([{"embedding": vectors.tolist(), "exclude": exclude, "k": [6]}])
    right = export.rank(ids, ListOptions(k=6)).top
    names = export.catalogue.ids.to_pylist()
    expected = [[names[row] if row >= 0 else "" for row in rows] for rows in right.items]
    assert answer["ids"] == expected
    np.testing.assert_allclose(answer["scores"], right.scores, atol=1e-5)


def test_ties_and_lists_that_run_out_are_as_in_exact_search(run, ask):
    export = Recommender.open(run.store, run.recipe)
    names = export.catalogue.ids.to_pylist()
    rng = np.random.default_rng(3)
    dim = export.catalogue.vectors.shape[1]
    queries = np.concatenate([np.zeros((1, dim)), rng.standard_normal((5, dim))])
    queries = queries.astype(np.float32)
    out = [[], [3], [0, 1], list(range(len(names))), [5, 5], [2]]
    exclude = [[names[i] for i in row] for row in out]
    padded = [[*row, *["nobody", ""] * len(names)][: len(names)] for row in exclude]
    requests = [
        {"embedding": queries.tolist(), "exclude": padded, "k": [k]} for k in (1, 4, len(names) + 3)
    ]
    ragged = Ragged(
        np.array([i for row in out for i in row]), np.cumsum([0, *(len(row) for row in out)])
    )
    for request, answer in zip(requests, ask(requests), strict=True):
        right = search(queries, export.catalogue.vectors, request["k"][0], exclude=ragged)
        expected = [[names[row] if row >= 0 else "" for row in rows] for rows in right.items]
        assert answer["ids"] == expected
        np.testing.assert_array_equal(answer["scores"], right.scores)


def test_a_wrong_request_is_told_so_and_others_are_answered(run, ask):
    dim = Recommender.open(run.store, run.recipe).catalogue.vectors.shape[1]
    good = {"embedding": [[0.5] * dim], "exclude": [[""]], "k": [2]}
    wrong = [
        ({"embedding": [[0.5]]}, f"embedding: expected [users, {dim}], got [1, 1]."),
        (
            {"embedding": [[float("nan")] * dim]},
            "embedding: expected numbers, got NaN or infinity.",
        ),
        ({"exclude": [[""], [""]]}, "exclude: expected [1, any], got [2, 1]."),
        ({"k": [0]}, "k: expected one number from 1 to 10000, got [0]."),
        ({"k": [2, 3]}, "k: expected one number from 1 to 10000, got [2, 3]."),
    ]
    answers = ask([good, *({**good, **change} for change, _ in wrong), good])
    assert [answer.get("error") for answer in answers] == [None, *(said for _, said in wrong), None]
    assert answers[0] == answers[-1]


# ── the folder ──────────────────────────────────────────────────────────────────────────


def test_a_repository_is_renewed_and_other_folders_are_left_alone(run, tmp_path):
    first = triton(run.recipe, run.store, to=tmp_path / "models")
    assert first.items == len(run.items)
    assert {"k", "exclude", "history_item_id"} <= set(first.inputs)
    (tmp_path / "models" / "stray").write_text("x")
    triton(run.recipe, run.store, to=tmp_path / "models")
    assert not (tmp_path / "models" / "stray").exists()
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "letter.txt").write_text("dear")
    with pytest.raises(StorageError, match="so it is not overwritten"):
        triton(run.recipe, run.store, to=tmp_path / "mine")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["mine", "models"]


def test_only_what_may_be_recommended_is_ranked(run, tmp_path):
    recipe = run.world.recipe("evaluate.candidates=train")
    result = triton(recipe, run.store, to=tmp_path / "models")
    met = {item for items in run.histories(withheld=2).values() for item in items}
    assert result.items == len(met) < len(run.items)
