"""The page and the model card, against the files of the stages."""

from __future__ import annotations

import dataclasses
import html
import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any
from xml.etree import ElementTree
from xml.etree.ElementTree import Element

import msgspec
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st
from markdown_it import MarkdownIt
from tampering import link_weights, resign
from tiny_run import CPU, SETTINGS, Run, steps_run_eagerly
from world import ITEMS, RECIPE, World

from workflows.etl import etl
from workflows.evaluate import evaluate
from workflows.ground.errors import ArtifactError, MissingStage, StaleInput
from workflows.report import card, charts, numbers, page, report
from workflows.report.finished import Finished
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


@pytest.fixture(scope="module")
def tree(source: str) -> Element:
    """The page, which is XML, too."""
    return ElementTree.fromstring(source)


def read_json(run: Run, stage: str, name: str) -> Any:
    return json.loads((run.store.folder(stage) / name).read_bytes())


def text(node: Element | None) -> str:
    assert node is not None
    return " ".join("".join(node.itertext()).split())


def of(tree: Element, name: str) -> Element:
    """Return the element with an id."""
    (node,) = tree.findall(f".//*[@id='{name}']")
    return node


def rows(tree: Element, caption: str) -> list[list[str]]:
    """Return the cells of a table, its head first."""
    (table,) = [t for t in tree.iter("table") if text(t.find("caption")) == caption]
    return [[text(cell) for cell in row] for row in table.iter("tr")]


# --- one page that needs nothing else ---


def test_the_page_is_one_well_formed_document_without_anything_from_outside(source, tree):
    assert source.startswith("<!DOCTYPE html>\n")
    for node in tree.iter():
        assert node.tag.rpartition("}")[2] not in {"script", "img", "link", "iframe", "object"}
        for name, value in node.attrib.items():
            assert name not in {"src", "srcset", "action", "background"}
            assert not name.startswith("on")
            if name.endswith("href"):
                assert of(tree, value.removeprefix("#")) is not None
    addresses = set(re.findall(r"\w+://[^\"]*", source))
    assert addresses <= {"http://www.w3.org/2000/svg", "http://www.w3.org/1999/xlink"}
    for name in re.findall(r"url\((.*?)\)", source):
        assert of(tree, name.removeprefix("#")) is not None
    assert "@import" not in source
    policies = [meta.get("content", "") for meta in tree.iter("meta") if meta.get("http-equiv")]
    assert [policy[:18] for policy in policies] == ["default-src 'none'"]


def test_ids_are_unique_and_every_picture_says_what_it_shows(tree):
    ids = [node.get("id") for node in tree.iter() if node.get("id")]
    assert len(ids) == len(set(ids))
    pictures = tree.findall(".//*[@role='img']")
    assert len(pictures) == (11 if charts.can_draw() else 0)
    for picture in pictures:
        assert len(picture.get("aria-label", "")) > 20
        assert len(list(picture)) == 1
    for figure in tree.iter("figure"):
        assert text(figure.find("figcaption"))
    for table in tree.iter("table"):
        assert text(table.find("caption"))
        assert {head.get("scope") for head in table.iter("th")} <= {"row", "col"}
    assert tree.get("lang") == "en"
    links = [node.get("href", "") for node in tree.iter("a")]
    assert links == [f"#{section.get('id')}" for section in tree.iter("section")]


def test_what_comes_from_the_data_is_text_and_no_markup(source, tree, markdown):
    assert "<script" not in source
    assert "<img" not in source
    assert {HOSTILE, RTL} <= {text(node) for node in tree.iter("bdi")}
    assert DESCRIPTION in {text(node) for node in tree.iter("p")}
    shown = MarkdownIt("commonmark").enable("table").render(markdown)
    assert html.escape(DESCRIPTION, quote=False) in shown
    harmless = r"h[12]|p|ul|li|table|thead|tbody|t[rhd]"
    assert [n for n in re.findall(r"<(\w+)", shown) if not re.fullmatch(harmless, n)] == []


@given(st.text(st.sampled_from(list("ab1 .)(-+=_*`~#|[]:!<>&;\\\"'\n"))) | st.text())
def test_any_text_is_read_back_from_markdown(text):
    flat = " ".join(text.replace("\x00", "").split())
    for start in ("", "x "):
        shown = MarkdownIt("commonmark").enable("table").render(start + card.plain(flat))
        if flat:
            assert html.unescape(shown) == f"<p>{start}{flat}</p>\n"


