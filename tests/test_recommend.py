"""Lists from the export alone, beside what evaluate ranks and beside naive loops."""

from __future__ import annotations

import gzip
import json
import logging
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pyarrow as pa
import pyarrow.csv as pacsv
import pyarrow.parquet as pq
import pytest
from stages import content
from tiny_run import CPU, Run, Tiny

import workflows.recommend.shards as module
from models.training.two_tower import TwoTower
from workflows.ground.errors import DataError, MissingStage
from workflows.recipe import Feature
from workflows.recommend import (
    LISTS,
    Ranker,
    RecommendRequest,
    RecommendResult,
    Share,
    recommend,
)
from workflows.recommend.request import read_users
from workflows.stages.etl import Prepared
from workflows.stages.index import Catalogue
from workflows.stages.item_rules import split_rule
from workflows.stages.recommender import ListOptions, Recommender
from workflows.stages.train import load_model

K = 5


@pytest.fixture(scope="module")
def run(tiny: Tiny, tmp_path_factory: pytest.TempPathFactory) -> Run:
    root = tmp_path_factory.mktemp("recommend") / "run"
    return tiny.exported.branch(root, stages=("etl", "train", "export"))


@pytest.fixture(scope="module")
def everybody(run: Run) -> RecommendResult:
    return recommend(run.recipe, run.store, CPU, options=ListOptions(k=K))


def lists_of(rows: list[dict]) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for row in sorted(rows, key=lambda row: row["rank"]):
        found.setdefault(row["user_id"], []).append(row["item_id"])
    return found


def asked(run: Run, *users: str, **wish) -> list[dict]:
    return recommend(
        run.recipe, run.store, CPU, options=ListOptions(**wish), request=RecommendRequest(users)
    ).lists


def test_q01_everybodys_lists_are_those_of_evaluate(run, everybody):
    prepared = Prepared.open(run.store, run.recipe)
    evaluation_set = prepared.evaluation_set("test", run.recipe.evaluate)
    model = TwoTower.of(load_model(run.store, run.recipe, prepared), prepared.users, prepared.items)
    # `recommend` knows the context of a user's last interaction, not that of the withheld one
    queries = replace(evaluation_set.queries, contexts={})
    top = replace(evaluation_set, queries=queries).top_k(model, K)
    users = prepared.raw_users["user_id"].to_pylist()
    items = prepared.raw_items["item_id"].to_pylist()
    rows = pq.read_table(everybody.folder / LISTS).to_pylist()
    found = lists_of(rows)
    for user, best in zip(evaluation_set.queries.users, top.items, strict=True):
        if user >= 0:
            assert found[users[user]] == [items[i] for i in best if i >= 0]
    assert everybody.users == len(found) == len(users) - 1
    assert everybody.answered_by == {"two-tower": everybody.users}
    titles = {film["item_id"]: film["title"] for film in run.world.films}
    assert all(row["title"] == titles.get(row["item_id"]) for row in rows)
    manifest = run.store.read("recommend", run.recipe)
    assert manifest.rows == {
        "users": everybody.users,
        "recommendations": len(rows),
        "users_without_items": 0,
        "short_lists": sum(len(items) < K for items in found.values()),
    }
    assert manifest.options["as_of"] == "test"


def test_q02_nobody_is_shown_what_they_have_seen_unless_asked(run, everybody):
    seen = run.histories(withheld=1)
    found = lists_of(pq.read_table(everybody.folder / LISTS).to_pylist())
    assert all(not set(found[user]) & set(seen.get(user, [])) for user in found)
    again = lists_of(asked(run, "u6", k=100, keep_seen=True))["u6"]
    assert set(again) == run.items  # longer than the catalogue: all of it, each once
    assert len(again) == len(run.items)
    without = lists_of(asked(run, "u6", k=100))["u6"]
    assert set(without) == run.items - set(seen["u6"])
    assert [item for item in again if item in without] == without


def test_the_size_of_a_shard_changes_nothing(run, everybody, monkeypatch, tmp_path):
    before = pq.read_table(everybody.folder / LISTS)
    monkeypatch.setattr(module, "SHARD", 3)
    copy = run.branch(tmp_path / "run", stages=("etl", "train", "export"))
    result = recommend(copy.recipe, copy.store, CPU, options=ListOptions(k=K))
    assert pq.read_table(result.folder / LISTS).equals(before)


