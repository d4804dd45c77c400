from __future__ import annotations

import dataclasses
import html
import json
import math
import os
import re
import subprocess
import sys
from collections import Counter
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import h5py
import msgspec
import numpy as np
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st
from markdown_it import MarkdownIt
from tiny_run import CPU, SETTINGS, Run, steps_run_eagerly
from world import ITEMS, RECIPE, World

from models.core.retriever import Queries, Ragged
from workflows.etl import etl
from workflows.evaluate import evaluate
from workflows.ground.errors import ArtifactError, MissingStage, StaleInput
from workflows.report import card, dataset, numbers, page, report
from workflows.report.axes import Axis
from workflows.report.charts import Range, Text, ranges
from workflows.report.finished import Finished
from workflows.report.markup import element, joined, table
from workflows.stages.store import Store
from workflows.train import train

ROOT = Path(__file__).parent.parent
#: Of the most popular item, whose name stands in many places; of another; of the run.
HOSTILE = "<script>alert('title')</script>"
RTL = 'فيلم & "<b>ي</b>"'
DESCRIPTION = "Tiny <img src=x onerror=alert(1)> [link](javascript:x) | *bold*"


def make(folder: Path, text: str, *, seen: dict[str, str]) -> Run:
    """Run etl, train and evaluate on the tiny world with other titles."""
    world = World(folder / "raw", text=text)
    for film in world.films:
        film["title"] = seen.get(film["item_id"], film["title"])
    world.write()
    run = Run(world, world.recipe(), Store(folder / "run"))
    etl(run.recipe, run.store, CPU, data=world.folder)
    with steps_run_eagerly():
        train(run.recipe, run.store, CPU)
    evaluate(run.recipe, run.store, CPU)
    return run


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    text = f"description: {json.dumps(DESCRIPTION)}\n{RECIPE}{SETTINGS}"
    titles = {ITEMS[0]: HOSTILE, ITEMS[1]: RTL}
    made = make(tmp_path_factory.mktemp("report"), text, seen=titles)
    report(made.recipe, made.store, CPU)
    return made


@pytest.fixture(scope="module")
def finished(run: Run) -> Finished:
    return Finished.read(run.store, run.recipe)


@pytest.fixture(scope="module")
def source(run: Run) -> str:
    return (run.store.folder("report") / "report.html").read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def markdown(run: Run) -> str:
    return (run.store.folder("report") / "model_card.md").read_text(encoding="utf-8")


def read_json(run: Run, stage: str, name: str) -> Any:
    return json.loads((run.store.folder(stage) / name).read_bytes())


class Tree(HTMLParser):
    """Elements of a page in order, with attributes and text; every one must be closed."""

    VOID = ("meta",)

    def __init__(self, source: str) -> None:
        super().__init__()
        self.open: list[Node] = [Node("", {})]
        self.all: list[Node] = []
        self.feed(source)
        self.close()
        assert [node.name for node in self.open] == [""], "an element was not closed"

    def handle_starttag(self, tag, attrs):
        node = Node(tag, dict(attrs))
        assert len(dict(attrs)) == len(attrs), "an attribute stands there twice"
        self.open[-1].children.append(node)
        self.all.append(node)
        if tag not in self.VOID:
            self.open.append(node)

    def handle_endtag(self, tag):
        assert self.open.pop().name == tag

    def handle_data(self, data):
        self.open[-1].children.append(data)

    def named(self, name: str) -> list[Node]:
        return [node for node in self.all if node.name == name]

    def of(self, name: str) -> Node:
        """Return the element with an id."""
        (node,) = [node for node in self.all if node.attributes.get("id") == name]
        return node


@dataclasses.dataclass
class Node:
    name: str
    attributes: dict[str, str | None]
    children: list[Node | str] = dataclasses.field(default_factory=list)

    def text(self) -> str:
        parts = (c if isinstance(c, str) else c.text() for c in self.children)
        return re.sub(r"\s+", " ", "".join(parts)).strip()

    def named(self, name: str) -> list[Node]:
        found = []
        for child in self.children:
            if isinstance(child, Node):
                found += [child] * (child.name == name) + child.named(name)
        return found


@pytest.fixture(scope="module")
def tree(source: str) -> Tree:
    return Tree(source)