def test_without_matplotlib_the_page_has_its_tables_and_says_what_is_missing(
    run, finished, tree, monkeypatch
):
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    assert not charts.can_draw()
    bare = ElementTree.fromstring(page.render(finished))
    assert not bare.findall(".//*[@role='img']")
    assert "they need matplotlib" in text(bare.find(".//header"))
    assert rows(bare, "All models, the best first") == rows(tree, "All models, the best first")
    assert "goes from" in text(of(bare, "learning"))


def test_in_a_browser_every_text_can_be_read_and_nothing_else_is_loaded(run, tmp_path):
    browser = pytest.importorskip("browser")
    if not browser.CHROMIUM:
        pytest.skip("no Chromium is installed here")
    address = (run.store.folder("report") / "report.html").as_uri()
    with browser.opened(tmp_path / "profile") as shown:
        asked: list[str] = []
        said: list[str] = []
        shown.on("request", lambda request: asked.append(request.url))
        shown.on("console", lambda message: said.append(message.text))
        for scheme, paper in (("light", "rgb(255, 255, 255)"), ("dark", "rgb(20, 24, 28)")):
            shown.emulate_media(color_scheme=scheme)
            shown.goto(address)
            assert shown.evaluate("getComputedStyle(document.body).backgroundColor") == paper
            assert shown.evaluate(browser.CONTRAST) >= 4.5  # WCAG 2.2, 1.4.3
        shown.set_viewport_size({"width": 360, "height": 740})
        assert shown.evaluate("document.documentElement.scrollWidth") <= 360
    assert asked == [address] * 2
    assert said == []


# --- facts against the files of the stages ---


def test_the_data_section_counts_what_etl_counted(run, tree, markdown):
    data = read_json(run, "etl", "report.json")
    said = text(of(tree, "data"))
    for fact in (
        "Read: " + ", ".join(f"{name} {n:,}" for name, n in data["read"].items()),
        "Interactions: " + ", ".join(f"{part} {n:,}" for part, n in data["rows"].items()),
        f"{data['users']['rows']} users, {data['users']['rows'] - data['users']['in_train']} of",
        f"{data['items']['rows']} items, {data['items']['rows'] - data['items']['in_train']} of",
    ):
        assert fact in said
        assert fact in markdown
    dropped = {cause: n for cause, n in data["dropped"].items() if n}
    assert len(dropped) >= 4
    assert ", ".join(f"{cause} {n}" for cause, n in dropped.items()) in said
    head, *body = rows(tree, "Cells that are unseen or null")
    shown = {row[0]: row[1:] for row in body}
    assert head[1:] == [f"{w} in {p}" for w in ("unseen", "null") for p in data["rows"]]
    for column in data["null"]["train"]:
        shares = [data[w][p][column] for w in ("unseen", "null") for p in data["rows"]]
        if any(shares):
            values = [float(cell.removesuffix(" %")) / 100 for cell in shown[column]]
            assert values == pytest.approx(shares, abs=0.0005)
        else:
            assert column not in shown
            assert column in said


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
    assert f"{scores['headline']['protocol']['n_candidates']} items" in text(of(tree, "comparison"))
    chosen = {
        row[0]: row for row in rows(tree, "Baselines: fitted on train, parameters chosen on valid")
    }
    for name, note in scores["baselines"].items():
        assert chosen[name][2] == str(note["tried"])
        where = f"at the edge of {' and '.join(note['edge'])}" if note.get("edge") else "inside"
        assert chosen[name][3] == (where if note["tried"] > 1 else "")
        for parameter, value in note["parameters"].items():
            assert f"{parameter} {value:g}" in chosen[name][1]
    for name, block in scores["beside"].items():
        row = next(r for r in rows(tree, "The same lists under other rules") if r[0] == name)
        ours = block["metrics"]["two-tower"]
        value = ours.get("recall@10", ours.get("accuracy@10"))
        chance = block["chance"].get("recall@10")
        assert row[2] == ("" if chance is None else f"{chance:.4f}")
        assert row[3] == f"{value['mean']:.4f}"


def test_segments_are_those_of_evaluate(run, tree):
    scores = read_json(run, "evaluate", "report.json")
    head, *body = rows(tree, "recall@10 by segment")
    assert len(body) == len(scores["segments"]) > 4
    for block, row in zip(scores["segments"].values(), body, strict=True):
        assert row[:3] == [block["what"], str(block["users"]), str(block["targets"])]
        values = [f"{block['metrics'][model]['recall@10']['mean']:.4f}" for model in head[3:]]
        assert row[3:] == values