def test_who_gets_nothing_is_told_and_counted(run, tmp_path):
    seen = run.histories(withheld=1)["u6"][0]
    others = sorted(u for u, items in run.histories(withheld=1).items() if seen not in items)
    everybody = ["u6", *others, "u6"]
    options, request = ListOptions(k=K, allow=(seen,)), RecommendRequest(tuple(everybody))
    result = recommend(run.recipe, run.store, CPU, options=options, request=request)
    assert (result.users, result.empty, result.short) == (len(everybody), 2, len(others))
    assert (sum(result.answered_by.values()), result.without_items) == (len(everybody), ["u6"])
    assert lists_of(result.lists) == {user: [seen] for user in others}
    copy = run.branch(tmp_path / "run", stages=("etl", "train", "export"))
    (tmp_path / "users.csv").write_text("user_id\nu6\n" + f"{others[0]}\nu7\n", encoding="utf-8")
    request = RecommendRequest(file=tmp_path / "users.csv", format="jsonl")
    result = recommend(copy.recipe, copy.store, CPU, options=options, request=request)
    text = (result.folder / LISTS / "part-00000.jsonl").read_text(encoding="utf-8")
    lines = [json.loads(line) for line in text.splitlines()]
    assert [line["user_id"] for line in lines] == ["u6", others[0], "u7"]
    assert (lines[0]["items"], lines[0]["answered_by"]) == ([], "two-tower")
    assert [item["item_id"] for item in lines[1]["items"]] == [seen]
    rows = copy.store.read("recommend", copy.recipe).rows
    without = sum(not line["items"] for line in lines)
    assert (rows["users"], rows["users_without_items"]) == (3, without)
    assert rows["short_lists"] == rows["recommendations"] == 3 - without


def test_q03_a_stranger_gets_the_fallback_and_is_told(run):
    rows = asked(run, "nobody knows", "u6", k=3)
    prepared = Prepared.open(run.store, run.recipe)
    known = [i for of in run.histories(withheld=1).values() for i in of]
    counts = {item: known.count(item) for item in prepared.raw_items["item_id"].to_pylist()}
    best = sorted(counts, key=lambda item: -counts[item])[:3]  # stable: ties by item row
    assert lists_of(rows)["nobody knows"] == best
    by = {row["user_id"]: row["answered_by"] for row in rows}
    assert by == {"nobody knows": "popularity", "u6": "two-tower"}
    assert [row["score"] for row in rows[:3]] == [counts[item] for item in best]


def test_where_the_recipe_says_so_the_tower_answers_strangers(run):
    recipe = run.world.recipe("fallback=tower")
    rows = recommend(
        recipe,
        run.store,
        CPU,
        options=ListOptions(k=3),
        request=RecommendRequest(("nobody knows",)),
    ).lists
    assert {row["answered_by"] for row in rows} == {"unknown-user tower"}
    nobody = np.load(run.store.folder("export") / "unknown_user.npy")
    scores = Recommender.open(run.store, recipe).catalogue.vectors @ nobody
    np.testing.assert_allclose([r["score"] for r in rows], np.sort(scores)[::-1][:3], rtol=1e-5)


def test_lists_hold_only_what_is_wished(run):
    films = {film["item_id"]: film for film in run.world.films}
    everything = lists_of(asked(run, "u7", k=100))["u7"]
    with_b = lists_of(asked(run, "u7", k=100, only=("genres=b",)))["u7"]
    assert with_b == [
        i for i in everything if "b" in (films.get(i, {}).get("genres") or "").split("|")
    ]
    assert with_b
    both = ("title=Film 7", "genres=b")
    assert lists_of(asked(run, "u7", k=100, keep_seen=True, only=both)) == {"u7": ["007"]}
    denied = lists_of(asked(run, "u7", k=100, deny=tuple(everything[:2])))["u7"]
    assert denied == everything[2:]


def test_rules_and_ids_that_fit_nothing_are_refused(run):
    with pytest.raises(DataError, match=r"--only 'colour=red': expected column=value, with one of"):
        asked(run, "u6", only=("colour=red",))
    for rule, said in (
        ("genres=aa", "no item has 'aa' in 'genres'. Did you mean 'a'?"),
        ("price=2.6", "no item has '2.6' in 'price'. The nearest number is 2.5."),
        ("price=cheap", "'cheap' is not a number"),
    ):
        with pytest.raises(DataError) as caught:
            asked(run, "u6", only=(rule,))
        assert said in str(caught.value)


