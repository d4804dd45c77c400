"""Files that could do harm are refused by name before anything in them is loaded."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import h5py
import numpy as np
import pytest
import tensorflow as tf
from test_store import recipe, version_of, write

from workflows.ground import trust
from workflows.ground.errors import ArtifactError
from workflows.stages.embedding import RawTower
from workflows.stages.store import Store

# ── SavedModels ─────────────────────────────────────────────────────────────────────────


class Honest(tf.Module):
    """A tower with a variable, a look-up table, and nothing else."""

    def __init__(self, vocabulary: Path) -> None:
        super().__init__()
        self.weight = tf.Variable([[1.0, 2.0], [3.0, 4.0], [5.0, 6.0]])
        init = tf.lookup.TextFileInitializer(
            str(vocabulary),
            *(tf.string, tf.lookup.TextFileIndex.WHOLE_LINE),
            *(tf.int64, tf.lookup.TextFileIndex.LINE_NUMBER),
        )
        self.table = tf.lookup.StaticHashTable(init, 2)

    @tf.function(input_signature=[tf.TensorSpec([None], tf.string, "colour")])
    def serve(self, colour: tf.Tensor) -> dict[str, tf.Tensor]:
        self.before(colour)
        return {"embedding": tf.gather(self.weight, self.table.lookup(colour))}

    def before(self, colour: tf.Tensor) -> None:
        """Do nothing; the others do something here."""


class WritesWhenAsked(Honest):
    def before(self, colour: tf.Tensor) -> None:
        tf.io.write_file(str(self.pwned), colour[0])


class CallsPython(Honest):
    def before(self, colour: tf.Tensor) -> None:
        tf.py_function(lambda x: x, [colour], tf.string)


class ReadsInALoop(Honest):
    def before(self, colour: tf.Tensor) -> None:
        tf.while_loop(lambda i: i < 2, lambda i: i + tf.size(tf.io.read_file("/etc/hosts")), [0])


def saved(kind: type[Honest], folder: Path) -> Path:
    vocabulary = folder / "colours.txt"
    vocabulary.write_text("red\ngreen\n")
    kind.pwned = folder / "pwned"  # type: ignore[attr-defined]
    module = kind(vocabulary)
    tf.saved_model.save(module, str(folder / "tower"), signatures=module.serve)
    return folder / "tower"


def test_a_tower_that_computes_and_looks_up_is_let_through(tmp_path: Path) -> None:
    trust.refuse_unsafe_model(saved(Honest, tmp_path))


@pytest.mark.parametrize(
    ("kind", "op"),
    [(WritesWhenAsked, "WriteFile"), (CallsPython, "EagerPyFunc"), (ReadsInALoop, "ReadFile")],
)
def test_a_planted_operation_is_refused_by_name_and_not_run(
    tmp_path: Path, kind: type[Honest], op: str
) -> None:
    folder = saved(kind, tmp_path)
    with pytest.raises(ArtifactError, match=rf"holds the operation {op} \(in .*It was not loaded"):
        RawTower.open(folder)
    assert not (tmp_path / "pwned").exists()


def test_what_only_saves_variables_may_not_be_reached_by_whoever_loads(tmp_path: Path) -> None:
    """The functions of the saver hold SaveV2, which writes files; a signature may not call it."""
    from tensorflow.core.protobuf import saved_model_pb2

    folder = saved(Honest, tmp_path)
    path = folder / "saved_model.pb"
    model = saved_model_pb2.SavedModel()
    model.ParseFromString(path.read_bytes())
    graph = model.meta_graphs[0]
    save = next(f for f in graph.graph_def.library.function if "traced_save" in f.signature.name)
    graph.object_graph_def.concrete_functions[save.signature.name].SetInParent()
    path.write_bytes(model.SerializeToString())
    with pytest.raises(ArtifactError, match=r"(SaveV2|ShardedFilename|MergeV2Checkpoints)"):
        trust.refuse_unsafe_model(folder)


def test_a_vocabulary_outside_of_the_model_is_refused(tmp_path: Path) -> None:
    from tensorflow.core.protobuf import saved_model_pb2

    folder = saved(Honest, tmp_path)
    path = folder / "saved_model.pb"
    model = saved_model_pb2.SavedModel()
    model.ParseFromString(path.read_bytes())
    model.meta_graphs[0].asset_file_def[0].filename = "../../../../etc/passwd"
    path.write_bytes(model.SerializeToString())
    with pytest.raises(ArtifactError, match=r"a file outside of its folder: \.\./"):
        trust.refuse_unsafe_model(folder)
    (folder / "assets" / "more.txt").symlink_to("/etc/passwd")
    with pytest.raises(ArtifactError, match=r"more\.txt is a link"):
        trust.refuse_unsafe_model(folder)


def test_a_model_that_is_damaged_is_refused(tmp_path: Path) -> None:
    folder = saved(Honest, tmp_path)
    (folder / "saved_model.pb").write_bytes(b"\xff" * 100)
    with pytest.raises(ArtifactError, match=r"saved_model\.pb cannot be read"):
        trust.refuse_unsafe_model(folder)


# ── HDF5 ────────────────────────────────────────────────────────────────────────────────


def _external_link(file: h5py.File, other: Path) -> None:
    file["layer/link"] = h5py.ExternalLink(str(other), "/secret")


def _soft_link(file: h5py.File, other: Path) -> None:
    file["layer/link"] = h5py.SoftLink("/layer/kernel")


def _external_storage(file: h5py.File, other: Path) -> None:
    file.create_dataset("layer/raw", (2,), "f4", external=[(str(other), 0, 8)])


def _virtual(file: h5py.File, other: Path) -> None:
    layout = h5py.VirtualLayout((2,), "f4")
    layout[:] = h5py.VirtualSource(str(other), "secret", (2,))
    file.create_virtual_dataset("layer/virtual", layout)


def _bomb(file: h5py.File, other: Path) -> None:
    file.create_dataset("layer/huge", (1 << 40,), "f4", chunks=(1 << 16,))


@pytest.mark.parametrize(
    ("plant", "message"),
    [
        (_external_link, "has a link at 'link'"),
        (_soft_link, "has a link at 'link'"),
        (_external_storage, "keeps 'raw' in another file"),
        (_virtual, "keeps 'virtual' in another file"),
        (_bomb, "more than the file has"),
    ],
)
def test_weights_that_lead_elsewhere_are_refused(
    tmp_path: Path, plant: Callable[[h5py.File, Path], None], message: str
) -> None:
    other = tmp_path / "other.h5"
    with h5py.File(other, "w") as file:
        file["secret"] = np.ones(2, np.float32)
    path = tmp_path / "model.weights.h5"
    with h5py.File(path, "w") as file:
        file["layer/kernel"] = np.ones((2, 3), np.float32)
    trust.refuse_unsafe_weights(path)
    with h5py.File(path, "a") as file:
        plant(file, other)
    with pytest.raises(ArtifactError, match=f"{message}.*It was not loaded"):
        trust.refuse_unsafe_weights(path)


# ── signatures ──────────────────────────────────────────────────────────────────────────


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "runs" / "shop")


def test_with_a_key_only_what_it_signed_is_used(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(store)
    monkeypatch.setenv(trust.SIGNING_KEY, "secret")
    with pytest.raises(ArtifactError, match=r"manifest\.json is not signed, and \$TWO_TOWER_SIGN"):
        store.read("etl", recipe())
    write(store, version=2)
    assert version_of(store) == 2
    monkeypatch.setenv(trust.SIGNING_KEY, "another")
    with pytest.raises(ArtifactError, match="was not signed with this key"):
        store.read("etl", recipe())
    monkeypatch.delenv(trust.SIGNING_KEY)
    assert version_of(store) == 2


def test_a_manifest_that_was_signed_and_then_changed_is_refused(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(trust.SIGNING_KEY, "secret")
    write(store)
    path = store.folder("etl") / "manifest.json"
    path.write_text(path.read_text().replace('"version": 1', '"version": 7'))
    with pytest.raises(ArtifactError, match="or was changed later"):
        store.read("etl", recipe())