def rows(tree: Tree, caption: str) -> list[list[str]]:
    """Return the cells of a table, its head first."""
    (found,) = [t for t in tree.named("table") if t.named("caption")[0].text() == caption]
    return [
        [cell.text() for cell in row.children if isinstance(cell, Node) and cell.text() != "\n"]
        for row in found.named("tr")
    ]


def chart(tree: Tree, name: str) -> Node:
    """Return a chart by its name."""
    titles = [n for n in tree.named("svg") if f"{name}-title" in n.attributes["aria-labelledby"]]
    (found,) = titles
    return found


def points(chart: Node) -> np.ndarray:
    """Return the points of a chart's line, in pixels."""
    line = chart.named("polyline")[0].attributes["points"]
    return np.array([[float(v) for v in pair.split(",")] for pair in line.split()])


def dots(chart: Node) -> np.ndarray:
    """Return the points of a chart's cloud, in pixels."""
    path = next(p.attributes["d"] for p in chart.named("path") if "h0" in p.attributes["d"])
    return np.array([[float(v) for v in p.split()] for p in re.findall(r"M([\d. -]+)h0", path)])


def lies_on_a_scale(pixels: np.ndarray, values: np.ndarray, *, falling: bool) -> bool:
    """Say whether pixels are a linear function of values, to the rounding of pixels."""
    slope, start = np.polyfit(values, pixels, 1)
    near = np.abs(slope * values + start - pixels).max() < 0.11
    return bool(near and (slope < 0) == falling)


# --- one page that needs nothing else ---


def test_the_page_is_one_well_formed_document_without_anything_from_outside(source, tree):
    assert source.startswith("<!DOCTYPE html>\n")
    harmless = re.compile(
        "html|head|meta|title|style|body|header|nav|main|section|article|div|h[1-4]|p|span|b|strong"
        "|small|code|bdi|ul|ol|li|a|table|caption|thead|tbody|t[rhd]|figure|figcaption"
        "|svg|desc|line|path|polyline|rect|text"
    )
    assert [node.name for node in tree.all if not harmless.fullmatch(node.name)] == []
    for node in tree.all:
        names = set(node.attributes)
        assert not names & {"src", "srcset", "style", "action", "background", "xlink:href"}
        assert not [name for name in names if name.startswith("on")]
        if "href" in names:
            assert node.name == "a"
            assert tree.of(node.attributes["href"].removeprefix("#"))
    assert not re.search(r"https?:|//|@import|url\(", source.replace("<!--", ""))
    (policy,) = [n for n in tree.named("meta") if "http-equiv" in n.attributes]
    assert policy.attributes["content"].startswith("default-src 'none'")


def test_ids_are_unique_and_every_picture_says_what_it_shows(tree):
    ids = [n.attributes["id"] for n in tree.all if "id" in n.attributes]
    assert len(ids) == len(set(ids))
    pictures = tree.named("svg")
    assert len(pictures) == 11
    for picture in pictures:
        assert picture.attributes["role"] == "img"
        for name in picture.attributes["aria-labelledby"].split():
            assert len(tree.of(name).text()) > 3
        labels = [t.text() for t in picture.named("text")]
        assert any(re.search("[a-z]{3}", label) for label in labels), "no axis is labelled"
    for figure in tree.named("figure"):
        assert figure.named("figcaption")[0].text()
    for found in tree.named("table"):
        assert found.named("caption")[0].text()
        assert all(th.attributes["scope"] in ("row", "col") for th in found.named("th"))
    (whole,) = tree.named("html")
    assert whole.attributes["lang"] == "en"


def test_what_comes_from_the_data_is_text_and_no_markup(source, tree, markdown):
    assert "<script" not in source
    assert "<img" not in source
    assert html.escape(HOSTILE) in source
    names = {node.text() for node in tree.named("bdi")}
    assert {HOSTILE, RTL} <= names
    assert DESCRIPTION in {node.text() for node in tree.named("p")}
    shown = MarkdownIt("commonmark").enable("table").render(markdown)
    assert html.escape(DESCRIPTION, quote=False) in shown
    harmless = r"h[12]|p|ul|li|table|thead|tbody|t[rhd]"
    assert [n for n in re.findall(r"<(\w+)", shown) if not re.fullmatch(harmless, n)] == []