# --- items and users by name ---


def names_of(run: Run) -> list[str]:
    items = pq.read_table(run.store.folder("etl") / "items" / "raw.parquet").to_pylist()
    return [" ".join((item["title"] or item["item_id"]).split()) for item in items]


def test_neighbours_are_named(run, finished, tree):
    names = names_of(run)
    caption = "The most popular items, and those nearest to them: cosine of the item embeddings"
    _, *body = rows(tree, caption)
    assert len(body) == 8
    for near, row in zip(finished.inside.neighbours, body, strict=True):
        pairs = zip(near.items, near.cosines, strict=True)
        assert row == [names[near.item], *(f"{names[i]} {cosine:.2f}" for i, cosine in pairs)]


def test_users_have_their_history_their_list_and_their_hits(run, finished, tree):
    names, everything = names_of(run), run.histories()
    cards = list(tree.iter("article"))
    hits = 0
    assert len(cards) == len(finished.inside.examples) == 9
    for example, shown in zip(finished.inside.examples, cards, strict=True):
        user = text(shown.find(".//bdi"))
        assert f"{example.n_earlier} earlier interaction" in text(shown.find("h3"))
        assert example.n_earlier == len(everything[user]) - 1
        latest = [text(li) for li in shown.findall(".//ul/li")]
        assert latest == [names[row] for row in example.latest]
        is_hit = [row in example.withheld for row in example.recommended]
        ours = shown.findall(".//ol/li")
        marked = [names[r] + " ✓ hit" * h for r, h in zip(example.recommended, is_hit, strict=True)]
        assert [text(li) for li in ours] == marked
        assert [li.get("class") for li in ours] == [{True: "hit"}.get(hit) for hit in is_hit]
        assert ("(not in the list)" in text(shown)) == (not any(is_hit))
        hits += any(is_hit)
    assert hits > 0
    assert f"{hits} of them" in text(of(tree, "users"))


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
    tree = ElementTree.fromstring(page.render(bare))
    sections = {section.get("id") for section in tree.iter("section")}
    everything = {"run", "data", "learning", "comparison", "segments", "neighbours", "users"}
    assert sections == everything | {"files"}  # and no "towers"
    curves = of(tree, "learning")
    assert len(list(curves.iter("figure"))) == 1
    assert "the last epoch was kept" in text(curves)
    assert "recall@2" in text(of(tree, "comparison"))
    assert "best baseline" not in text(tree.find(".//header"))
    assert not [t for t in tree.iter("caption") if "Baselines" in text(t)]
    shown = {text(node) for node in of(tree, "neighbours").iter("bdi")}
    assert shown <= set(ITEMS) | {"ghost"}, "ids where there are no labels"
    assert "Left out" not in card.render(bare)


def test_no_segments_and_models_left_out(finished):
    scores = msgspec.structs.replace(
        finished.scores, segments={}, beside={}, left_out={"als": "needs <implicit>"}
    )
    other = dataclasses.replace(finished, scores=scores)
    source = page.render(other)
    tree = ElementTree.fromstring(source)
    assert not tree.findall(".//*[@id='segments']")
    assert "under other rules" not in source
    assert rows(tree, "Left out") == [["model", "why"], ["als", "needs <implicit>"]]
    assert "- Left out: als: needs &lt;implicit&gt;" in card.render(other)


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


# ── runs that somebody else wrote ───────────────────────────────────────────────────────


def test_the_weights_are_not_loaded(run: Run, tmp_path: Path):
    planted = run.branch(tmp_path / "planted", stages=("etl", "train", "evaluate"))
    link_weights(planted.store.folder("train") / "model.weights.h5", tmp_path / "secret.h5")
    resign(planted.store.folder("train"))
    report(planted.recipe, planted.store, CPU)


@pytest.mark.parametrize(
    "name",
    [
        "etl/report.json",
        "train/model.history.json",
        "train/times.json",
        "evaluate/report.json",
        "evaluate/inside.json",
    ],
)
def test_figures_of_another_form_are_refused(run: Run, tmp_path: Path, name: str):
    planted = run.branch(tmp_path / "planted", stages=("etl", "train", "evaluate"))
    (planted.store.root / name).write_text('{"rows": null}')
    resign(planted.store.root / name.partition("/")[0])
    with pytest.raises(ArtifactError, match=re.escape(f"{planted.store.root / name}")):
        report(planted.recipe, planted.store, CPU)
