"""Loaded items, asked for by the database itself or by naive readers of its files."""

from __future__ import annotations

import inspect
import json
import re
import shutil
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from tiny_run import Run, Tiny

from models.core.exact import search
from workflows.ground.errors import (
    ArtifactError,
    DataError,
    MissingStage,
    RecipeError,
    StaleInput,
    StorageError,
    TwoTowerError,
)
from workflows.load import TARGETS, load, milvus
from workflows.load.documents import Documents
from workflows.recipe import Recipe
from workflows.stages.export import Export
from workflows.stages.index import Catalogue
from workflows.stages.recommender import ListOptions, Recommender
from workflows.triton import triton

STAGES = ("etl", "train", "export")
#: milvus-lite still asks pkg_resources for its version.
LITE = pytest.mark.filterwarnings("ignore:pkg_resources is deprecated:UserWarning")


@pytest.fixture
def milvus_lite() -> None:
    for package in ("pymilvus", "milvus_lite"):
        pytest.importorskip(package)


@pytest.fixture(scope="module")
def run(tiny: Tiny, tmp_path_factory: pytest.TempPathFactory) -> Run:
    return tiny.exported.branch(tmp_path_factory.mktemp("load") / "run", stages=STAGES)


@pytest.fixture
def documents() -> Documents:
    """A thousand items and some, whose scores all differ."""
    import pyarrow as pa

    rng = np.random.default_rng(7)
    n = 2345
    return Documents(
        pa.array([f"{row:05}" for row in range(n)]),
        rng.standard_normal((n, 17)).astype(np.float32),
        pa.table({"title": pa.array([f"Film {row}" for row in range(n)])}),
    )


def asked(file: Path, name: str, vectors: np.ndarray, k: int, **options: Any) -> list[Any]:
    """Search a file of Milvus Lite in the way of its manual."""
    from milvus_lite.server_manager import server_manager_instance
    from pymilvus import MilvusClient

    client = MilvusClient(str(file))
    try:
        found = client.search(name, data=vectors.tolist(), limit=k, **options)
    finally:
        client.close()
        server_manager_instance.release_server(str(file))
    return [[(hit["id"], hit["distance"], hit["entity"]) for hit in hits] for hits in found]


# ── milvus ──────────────────────────────────────────────────────────────────────────────


ODD = ["id", "a b", "a_b", "a.b", "a", "_id", "类别", "title"]


def odd_documents(*titles: str) -> Documents:
    """Documents whose columns have names that databases need or refuse."""
    import pyarrow as pa

    columns = {name: [f"{name} {n}" for n in range(len(titles))] for name in ODD}
    ids = pa.array([str(n) for n in range(len(titles))])
    table = pa.table({**columns, "title": list(titles)})
    return Documents(ids, np.eye(len(titles), 4, dtype=np.float32), table)


@pytest.mark.quality
@LITE
@pytest.mark.usefixtures("milvus_lite")
def test_milvus_gets_names_that_it_takes(tmp_path, caplog):
    milvus.write(odd_documents("x", "y"), str(tmp_path / "a.db"), "odd")
    told = dict(re.findall(r"column '(.*)' is the field '(.*)' in", caplog.text))
    assert told == {"id": "id_2", "a b": "a_b_2", "a.b": "a_b_3", "类别": "column"}
    (hits,) = asked(
        *(tmp_path / "a.db", "odd", np.eye(1, 4), 1),
        filter='a_b_3 == "a.b 0"',
        output_fields=["*"],
    )
    fields = {field: f"{name} 0" for name, field in {**{n: n for n in ODD}, **told}.items()}
    assert {**fields, "title": "x", "id": "0"}.items() <= {**hits[0][2], "id": hits[0][0]}.items()


def test_milvus_refuses_an_item_with_too_much_text(tmp_path):
    with pytest.raises(DataError, match=r"of 1 items .* '1' has 66,0.. bytes, most .* 'title'"):
        milvus.write(odd_documents("x", "y" * 66_000), str(tmp_path / "a.db"), "odd")
    assert not list(tmp_path.iterdir())