@given(st.text(st.characters(blacklist_categories=["Cs", "Cc"])))
def test_any_text_is_read_back_from_markup(text):
    tree = Tree(element("p", text, attributes={"title": text}))
    (node,) = tree.all
    assert "".join(node.children) == text
    assert node.attributes["title"] == text
    assert joined([element("b"), text]).startswith("<b></b>")


@given(st.text(st.sampled_from(list("ab1 .)(-+=_*`~#|[]:!<>&;\\\"'\n"))) | st.text())
def test_any_text_is_read_back_from_markdown(text):
    flat = " ".join(text.replace("\x00", "").split())
    for start in ("", "x "):
        shown = MarkdownIt("commonmark").enable("table").render(start + card.plain(flat))
        if flat:
            assert html.unescape(shown) == f"<p>{start}{flat}</p>\n"


# --- facts against the files of the stages ---


def test_the_data_section_counts_what_etl_counted(run, tree, markdown):
    data = read_json(run, "etl", "report.json")
    said = tree.of("data").text()
    for text in (
        "Read: " + ", ".join(f"{name} {n:,}" for name, n in data["read"].items()),
        "Interactions: " + ", ".join(f"{part} {n:,}" for part, n in data["rows"].items()),
        f"{data['users']['rows']} users, {data['users']['rows'] - data['users']['in_train']} of",
        f"{data['items']['rows']} items, {data['items']['rows'] - data['items']['in_train']} of",
    ):
        assert text in said
        assert text in markdown
    dropped = {cause: n for cause, n in data["dropped"].items() if n}
    assert len(dropped) >= 4
    assert ", ".join(f"{cause} {n}" for cause, n in dropped.items()) in said
    head, *body = rows(tree, "Cells that are unseen or null")
    shown = {row[0]: row[1:] for row in body}
    assert head[1:] == [f"{w} in {p}" for w in ("unseen", "null") for p in data["rows"]]
    for column in data["null"]["train"]:
        shares = [data[w][p][column] for w in ("unseen", "null") for p in data["rows"]]
        if any(shares):
            values = [float(text.removesuffix(" %")) / 100 for text in shown[column]]
            assert values == pytest.approx(shares, abs=0.0005)
        else:
            assert column not in shown


def test_the_tail_and_the_histories_are_those_of_the_log(run, tree):
    met = [item for items in run.histories(withheld=2).values() for item in items]
    counts = sorted(Counter(met).values(), reverse=True)
    line = points(chart(tree, "popularity"))
    assert len(line) == len(counts)
    assert lies_on_a_scale(line[:, 0], np.log(np.arange(1, len(counts) + 1)), falling=False)
    assert lies_on_a_scale(line[:, 1], np.log(counts), falling=True)
    lengths = [len(items) for items in run.histories(withheld=2).values() if items]
    bars = chart(tree, "histories").named("rect")
    assert len(bars) == len({n.bit_length() for n in lengths}) == 1
    assert f"Half of the users have {np.median(lengths):.0f} or fewer" in tree.of("data").text()


def test_histories_are_counted_in_bins_that_double():
    tree = Tree(dataset._histories(np.array([0, 2, 3, 3, 5, 15, 8, 16, 16])))
    bars = tree.named("rect")  # 2-3, 4-7, 8-15, 16-31
    heights = np.array([float(bar.attributes["height"]) for bar in bars])
    assert heights / heights[1] == pytest.approx([3, 1, 2, 2], abs=0.02)
    lefts = np.array([float(bar.attributes["x"]) for bar in bars])
    assert lies_on_a_scale(lefts, np.arange(4), falling=False)


def test_curves_are_those_of_the_history_and_the_best_epoch_is_marked(run, tree):
    epochs = [epoch["metrics"] for epoch in read_json(run, "train", "history.json")]
    best = max(range(len(epochs)), key=lambda i: epochs[i]["val_mean"])
    for name in ("loss", "val_recall@10", "val_mean"):
        drawn = chart(tree, f"curve-{name}".replace("@", "-"))
        line = points(drawn)
        values = np.array([metrics[name] for metrics in epochs])
        assert lies_on_a_scale(line[:, 0], np.arange(len(epochs)), falling=False)
        if np.ptp(values):
            assert lies_on_a_scale(line[:, 1], values, falling=True)
        flag = f"epoch {best + 1}: {values[best]:.4f}"
        assert flag in [t.text() for t in drawn.named("text")]
        (dashed,) = [n for n in drawn.named("line") if "stroke-dasharray" in n.attributes]
        assert float(dashed.attributes["x1"]) == line[best, 0]


