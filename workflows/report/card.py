"""Writes model_card.md: the purpose of the model, its data, its quality and its limits.

The headings are those of Mitchell et al. 2019 (Model Cards for Model Reporting), section 4.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from markupsafe import Markup

from workflows.recipe import ByUser, GlobalTime, LeaveLast, RandomRows
from workflows.report import comparison, dataset, numbers, origin, segments
from workflows.report.finished import Finished
from workflows.report.rendering import template


def render(finished: Finished) -> str:
    """Return the whole model card, Markdown, of a model that ranks the items of a catalogue."""
    return template("model_card.md", finalize=escaped).render(
        finished=finished,
        protocol=finished.scores.headline.protocol,
        population=comparison.population(finished),
        facts=origin.model_facts(finished),
        data=[*dataset.sentences(finished), dataset.head_share(finished.item_counts)],
        comparison=comparison.table(finished),
        baselines=comparison.baselines(finished),
        segments=segments.table(finished),
        limits=list(_limits(finished)),
        training=list(_training(finished)),
        hashes=origin.hashes(finished),
    )


def escaped(value: object) -> Markup:
    """Return a value of the model card: markup unchanged, other text escaped for Markdown."""
    return value if isinstance(value, Markup) else Markup(plain(str(value)))


def plain(text: str) -> str:
    """Return Markdown that shows a text as it is, on one line, without links, tags or tables."""
    text = " ".join(text.split())
    for sign, entity in (("&", "&amp;"), ("<", "&lt;"), (">", "&gt;")):
        text = text.replace(sign, entity)
    # an underscore within a word has no meaning, and a bracket none unless a target may follow
    text = re.sub(r"[\\`*|~#]|(?<!\w)_|_(?!\w)|\](?=[(\[:])", r"\\\g<0>", text)
    # Markdown knows lists and rules by the beginning of a line
    return re.sub(r"^(\d*)([-+=.)])(?=[\s=-]|$)", r"\1\\\2", text)


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
        "Logged interactions show what people were offered and took. An item that was never "
        "shown counts as a miss, and a model in use changes what is logged next."
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
    people = [c for c in finished.inside.query_inputs if c in recipe.features]
    people = [c for c in people if c != recipe.user_id and recipe.features[c].role == "user"]
    if people:
        yield (
            f"The query tower reads {', '.join(people)} of its users. How good it is for the "
            "groups that these make was not measured."
        )


def _training(finished: Finished) -> Iterator[str]:
    manifest, best, config = finished.manifests["train"], finished.best, finished.recipe.train
    most = config.max_rows_per_user
    capped = "" if most is None else f" (up to {most} of a user in an epoch)"
    seconds = sum(epoch.seconds for epoch in finished.epochs)
    yield (
        f"{numbers.counted(len(finished.epochs), 'epoch')} of up to {config.epochs} over "
        f"{manifest.rows['train']:,} rows{capped}, {seconds:,.0f} s on the {manifest.device} "
        f"({manifest.device_why})."
    )
    wanted = dict.fromkeys(("loss", f"val_{finished.metric}", config.monitor))
    figures = [f"{n} {numbers.score(best.metrics[n])}" for n in wanted if n in best.metrics]
    yield f"Epoch {best.epoch + 1} was kept: {', '.join(figures)}."
    yield f"Made {manifest.created}."