def test_opensearch_gets_names_and_texts_that_it_takes(tmp_path, caplog):
    from workflows.load import opensearch

    opensearch.write(odd_documents("x", "y" * 40_000), tmp_path / "os", "odd")
    mapping = json.loads((tmp_path / "os" / "index.json").read_text())["mappings"]["properties"]
    assert set(mapping) - {"id", "embedding"} == {
        *("id_2", "a b", "a_b", "a_b_2", "a", "id_3", "类别", "title"),
    }
    # https://opensearch.org/docs: a keyword beyond 32,766 bytes is refused without ignore_above
    assert mapping["title"] == {"type": "keyword", "ignore_above": 8191}
    assert mapping["title"]["ignore_above"] * 4 <= 32_766
    assert "1 values of 'title' have more than 8,191 letters" in caplog.text
    assert bulk(tmp_path / "os")[1][1]["title"] == "y" * 40_000


@LITE
@pytest.mark.usefixtures("milvus_lite")
def test_milvus_answers_with_the_lists_of_the_export(run, tmp_path):
    file = tmp_path / "milvus.db"
    result = load(run.recipe, run.store, to="milvus", place=str(file))
    assert (result.items, result.name) == (len(run.items), "tiny")
    export = Recommender.open(run.store, run.recipe)
    users = pq.read_table(run.store.folder("export") / "user_embeddings.parquet")
    vectors = export.export.user_vectors(np.arange(len(export.export.user_ids)))
    found = asked(file, "tiny", vectors, 5, output_fields=["title", "genres"])
    lists = export.rank(users["user_id"].to_numpy(), ListOptions(k=5, keep_seen=True)).top
    films = {film["item_id"]: film for film in run.world.films}
    for hits, scores in zip(found, lists.scores, strict=True):
        np.testing.assert_allclose([score for _, score, _ in hits], scores, rtol=1e-5)
        for item, _, entity in hits:
            assert entity.get("title") == films.get(item, {}).get("title")
    ids = export.catalogue.ids.to_pylist()
    assert [[h[0] for h in hits] for hits in found] == [
        [ids[i] for i in row] for row in lists.items
    ]


@LITE
@pytest.mark.usefixtures("milvus_lite")
def test_milvus_returns_the_exact_best(documents, tmp_path, monkeypatch):
    temporary = tmp_path / "temporary"
    temporary.mkdir()
    monkeypatch.setenv("TMPDIR", str(temporary))
    file = tmp_path / "milvus.db"
    milvus.write(documents, str(file), "items")
    assert list(temporary.iterdir()) == []  # the server's logs are gone
    queries = np.random.default_rng(8).standard_normal((20, 17)).astype(np.float32)
    found = asked(file, "items", queries, 100)
    right = search(queries, documents.vectors, 100)
    assert [[int(h[0]) for h in hits] for hits in found] == right.items.tolist()
    # again, with other vectors: the file is replaced, and nothing stays beside it
    turned = Documents(documents.ids, -documents.vectors, documents.columns)
    milvus.write(turned, str(file), "items")
    found = asked(file, "items", queries, 3)
    worst = search(-queries, documents.vectors, 3)
    assert [[int(h[0]) for h in hits] for hits in found] == worst.items.tolist()
    assert [path.name for path in tmp_path.iterdir() if path.suffix == ".db"] == ["milvus.db"]
    with pytest.raises(StorageError, match=r"milvus.db also holds items, which would be lost"):
        milvus.write(documents, str(file), "others")
    assert asked(file, "items", queries, 3) == found


def test_a_file_of_somebody_else_is_not_overwritten(documents, tmp_path):
    pytest.importorskip("milvus_lite")
    for name, said in (("notes.txt", "ends in .db"), ("notes.db", "not a Milvus Lite file")):
        (tmp_path / name).write_text("notes")
        with pytest.raises(StorageError, match=said):
            milvus.write(documents, str(tmp_path / name), "items")
        assert (tmp_path / name).read_text() == "notes"


@pytest.mark.parametrize("hand_over", ["load", "triton"])
def test_an_export_that_is_stale_damaged_or_missing_is_not_handed_over(run, tmp_path, hand_over):
    def refused(recipe: Recipe, error: type[TwoTowerError]) -> None:
        to = tmp_path / "to"
        call = {
            "load": partial(load, to="opensearch", place=str(to)),
            "triton": partial(triton, to=to),
        }[hand_over]
        with pytest.raises(error, match="export"):
            call(recipe, mine.store)
        assert not (tmp_path / "to").exists()

    mine = run.branch(tmp_path / "run", stages=STAGES)
    refused(run.world.recipe("model.dim=32"), StaleInput)
    file = mine.store.folder("export") / "item_features.parquet"
    file.write_bytes(file.read_bytes() + b"x")
    refused(mine.recipe, ArtifactError)
    shutil.rmtree(mine.store.folder("export"))
    refused(mine.recipe, MissingStage)