@pytest.mark.parametrize("rule", ["price=0.5", "price=0.50", "price=5e-1", "price= 0.5"])
def test_numbers_of_a_rule_are_compared_as_numbers(run, rule):
    assert lists_of(asked(run, "u7", k=100, keep_seen=True, only=(rule,)))["u7"] == ["002"]


def test_denied_ids_of_no_item_are_counted_and_hide_nothing(run, caplog):
    with caplog.at_level(logging.WARNING):
        denied = asked(run, "u7", k=100, deny=("xyz", "001", "abc"))
    assert [r.getMessage() for r in caplog.records] == [
        "--deny: 2 of 3 ids are of no item in the catalogue and hide nothing, such as 'xyz'"
    ]
    assert denied == asked(run, "u7", k=100, deny=("001",))


def test_a_rule_is_spelt_as_its_column_is():
    names = ("new", "year")
    features = {"item_id": Feature("item", id=True), **dict.fromkeys(names, Feature("item"))}
    columns = {"item_id": ["a", "b"], "new": ["true", "false"], "year": ["1991", None]}
    recipe = SimpleNamespace(features=features, item_id="item_id")
    catalogue = Catalogue(recipe, pa.table(columns), np.zeros((2, 1), np.float32), 2)
    for rule in ("new=true", "new=True", "year=1991", "year=1991.0"):
        assert catalogue.rules.matches(rule).tolist() == [True, False], rule
    assert not catalogue.rules.matches("new=yes").any()


def test_a_column_may_hold_an_equals_sign():
    assert split_rule("a=b=c", ["a", "a=b"]) == ("a=b", "c")
    assert split_rule("a=b=c", ["a"]) == ("a", "b=c")
    assert split_rule("b=c", ["a"]) is None


def test_similar_items_leave_the_item_itself_out(run):
    export = Recommender.open(run.store, run.recipe)
    rows = export.similar("003", ListOptions(k=100))
    vectors = export.catalogue.vectors[:, :-1].astype(np.float64)  # the last dimension is the bias
    ids = export.catalogue.ids.to_pylist()
    mine = vectors[ids.index("003")]
    cosine = vectors @ mine / np.linalg.norm(vectors, axis=1) / np.linalg.norm(mine)
    expected = sorted((i for i in ids if i != "003"), key=lambda i: -cosine[ids.index(i)])
    assert [row["item_id"] for row in rows] == expected
    assert list(rows[0]) == ["rank", "item_id", "score", "title"]
    np.testing.assert_allclose(rows[0]["score"], np.sort(cosine)[-2], rtol=1e-5)


def test_without_an_export_there_is_nothing_to_recommend(tiny: Tiny, tmp_path: Path):
    run = tiny.trained.branch(tmp_path / "run", stages=("etl", "train"))
    with pytest.raises(MissingStage, match="Run `two-tower export`"):
        recommend(run.recipe, run.store, CPU, request=RecommendRequest(("u6",)))


# ── files in, files out ──


def test_users_of_a_file_get_lists_and_what_is_told_counts(run, tmp_path):
    ids = ["u7", "nobody", "u6", "-8200171396217105230"]
    shops = ["app", None, None, "web"]
    table = pa.table({"user_id": ids, "shop": shops})
    for name, write in (("csv", pacsv.write_csv), ("parquet", pq.write_table)):
        write(table, tmp_path / f"users.{name}")
    lines = "".join(json.dumps(row) + "\n" for row in table.to_pylist())
    (tmp_path / "users.jsonl.gz").write_bytes(gzip.compress(lines.encode()))
    found = []
    for name in ("csv", "parquet", "jsonl.gz"):
        copy = run.branch(tmp_path / name, stages=("etl", "train", "export"))
        request = RecommendRequest(file=tmp_path / f"users.{name}")
        result = recommend(copy.recipe, copy.store, CPU, options=ListOptions(k=K), request=request)
        assert result.users == 4
        assert result.answered_by == {"two-tower": 3, "popularity": 1}
        assert copy.store.read("recommend", copy.recipe).options["users"] == f"users.{name}"
        found.append(pq.read_table(result.folder / LISTS).to_pylist())
    assert found[0] == found[1] == found[2]
    assert list(lists_of(found[0])) != sorted(ids)  # in the order of the file, by rank
    told = recommend(
        *(run.recipe, run.store, CPU),
        options=ListOptions(k=K),
        request=RecommendRequest(("u7",), context=("shop=app",)),
    )
    assert lists_of(told.lists)["u7"] == lists_of(found[0])["u7"]
    np.testing.assert_allclose(
        [row["score"] for row in told.lists],
        [row["score"] for row in found[0] if row["user_id"] == "u7"],
        rtol=1e-5,
    )
    assert lists_of(found[0])["u6"] == lists_of(asked(run, "u6", k=K))["u6"]