def test_the_comparison_is_that_of_evaluate(run, tree, markdown):
    scores = read_json(run, "evaluate", "report.json")
    figures, pairs = scores["headline"]["metrics"], scores["differences"]["metrics"]
    head, *body = rows(tree, "All models, the best first")
    assert head[:4] == ["model", "recall@10", "two-tower minus it", "ndcg@10"]
    assert [row[0] for row in body] == sorted(
        figures, key=lambda m: -figures[m]["recall@10"]["mean"]
    )
    for row in body:
        name, mean, pair, ndcg = row[:4]
        figure = figures[name]["recall@10"]
        assert mean == f"{figure['mean']:.4f}[{figure['low']:.3f}, {figure['high']:.3f}]"
        assert ndcg == f"{figures[name]['ndcg@10']['mean']:.4f}"
        if name == "two-tower":
            assert pair == ""
        else:
            gain = pairs[name]["recall@10"]
            assert pair == f"{gain['mean']:+.4f}[{gain['low']:+.3f}, {gain['high']:+.3f}]"
        flat = re.escape(f"| {name} | {figure['mean']:.4f} [{figure['low']:.3f}")
        assert re.search(flat, markdown)
    assert f"{scores['headline']['protocol']['n_candidates']} items" in tree.of("comparison").text()
    chosen = {
        row[0]: row for row in rows(tree, "Baselines: fitted on train, parameters chosen on valid")
    }
    for name, note in scores["opponents"].items():
        assert chosen[name][2] == str(note["tried"])
        where = f"at the edge of {' and '.join(note['edge'])}" if note.get("edge") else "inside"
        assert chosen[name][3] == (where if note["tried"] > 1 else "")
        for parameter, value in note["parameters"].items():
            assert f"{parameter} {value:g}" in chosen[name][1]
    for name, block in scores["beside"].items():
        row = next(r for r in rows(tree, "The same lists under other rules") if r[0] == name)
        ours = block["metrics"]["two-tower"]
        value = ours.get("recall@10", ours.get("accuracy@10"))
        assert row[2] == f"{value['mean']:.4f}"


def test_segments_are_those_of_evaluate_with_their_intervals(run, tree):
    scores = read_json(run, "evaluate", "report.json")
    head, *body = rows(tree, "recall@10 by segment")
    for block, row in zip(scores["segments"].values(), body, strict=True):
        assert row[:3] == [block["what"], str(block["users"]), str(block["targets"])]
        values = [f"{block['metrics'][model]['recall@10']['mean']:.4f}" for model in head[3:]]
        assert row[3:] == values
    drawn = chart(tree, "by-target")
    labels = [t.text() for t in drawn.named("text")]
    blocks = {n: b for n, b in scores["segments"].items() if n.startswith("targets_")}
    assert blocks
    for name, block in blocks.items():
        n = block["targets"]
        assert f"{name.removeprefix('targets_')} ({n} target{'s' * (n != 1)})" in labels
    whiskers = [n for n in drawn.named("line") if n.attributes["stroke-width"] == "2"]
    models = list(dict.fromkeys(["two-tower", best_rival(scores), "popularity"]))
    wanted = [b["metrics"][m]["recall@10"] for b in blocks.values() for m in models]
    assert len(whiskers) == sum("low" in figure for figure in wanted)
    lows = [figure["low"] for figure in wanted if "low" in figure]
    highs = [figure["high"] for figure in wanted if "low" in figure]
    pixels = [float(n.attributes[end]) for end in ("x1", "x2") for n in whiskers]
    assert lies_on_a_scale(np.array(pixels), np.array(lows + highs), falling=False)


def best_rival(scores: dict[str, Any]) -> str:
    figures = scores["headline"]["metrics"]
    others = [model for model in figures if model != "two-tower"]
    return max(others, key=lambda model: figures[model]["recall@10"]["mean"])


# --- inside the model ---


