"""model_card.md: what the model is for, from what, how good, where its limits lie.

The headings are those of Mitchell et al. 2019 (Model Cards for Model Reporting), section 4.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

from workflows.recipe import ByUser, GlobalTime, LeaveLast, RandomRows
from workflows.report import comparison, dataset, numbers, origin, segments
from workflows.report.finished import Finished


def render(finished: Finished) -> str:
    """Return the whole card."""
    recipe = finished.recipe
    lines = [f"# Model card: {plain(recipe.name)}", ""]
    if recipe.description:
        lines += [plain(recipe.description), ""]
    for title, body in (
        ("Model", _model(finished)),
        ("Intended use", _use(finished)),
        ("Data", _data(finished)),
        ("Evaluation", _evaluation(finished)),
        ("Limits", _listed(_limits(finished))),
        ("Training", _training(finished)),
        ("Versions", _listed(f"{n} {v}" for n, v in finished.manifests["train"].versions.items())),
        ("Hashes", _table(["of", "SHA-256"], [*map(list, origin.hashes(finished).items())])),
    ):
        lines += [f"## {title}", "", *body, ""]
    return "\n".join(lines).rstrip() + "\n"


def plain(text: str) -> str:
    """Return a text that Markdown shows as it is, on one line; links, tags and tables are none."""
    text = " ".join(text.split())
    for sign, entity in (("&", "&amp;"), ("<", "&lt;"), (">", "&gt;")):
        text = text.replace(sign, entity)
    # within a word an underscore is one, and a bracket is one unless a target may follow
    text = re.sub(r"[\\`*|~#]|(?<!\w)_|_(?!\w)|\](?=[(\[:])", r"\\\g<0>", text)
    # lists and rules are made by how a line begins
    return re.sub(r"^(\d*)([-+=.)])(?=[\s=-]|$)", r"\1\\\2", text)


def _listed(texts: Iterator[str]) -> Iterator[str]:
    for text in texts:
        yield f"- {plain(text)}"


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> Iterator[str]:
    yield "| " + " | ".join(map(plain, head)) + " |"
    yield "|" + " --- |" * len(head)
    for row in rows:
        yield "| " + " | ".join(map(plain, row)) + " |"


def _model(finished: Finished) -> Iterator[str]:
    yield (
        "A two-tower retrieval model on NVIDIA Merlin: one tower embeds who asks, the other each "
        "item, and the score is the dot product of the two."
    )
    yield ""
    yield from _listed(f"{name}: {text}" for name, text in origin.model_facts(finished).items())


def _use(finished: Finished) -> Iterator[str]:
    candidates = finished.scores.headline.protocol.n_candidates
    yield (
        f"Candidate retrieval: from a catalogue of {candidates:,} items, the few dozen or hundred "
        "that a user may like next, for a ranker or for people to look at. Users and items like "
        "those in the data below."
    )
    yield ""
    yield (
        "Not meant for: final ranking by price, margin or availability, which it does not know; "
        "decisions about people; data other than that of its recipe."
    )


def _data(finished: Finished) -> Iterator[str]:
    yield from _listed(dataset.sentences(finished))
    yield from _listed(iter([dataset.head_share(finished.item_counts)]))


def _evaluation(finished: Finished) -> Iterator[str]:
    yield plain(f"Protocol: {finished.scores.headline.protocol.sentence}.")
    yield plain(comparison.population(finished))
    yield ""
    yield from _table(*comparison.comparison_table(finished))
    yield ""
    yield plain(
        "Intervals are bootstrap intervals over users; differences are taken user by user, and one "
        "above 0 says that the two-tower is better."
    )
    if finished.scores.opponents:
        yield ""
        yield "The baselines and their parameters, chosen on the validation part:"
        yield ""
        yield from _table(*comparison.opponents_table(finished))
    if finished.scores.left_out:
        yield ""
        yield from _listed(f"Left out: {n}: {why}" for n, why in finished.scores.left_out.items())
    if finished.scores.segments:
        yield ""
        yield plain(f"{finished.metric} by segment:")
        yield ""
        yield from _table(*segments.segments_table(finished))


def _limits(finished: Finished) -> Iterator[str]:
    recipe, scores = finished.recipe, finished.scores
    split = recipe.split
    if isinstance(split, LeaveLast):
        yield (
            "Each user's last interactions are the test part, so training rows of other users may "
            "be later than a test row: what became popular meanwhile is known to every model here."
        )
    elif isinstance(split, RandomRows):
        yield (
            "Test rows were drawn at random, so training has seen the users' future: figures are "
            "higher than in use."
        )
    elif isinstance(split, GlobalTime):
        yield "One cut in time: another season may give other figures."
    elif isinstance(split, ByUser):
        yield "Test users are unknown in training: figures of known users are not here."
    yield (
        f"One training seed ({recipe.train.seed}): the intervals hold the draw of the users, not "
        "the spread between seeds."
    )
    yield (
        "Logged interactions show what people were offered and took. An item that nobody was "
        "shown counts as a miss, and a model that is put to use changes what is logged next."
    )
    if cold := scores.segments.get("targets_cold"):
        figure = cold.metrics[scores.ours][finished.metric]
        yield (
            f"Items that training never met: {finished.metric} {numbers.with_interval(figure)} on "
            f"{numbers.counted(cold.targets, 'held-out row')}."
        )
    bias = scores.catalogue[scores.ours].get(f"popularity_bias@{finished.k}")
    yield (
        f"Popularity: the mean popularity percentile of what it shows is "
        f"{numbers.score(bias, form='.3f')} (0.5 for random lists, near 1 for the head alone)."
    )
    people = [c for c in finished.model.query_encoder.schema.column_names if c in recipe.features]
    people = [c for c in people if c != recipe.user_id and recipe.features[c].role == "user"]
    if people:
        yield (
            f"The query tower reads {', '.join(people)} of its users. How good it is for the "
            "groups that these make was not measured."
        )


def _training(finished: Finished) -> Iterator[str]:
    manifest, best = finished.manifests["train"], finished.best
    seconds = sum(epoch.seconds for epoch in finished.epochs)
    yield from _listed(
        iter(
            [
                f"{numbers.counted(len(finished.epochs), 'epoch')} of up to "
                f"{finished.recipe.train.epochs} over {manifest.rows['train']:,} rows"
                f"{_capped(finished)}, {seconds:,.0f} s on the {manifest.device} "
                f"({manifest.device_why}).",
                f"Epoch {best.epoch + 1} was kept: {_figures_of(finished)}.",
                f"Made {manifest.created}.",
            ]
        )
    )


def _capped(finished: Finished) -> str:
    most = finished.recipe.train.max_rows_per_user
    return "" if most is None else f" (up to {most} of a user in an epoch)"


def _figures_of(finished: Finished) -> str:
    wanted = ("loss", f"val_{finished.metric}", finished.recipe.train.monitor)
    metrics = finished.best.metrics
    shown = dict.fromkeys(name for name in wanted if name in metrics)
    return ", ".join(f"{name} {numbers.score(metrics[name])}" for name in shown)