def test_what_a_file_of_strangers_does_not_tell_is_named_once(run, tmp_path, caplog):
    (tmp_path / "people.csv").write_text("user_id,city,notes\nu6,Oslo,x\nnew,Oslo,y\n")
    request = RecommendRequest(file=tmp_path / "people.csv")
    copy = run.branch(tmp_path / "run", stages=("etl", "train", "export"))
    with caplog.at_level(logging.WARNING):
        recommend(copy.recipe, copy.store, CPU, options=ListOptions(k=2), request=request)
    passed_over, missing = [record.getMessage() for record in caplog.records]
    assert passed_over.endswith("1 column passed over, which no feature needs: 'notes'")
    assert "so that values are missing for 1 of 2 users, who are in no table: " in missing
    assert all(repr(name) in missing for name in ("age", "shop", "history_item_id"))
    assert "'city'" not in missing


def test_lists_of_items_are_allowed_and_denied(run, tmp_path):
    everything = lists_of(asked(run, "u7", k=100))["u7"]
    (tmp_path / "deny.txt").write_text("\n".join([everything[0], "discontinued", everything[2]]))
    (tmp_path / "allow.csv").write_text("item_id\n" + "\n".join([*everything[1:4], "unheard of"]))
    request = RecommendRequest(
        ("u7",), deny_file=tmp_path / "deny.txt", allow_file=tmp_path / "allow.csv"
    )
    found = recommend(run.recipe, run.store, CPU, request=request).lists
    assert lists_of(found) == {"u7": [everything[1], everything[3]]}
    (tmp_path / "allow.csv").write_text("item_id\nunheard of\n")
    with pytest.raises(DataError, match=r"allow\.csv: none of its ids is in 'item_id'"):
        recommend(run.recipe, run.store, CPU, request=request)


def test_q04_history_stands_beside_the_list(run, tmp_path):
    seen = run.histories(withheld=1)["u6"][::-1]
    request = RecommendRequest(("u6", "nobody"), show_history=True)
    result = recommend(run.recipe, run.store, CPU, request=request)
    assert [row["item_id"] for row in result.histories["u6"]] == seen
    titles = {film["item_id"]: film["title"] for film in run.world.films}
    assert [row["title"] for row in result.histories["u6"]] == [titles.get(i) for i in seen]
    assert result.histories["nobody"] == []
    copy = run.branch(tmp_path / "run", stages=("etl", "train", "export"))
    with pytest.raises(DataError, match="--show-history goes with --user, or with --format jsonl"):
        recommend(copy.recipe, copy.store, CPU, request=RecommendRequest(show_history=True))
    request = RecommendRequest(show_history=True, format="jsonl")
    result = recommend(copy.recipe, copy.store, CPU, options=ListOptions(k=K), request=request)
    text = (result.folder / LISTS / "part-00000.jsonl").read_text(encoding="utf-8")
    lines = {line["user_id"]: line for line in map(json.loads, text.splitlines())}
    assert set(lines) == run.users
    assert [row["item_id"] for row in lines["u6"]["history"]] == seen
    assert lines["u6"]["answered_by"] == "two-tower"
    assert [row["rank"] for row in lines["u6"]["items"]] == [1, 2, 3, 4, 5]
    plain = lists_of(asked(run, *lines, k=K))
    assert {u: [row["item_id"] for row in line["items"]] for u, line in lines.items()} == plain