def test_the_decay_is_that_of_the_saved_weights(run, tree):
    found: list[np.ndarray] = []
    with h5py.File(run.store.folder("train") / "model.weights.h5") as file:
        file.visititems(
            lambda name, x: found.append(x[()]) if name.endswith("encoder/vars/0") else None
        )
    (position,) = found
    shares = [math.exp(p) / sum(math.exp(q) for q in position) for p in position]
    drawn = chart(tree, "decays")
    (base,) = {
        float(n.attributes["y1"])
        for n in drawn.named("line")
        if n.attributes["y1"] == n.attributes["y2"] and n.attributes["stroke"] == "#333b41"
    }
    heights = base - points(drawn)[:, 1]
    assert heights / heights[0] == pytest.approx(np.array(shares) / shares[0], abs=0.002)
    latest = next(n for n in range(1, 5) if sum(shares[:n]) >= 0.5)
    text = f"the latest {latest} of 4 have half" if latest > 1 else "the latest of 4 alone"
    assert text in tree.of("towers").text()


def items_by_popularity(run: Run) -> list[dict[str, Any]]:
    return pq.read_table(run.store.folder("etl") / "items" / "raw.parquet").to_pylist()


def test_norms_and_biases_stand_against_popularity(run, finished, tree):
    vectors = finished.tower.vectors.astype(np.float64)
    counts = np.array([row["train_count"] for row in items_by_popularity(run)])
    met = counts > 0
    for name, values in (
        ("norms", np.sqrt((vectors[:, :8] ** 2).sum(axis=1))),
        ("biases", vectors[:, 8]),
    ):
        drawn = dots(chart(tree, name))
        assert lies_on_a_scale(drawn[:, 0], np.log(counts[met]), falling=False)
        assert lies_on_a_scale(drawn[:, 1], values[met], falling=True)


def title_of(run: Run, row: int) -> str:
    item = items_by_popularity(run)[row]
    return item["title"] or item["item_id"]


def test_neighbours_are_those_of_a_naive_search(run, finished, tree):
    vectors = finished.tower.vectors[:, :8].astype(np.float64)
    met = [i for i, row in enumerate(items_by_popularity(run)) if row["train_count"] > 0]
    caption = "The most popular items, and those nearest to them: cosine of the item embeddings"
    _, *body = rows(tree, caption)
    assert len(body) == 8
    for place, row in enumerate(body):
        item = met[place]
        cosines = {
            other: sum(a * b for a, b in zip(vectors[item], vectors[other], strict=True))
            / math.hypot(*vectors[item])
            / math.hypot(*vectors[other])
            for other in met
            if other != item
        }
        nearest = sorted(cosines, key=lambda other: -cosines[other])[:5]
        wanted = [f"{title_of(run, other)} {cosines[other]:.2f}" for other in nearest]
        assert row == [title_of(run, item), *wanted]


# --- users ---


def test_users_have_their_history_their_list_and_their_hits(run, finished, tree):
    """By the raw log and a ranking of the whole catalogue, item by item."""
    items = items_by_popularity(run)
    row_of = {item["item_id"]: row for row, item in enumerate(items)}
    users = pq.read_table(run.store.folder("etl") / "users" / "raw.parquet")["user_id"].to_pylist()
    before, everything = run.histories(withheld=1), run.histories()
    cards = tree.named("article")
    assert len(cards) == len(users) - 1 == 9
    lengths, hits = [], 0
    for shown in cards:
        user = shown.named("bdi")[0].text()
        history = [row_of[item] for item in before[user]]
        withheld = row_of.get(everything[user][-1])
        lengths.append(len(history))
        assert f"{len(history)} earlier interaction" in shown.named("h3")[0].text()
        (latest,), (ours,) = shown.named("ul"), shown.named("ol")
        wanted = [title_of(run, row) for row in history[::-1][:10]]
        assert [li.text() for li in latest.named("li")] == wanted
        query = Queries(
            np.array([users.index(user)]), Ragged(np.array(history), np.array([0, len(history)]))
        )
        vector = finished.tower.embed(query)[0].astype(np.float64)
        scores = (finished.tower.vectors.astype(np.float64) @ vector).astype(np.float32)
        order = sorted(set(range(len(items))) - set(history), key=lambda r: (-scores[r], r))[:10]
        hits += withheld in order
        marked = [title_of(run, row) + " ✓ hit" * (row == withheld) for row in order]
        assert [li.text() for li in ours.named("li")] == marked
        kind = ["hit" if row == withheld else None for row in order]
        assert [li.attributes.get("class") for li in ours.named("li")] == kind
        assert ("not in the list" in shown.text()) == (withheld not in order)
    assert lengths == sorted(lengths)
    assert hits > 0
    assert f"{hits} of them" in tree.of("users").text()