@LITE
@pytest.mark.usefixtures("milvus_lite")
def test_a_load_that_fails_leaves_the_old_file(documents, tmp_path, monkeypatch):
    file = tmp_path / "milvus.db"
    milvus.write(documents, str(file), "items")
    before = file.read_bytes()
    wide = Documents(documents.ids, documents.vectors[:10], documents.columns)
    with pytest.raises(ValueError, match="zip"):
        milvus.write(wide, str(file), "items")
    assert file.read_bytes() == before
    assert [path.name for path in tmp_path.iterdir() if path.suffix == ".db"] == ["milvus.db"]


class Cluster:
    """What a cluster's client is asked for; collections hold the ids."""

    def __init__(self, *, fails: bool = False) -> None:
        self.collections: dict[str, list[str]] = {}
        self.aliases: dict[str, str] = {}
        self.fails = fails

    def __getattr__(self, name: str) -> Any:
        from pymilvus import MilvusClient

        return getattr(MilvusClient, name)  # schemas and index parameters are made without a server

    def create_collection(self, name: str, **_: Any) -> None:
        self.collections[name] = []

    def insert(self, name: str, rows: list[dict[str, Any]]) -> None:
        if self.fails:
            from pymilvus import MilvusException

            raise MilvusException(message="no room")
        self.collections[name] += [row["id"] for row in rows]

    def flush(self, name: str) -> None: ...
    def close(self) -> None: ...

    def has_collection(self, name: str) -> bool:
        return name in self.collections or name in self.aliases

    def describe_collection(self, name: str) -> dict[str, str]:
        return {"collection_name": self.aliases.get(name, name)}

    def create_alias(self, collection: str, alias: str) -> None:
        self.aliases[alias] = collection

    alter_alias = create_alias

    def drop_collection(self, name: str) -> None:
        assert name not in self.aliases.values()
        del self.collections[name]


def test_in_a_cluster_the_alias_moves_when_all_is_there(documents, monkeypatch):
    pytest.importorskip("pymilvus")
    cluster = Cluster()
    monkeypatch.setattr(milvus, "_client", lambda: lambda **_: cluster)
    for _ in range(2):
        milvus.write(documents, "http://milvus:19530", "items")
        (only,) = cluster.collections
        assert cluster.aliases == {"items": only}
        assert cluster.collections[only] == documents.ids.to_pylist()
    before = dict(cluster.aliases)
    cluster.fails = True
    with pytest.raises(StorageError, match=r"Milvus at http://milvus:19530 refused: .*no room"):
        milvus.write(documents, "http://milvus:19530", "items")
    assert cluster.aliases == before
    assert list(cluster.collections) == list(before.values())


# ── opensearch ──────────────────────────────────────────────────────────────────────────


def bulk(folder: Path) -> list[tuple[dict[str, Any], dict[str, Any]]]:
    """Read bulk files as OpenSearch does: an action, then its document."""
    text = "".join(file.read_text(encoding="utf-8") for file in sorted(folder.glob("bulk-*")))
    *lines, end = text.split("\n")
    assert end == ""
    told = [json.loads(line) for line in lines]
    return list(zip(told[::2], told[1::2], strict=True))


def test_opensearch_gets_every_item_and_a_mapping_that_fits(run, tmp_path):
    result = load(run.recipe, run.store, to="opensearch", place=str(tmp_path / "os"), name="films")
    pairs = bulk(tmp_path / "os")
    assert result.items == len(pairs) == len(run.items)
    assert {action["index"]["_id"] for action, _ in pairs} == run.items
    assert all(a == {"index": {"_index": "films", "_id": d["id"]}} for a, d in pairs)
    mapping = json.loads((tmp_path / "os" / "index.json").read_text())["mappings"]["properties"]
    vector = mapping["embedding"]
    assert (vector["type"], vector["space_type"]) == ("knn_vector", "innerproduct")
    assert vector["method"]["name"] == "hnsw"
    assert {len(document["embedding"]) for _, document in pairs} == {vector["dimension"]}
    assert {name for _, document in pairs for name in document} == set(mapping)
    assert {n: mapping[n]["type"] for n in ("title", "genres", "price")} == {
        "title": "keyword", "genres": "keyword", "price": "double",
    }  # fmt: skip
    films = {film["item_id"]: film for film in run.world.films}
    assert all(d.get("title") == films.get(d["id"], {}).get("title") for _, d in pairs)