def test_an_interrupted_run_goes_on_and_gives_the_same_bytes(run, tmp_path, monkeypatch):
    monkeypatch.setattr(module, "SHARD", 3)
    copies = [run.branch(tmp_path / n, stages=("etl", "train", "export")) for n in "ab"]
    request = RecommendRequest(format="jsonl")
    whole = recommend(
        copies[0].recipe, copies[0].store, CPU, options=ListOptions(k=K), request=request
    )
    asked_of: list[str] = []
    ask = Recommender.rank

    def until(n_users: int):
        def answered(self, users, *rest):
            if len(asked_of) + len(users) > n_users:
                raise KeyboardInterrupt
            asked_of.extend(users)
            return ask(self, users, *rest)

        return answered

    broken = copies[1]
    monkeypatch.setattr(Recommender, "rank", until(6))
    with pytest.raises(KeyboardInterrupt):
        recommend(broken.recipe, broken.store, CPU, options=ListOptions(k=K), request=request)
    assert not broken.store.folder("recommend").exists()
    monkeypatch.setattr(Recommender, "rank", until(100))
    again = recommend(broken.recipe, broken.store, CPU, options=ListOptions(k=K), request=request)
    assert sorted(asked_of) == sorted(run.users)  # nobody was asked for twice
    assert content(again.folder, LISTS) == content(whole.folder, LISTS)
    assert len(content(again.folder, LISTS)) == -(-len(run.users) // 3)
    assert (again.users, again.answered_by) == (whole.users, whole.answered_by)
    assert not (broken.store.root / ".recommend.shards").exists()


def test_processes_that_share_the_lists_write_those_of_one(run, tmp_path, monkeypatch):
    monkeypatch.setattr(module, "SHARD", 2)
    copies = [run.branch(tmp_path / n, stages=("etl", "train", "export")) for n in "ab"]
    whole = recommend(copies[0].recipe, copies[0].store, CPU, options=ListOptions(k=K))
    shared = copies[1]
    n_shards = -(-len(run.users) // 2)
    users, missing = [], []
    for number in (2, 0, 1):  # in any order
        result = recommend(
            shared.recipe, shared.store, CPU, options=ListOptions(k=K), share=Share(number, 3)
        )
        users.append(result.users)
        missing.append(result.missing)
        assert not shared.store.folder("recommend").exists()
    assert sum(users) == len(run.users)  # disjoint, and complete together
    assert missing[0] == n_shards - -(-n_shards // 3)
    assert missing[-1] == 0

    def never(*_):
        raise AssertionError("all lists are there")

    with monkeypatch.context() as patch:
        patch.setattr(Recommender, "rank", never)
        last = recommend(shared.recipe, shared.store, CPU, options=ListOptions(k=K))
    assert content(last.folder, LISTS) == content(whole.folder, LISTS)
    assert (last.users, last.answered_by) == (whole.users, whole.answered_by)


def test_lists_that_are_returned_are_not_shared(run):
    with pytest.raises(DataError, match="--shard goes with lists that are written"):
        recommend(
            *(run.recipe, run.store, CPU), request=RecommendRequest(("u6",)), share=Share(0, 2)
        )


def test_another_question_does_not_go_on_with_old_shards(run, tmp_path, monkeypatch):
    monkeypatch.setattr(module, "SHARD", 3)
    copy = run.branch(tmp_path / "run", stages=("etl", "train", "export"))
    with monkeypatch.context() as patch:
        patch.setattr(module.Shards, "link", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            recommend(copy.recipe, copy.store, CPU, options=ListOptions(k=K))
    assert len(list(copy.store.root.glob(".recommend.shards/*/*.parquet"))) > 1
    result = recommend(copy.recipe, copy.store, CPU, options=ListOptions(k=K, deny=("003",)))
    rows = pq.read_table(result.folder / LISTS).to_pylist()
    assert "003" not in {row["item_id"] for row in rows}


def test_features_that_no_tower_takes_may_be_in_the_file(run, tmp_path, caplog):
    recommender = Recommender.open(run.store, run.recipe)
    tower = recommender.export.query_tower
    inputs = {name: form for name, form in tower.inputs.items() if name != "city"}
    vars(recommender.export)["query_tower"] = replace(tower, inputs=inputs)
    (tmp_path / "people.csv").write_text("user_id,city,age\nnew,Oslo,31\n", encoding="utf-8")
    _, given = read_users(RecommendRequest(file=tmp_path / "people.csv"), recommender)
    assert given.to_pylist() == [{"age": 31.0}]
    assert "1 column passed over, which the query tower does not take: 'city'" in caplog.text


def test_what_is_told_must_be_a_column(run):
    with pytest.raises(
        DataError, match=r"--context 'month=12': expected column=value, with one of"
    ):
        recommend(
            run.recipe, run.store, CPU, request=RecommendRequest(("u6",), context=("month=12",))
        )
    twice = RecommendRequest(("u6",), context=("age=1", "age=2"))
    with pytest.raises(DataError, match="--context names 'age' twice"):
        recommend(run.recipe, run.store, CPU, request=twice)
    with pytest.raises(DataError, match="--user and --users both"):
        recommend(
            run.recipe, run.store, CPU, request=RecommendRequest(("u6",), file=Path("users.csv"))
        )


# ── a ranker ──


def ranked(run: Run, ranker: Ranker, k: int = K) -> list[dict]:
    request = RecommendRequest(("u6", "u7", "nobody"))
    return recommend(
        run.recipe, run.store, CPU, options=ListOptions(k=k), request=request, ranker=ranker
    ).lists


def test_q07_a_ranker_that_changes_nothing_keeps_the_order(run):
    plain = asked(run, "u6", "u7", "nobody", k=K)
    for score in (lambda table: table["score"].to_numpy(), lambda table: np.zeros(len(table))):
        found = ranked(run, Ranker("same", score))
        assert [{n: row[n] for n in plain[0]} for row in found] == plain


def test_a_ranker_sees_raw_features_of_both_sides_and_its_order_counts(run):
    films = {film["item_id"]: film for film in run.world.films}
    people = {row["user_id"]: row for row in run.world.people}
    tables = []

    def cheap_first(table: pa.Table) -> list[float]:
        tables.append(table)
        return [-price if price is not None else -np.inf for price in table["price"].to_pylist()]

    found = ranked(run, Ranker("cheap", cheap_first, candidates=6), k=3)
    (table,) = tables
    rows = table.to_pylist()
    assert {row["city"] for row in rows if row["user_id"] == "u6"} == {people["u6"]["city"]}
    assert all(row["title"] == films.get(row["item_id"], {}).get("title") for row in rows)
    retrieved = lists_of(rows)
    assert retrieved == lists_of(asked(run, "u6", "u7", "nobody", k=6))

    def price(item: str) -> float:
        cost = films.get(item, {}).get("price")
        return np.inf if cost is None else cost

    for user, items in lists_of(found).items():
        assert items == sorted(retrieved[user], key=price)[:3]  # sorted is stable
    assert [row["rank"] for row in found] == [1, 2, 3] * 3


def test_a_shard_has_fewer_users_where_lists_are_longer():
    sizes = [module.shard_size(length) for length in (1, 10, 100, 1000, 10**7)]
    assert sizes == [50_000, 50_000, 10_000, 1000, 1]


def test_a_ranker_is_found_by_its_name_and_must_give_numbers(run, tmp_path, monkeypatch):
    (tmp_path / "shop_ranking.py").write_text("def score(table):\n    return table['rank']\n")
    (tmp_path / "broken.py").write_text("def score(:\n")
    monkeypatch.chdir(tmp_path)
    plain = lists_of(asked(run, "u6", k=100))["u6"]
    for name in ("shop_ranking:score", "shop_ranking.py:score"):
        request = RecommendRequest(("u6",))
        found = recommend(
            *(run.recipe, run.store, CPU),
            options=ListOptions(k=100),
            request=request,
            ranker=Ranker.from_name(name),
        ).lists
        assert lists_of(found)["u6"] == plain[::-1]
    for name, said in (
        ("shop_ranking", "expected module:function"),
        ("shop_ranking:none", "loaded: AttributeError: module 'shop_ranking' has no attribute"),
        ("shop_ranking:__doc__", "is None, which cannot be called"),
        ("no_such:score", "cannot be loaded: ModuleNotFoundError: No module named 'no_such'"),
        ("broken.py:score", "cannot be loaded: SyntaxError"),
        ("none.py:score", "cannot be loaded"),
    ):
        with pytest.raises(DataError, match=said):
            Ranker.from_name(name)
    for score, said in (
        (lambda _: [1.0], r"expected \d+ numbers, one a row of the table, got shape \(1,\)"),
        (lambda table: [np.nan] * len(table), r"with \d+ NaN"),
        (lambda table: ["x"] * len(table), "gives no numbers"),
    ):
        with pytest.raises(DataError, match=said):
            ranked(run, Ranker("broken", score))


def test_it_needs_neither_tensorflow_nor_merlin():
    heavy = ("tensorflow", "merlin", "nvtabular", "dask")
    code = (
        f"import sys, workflows.recommend; sys.exit([m for m in {heavy} if m in sys.modules] or 0)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