# --- card ---


def test_the_card_names_use_data_figures_limits_versions_and_hashes(run, markdown):
    titles = re.findall(r"^## (.*)$", markdown, re.MULTILINE)
    wanted = "Model, Intended use, Data, Evaluation, Limits, Training, Versions, Hashes"
    assert ", ".join(titles) == wanted
    manifest = read_json(run, "train", "manifest.json")
    for name, version in manifest["versions"].items():
        assert f"- {name} {version}" in markdown
    for name, digest in read_json(run, "etl", "report.json")["files"].items():
        assert f"| raw file {name} | {digest} |" in markdown
    for stage in ("etl", "train", "evaluate"):
        assert f"| stage {stage} | {run.store.digest(stage)} |" in markdown
    assert "tests run on a CPU" in markdown
    assert "may be later than a test row" in markdown
    assert re.search(r"query tower reads .*\bcity\b.*, of its users|reads [^.]*city", markdown)


# --- the stage ---


def test_two_reports_are_the_same_bytes(run, tmp_path):
    stages = ("etl", "train", "evaluate")
    other = run.branch(tmp_path / "run", stages=stages)
    report(other.recipe, other.store, CPU)
    assert_same(run, other)
    manifests = [r.store.read("report", run.recipe) for r in (run, other)]
    assert manifests[0].digest == manifests[1].digest
    assert set(manifests[0].inputs) == set(stages)


def assert_same(one: Run, other: Run) -> None:
    """Compare what two reports wrote, byte by byte."""
    for name in ("report.html", "model_card.md"):
        ours, theirs = (r.store.folder("report") / name for r in (one, other))
        assert ours.read_bytes() == theirs.read_bytes()