def test_its_vectors_rank_as_evaluate_does(run, tmp_path):
    load(run.recipe, run.store, to="opensearch", place=str(tmp_path / "os"))
    documents = [document for _, document in bulk(tmp_path / "os")]
    items = np.array([document["embedding"] for document in documents], np.float32)
    export = Recommender.open(run.store, run.recipe)
    answers = export.rank(np.array(["u6", "u7"], object), ListOptions(k=5, keep_seen=True))
    users = export.export.user_vectors(export.user_rows(answers.users))
    top = search(users, items, 5)
    ids = np.array([document["id"] for document in documents])
    right = export.catalogue.ids.to_numpy(zero_copy_only=False)[answers.top.items]
    assert ids[top.items].tolist() == right.tolist()


def test_bulk_files_are_cut_where_they_grow_too_large(documents, tmp_path, monkeypatch):
    from workflows.load import opensearch

    monkeypatch.setattr(opensearch, "MOST_BYTES", 400_000)
    opensearch.write(documents, str(tmp_path / "os"), "films")
    files = sorted((tmp_path / "os").glob("bulk-*"))
    assert len(files) == 3
    assert all(file.stat().st_size <= 400_000 for file in files)
    assert [document["id"] for _, document in bulk(tmp_path / "os")] == documents.ids.to_pylist()


def test_an_earlier_load_is_replaced_and_nothing_else_is(documents, tmp_path):
    from workflows.load import opensearch

    for _ in range(2):
        opensearch.write(documents, str(tmp_path / "os"), "films")
        assert len(bulk(tmp_path / "os")) == len(documents)
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "letter.txt").write_text("dear")
    with pytest.raises(StorageError, match=r"holds no index\.json, so it is not overwritten"):
        opensearch.write(documents, str(tmp_path / "mine"), "films")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["mine", "os"]


# ── both ────────────────────────────────────────────────────────────────────────────────


def test_only_what_may_be_recommended_is_loaded(run):
    recipe = run.world.recipe("evaluate.candidates=train")
    some = Documents.of(Catalogue.open(run.store, Export.open(run.store, recipe)))
    met = {item for items in run.histories(withheld=2).values() for item in items}
    assert set(some.ids.to_pylist()) == met < run.items


@pytest.mark.parametrize("name", TARGETS)
def test_a_target_keeps_the_protocol_and_takes_the_names_of_the_recipes(name):
    target = import_module(f"workflows.load.{name}")
    assert list(inspect.signature(target.write).parameters) == ["documents", "place", "name"]
    assert re.fullmatch(target.NAMES, "movielens_100k", re.ASCII)
    assert not re.fullmatch(target.NAMES, "my films", re.ASCII)
    assert target.NAME_RULE
    assert Path(target.DEFAULT_PLACE).name == target.DEFAULT_PLACE


def test_names_and_ids_that_a_database_does_not_take_are_refused(run, documents, tmp_path):
    from workflows.load import opensearch

    with pytest.raises(RecipeError, match="--to 'redis': expected milvus or opensearch"):
        load(run.recipe, run.store, to="redis")
    for to, name in (("milvus", "my films"), ("milvus", "1"), ("opensearch", "Films")):
        with pytest.raises(RecipeError, match=f"--name '{name}': {to} takes"):
            load(run.recipe, run.store, to=to, place=str(tmp_path / "x"), name=name)
    import pyarrow as pa

    long = Documents(pa.array(["x" * 513]), documents.vectors[:1], documents.columns[:1])
    with pytest.raises(DataError, match="An item id has 513 bytes; OpenSearch takes 512"):
        opensearch.write(long, str(tmp_path / "x"), "films")
    assert not (tmp_path / "x").exists()