@pytest.mark.quality
def test_a_process_with_another_hash_seed_reports_the_same_bytes(run, tmp_path):
    stages = ("etl", "train", "evaluate")
    other = run.branch(tmp_path / "run", stages=stages)
    command = ["report", "--recipe", str(run.world.recipe_file), "--run", str(other.store.root)]
    done = subprocess.run(
        [sys.executable, "-m", "workflows", *command, "--device", "cpu", "--json"],
        cwd=ROOT,
        env={**os.environ, "PYTHONHASHSEED": "7"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    assert Path(told["page"]) == other.store.folder("report") / "report.html"
    assert_same(run, other)


@pytest.mark.parametrize("missing", ["etl", "train", "evaluate"])
def test_a_missing_stage_is_named_with_the_command_that_makes_it(run, tmp_path, missing):
    stages = tuple(s for s in ("etl", "train", "evaluate") if s != missing)
    other = run.branch(tmp_path, stages=stages)
    with pytest.raises(
        MissingStage, match=rf"{missing} is not there yet. Run `two-tower {missing}`"
    ):
        report(other.recipe, other.store, CPU)
    assert not other.store.folder("report").exists()


def test_a_stale_or_damaged_stage_is_refused(run, tmp_path):
    stages = ("etl", "train", "evaluate")
    other = run.branch(tmp_path / "stale", "evaluate.bootstrap=21", stages=stages)
    with pytest.raises(StaleInput, match=r"evaluate\.bootstrap was 20 and is 21 now\. Run `two-"):
        report(other.recipe, other.store, CPU)
    other = run.branch(tmp_path / "damaged", stages=stages)
    with (other.store.folder("evaluate") / "report.json").open("a") as file:
        file.write(" ")
    with pytest.raises(ArtifactError, match="Run `two-tower evaluate`"):
        report(other.recipe, other.store, CPU)


# --- what is absent is left out ---

BARE = (
    RECIPE.replace("  title: {role: item, kind: label}\n", "").replace(
        "split: {kind: leave_last, valid: 1, test: 1}",
        "split: {kind: random, valid: 0, test: 0.3, seed: 1}",
    )
    + """
model: {dim: 4, item_bias: false, normalize: true}
train: {epochs: 1, batch_size: 64}
evaluate: {ks: [2, 5], bootstrap: 20, baselines: []}
"""
)


@pytest.fixture(scope="module")
def bare(tmp_path_factory: pytest.TempPathFactory) -> Finished:
    """No history, labels, valid part, bias, norms, baselines."""
    made = make(tmp_path_factory.mktemp("bare"), BARE, seen={})
    report(made.recipe, made.store, CPU)
    return Finished.read(made.store, made.recipe)


def test_absent_things_are_left_out(bare):
    tree = Tree(page.render(bare))
    ids = {node.attributes.get("id") for node in tree.all}
    assert "towers" not in ids
    assert {"run", "data", "learning", "comparison", "segments", "neighbours", "users"} <= ids
    links = [a.attributes["href"] for a in tree.named("a")]
    assert "#towers" not in links
    assert {link.removeprefix("#") for link in links} <= ids
    curves = tree.of("learning")
    assert len(curves.named("svg")) == 1
    assert "the last epoch was kept" in curves.text()
    text = tree.of("comparison").text()
    assert "recall@2" in text
    assert "best baseline" not in tree.named("header")[0].text()
    assert not [t for t in tree.named("caption") if "Baselines" in t.text()]
    shown = {node.text() for node in tree.of("neighbours").named("bdi")}
    assert shown <= set(ITEMS) | {"ghost"}, "ids where there are no labels"
    assert "Left out" not in card.render(bare)


def test_no_segments_and_models_left_out(finished):
    scores = msgspec.structs.replace(
        finished.scores, segments={}, beside={}, left_out={"als": "needs <implicit>"}
    )
    other = dataclasses.replace(finished, scores=scores)
    source = page.render(other)
    tree = Tree(source)
    assert not [n for n in tree.all if n.attributes.get("id") == "segments"]
    assert "under other rules" not in source
    assert rows(tree, "Baselines left out") == [["model", "why"], ["als", "needs <implicit>"]]
    assert "- Left out: als: needs &lt;implicit&gt;" in card.render(other)


# --- axes, charts, numbers ---

VALUES = st.lists(st.floats(1e-3, 1e6), min_size=1, max_size=5)


@given(VALUES, st.booleans(), st.booleans())
def test_an_axis_holds_its_values_and_has_ticks(values, log, zero):
    axis = Axis.around("x", values, log=log, zero=zero and not log)
    places = axis.place(values)
    assert (places >= 0).all()
    assert (places <= 1).all()
    ticks = axis.ticks()
    assert 2 <= len(ticks) <= 15
    assert ((axis.place(ticks) >= -1e-6) & (axis.place(ticks) <= 1 + 1e-6)).all()
    order = np.argsort(values)
    assert (np.diff(places[order]) >= 0).all()


def test_ticks_are_round():
    assert Axis("x", 0, 1).ticks() == pytest.approx([0, 0.2, 0.4, 0.6, 0.8, 1])
    assert Axis("x", 0.5, 24.5, whole=True).ticks() == [5, 10, 15, 20]
    assert Axis("x", 0.5, 3.5, whole=True).ticks() == [1, 2, 3]
    assert Axis("x", 0.9, 1100, log=True).ticks() == [1, 10, 100, 1000]
    assert Axis("x", 0.9, 22, log=True).ticks() == [1, 2, 5, 10, 20]


def test_a_row_without_a_figure_stays_empty():
    text = Text("name", "title", "alt")
    drawn = Tree(
        ranges(text, {"a": [Range(0.5), None], "b": [Range(0.1, 0.0, 0.2), Range(0.3)]}, label="x")
    )
    assert len(drawn.named("path")) == 3
    assert len([n for n in drawn.named("line") if n.attributes["stroke-width"] == "2"]) == 1


def test_numbers_read_well():
    assert [numbers.share(v) for v in (0, 0.00016, 0.001, 0.428, 0.5, 1)] == [
        "0 %",
        "0.02 %",
        "0.1 %",
        "42.8 %",
        "50 %",
        "100 %",
    ]
    assert numbers.counted(1, "item") == "1 item"
    assert numbers.counted(2000, "item") == "2,000 items"
    settings = {"a": 1.0, "b": None, "c": True, "d": [1, 2], "e": "x"}
    assert numbers.settings(settings) == "a 1, b none, c yes, d [1, 2], e x"


def test_a_table_escapes_every_cell():
    tree = Tree(table("<c>", ("<h>",), [["<r>"]], marked="<r>"))
    assert [n.text() for n in tree.all if n.name in ("caption", "th")] == ["<c>", "<h>", "<r>"]
