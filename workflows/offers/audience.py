"""Queries an export of offer models: the audience (best users) of an offer, and similar offers."""

from __future__ import annotations

import re
import time
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import tensorflow as tf

from models.core.columns import as_array, read_columns
from models.core.retriever import Floats, Ints
from models.offers.offers import Offers, items_as_offers, offers_of
from models.offers.similarity import unit_vectors
from workflows.ground import trust
from workflows.ground.column_names import EMBEDDING, RANK, SCORE
from workflows.ground.errors import DataError
from workflows.ground.stage_content import reading
from workflows.ground.vocabulary import Vocabulary
from workflows.recipe import Recipe
from workflows.stages.export import ExportFiles
from workflows.stages.store import Store
from workflows.towers import selfcheck

#: Number of users that are scored at a time.
_BLOCK = 20_000


@dataclass(frozen=True)
class AudienceResult:
    """The audience of an offer: the users with the highest scores for it.

    Attributes:
        users: raw ids, ranks and scores of users, best first.
        events: number of logged events that describe the offer.
        seconds: duration of the whole verb.
    """

    users: list[dict[str, Any]]
    events: int
    seconds: float


def audience(recipe: Recipe, store: Store, text: str, *, k: int = 10) -> AudienceResult:
    """Rank users for an offer.

    Scores order the users of one offer; scores of different offers cannot be compared. Users with
    equal scores are returned in the order of the user table.

    Args:
        recipe: the recipe of the run.
        store: the folder of the run, with its finished stages.
        text: the definition of the offer: one or more texts `attribute=value`, separated by commas.
        k: number of users to return.

    Raises:
        DataError: an attribute or a value is unknown, or no event has all values.
        MissingStage, StaleInput, ArtifactError: the export is missing, stale or damaged.
    """
    start = time.perf_counter()
    export = OfferExport.open(store, recipe)
    offers, events = export.described(text)
    scores = export.scores(export.embed_offers(offers))[:, 0]
    order = np.argsort(-scores, kind="stable")[:k]
    users = [
        {recipe.user_id: user, RANK: rank, SCORE: float(score)}
        for rank, (user, score) in enumerate(
            zip(
                export.user_ids.take(pa.array(order)).to_pylist(),
                scores[order],
                strict=True,
            ),
            start=1,
        )
    ]
    return AudienceResult(users, events, time.perf_counter() - start)


def similar(recipe: Recipe, store: Store, text: str, *, k: int = 10) -> list[dict[str, Any]]:
    """Return the offers of the same attribute that are most similar to an offer, best first.

    Args:
        recipe: the recipe of the run.
        store: the folder of the run, with its finished stages.
        text: the offer, `attribute=value`.
        k: number of offers to return.

    Raises:
        DataError: the offer was not exported.
    """
    export = OfferExport.open(store, recipe)
    wanted = parsed(text, recipe.offer_attributes)
    if len(wanted) != 1:
        raise DataError(f"--offer {text!r}: expected one attribute=value, such as brand=x.")
    ((attribute, value),) = wanted.items()
    values, vectors = export.embeddings(attribute)
    place = pc.index(values, value).as_py()
    if place < 0:
        raise DataError(f"There is no offer {attribute} = {value!r} in the export.")
    unit = unit_vectors(vectors)
    cosines = unit @ unit[place]
    order = np.argsort(-cosines, kind="stable")
    order = order[order != place][:k]
    return [
        {attribute: values[int(i)].as_py(), RANK: rank, "cosine": float(cosines[i])}
        for rank, i in enumerate(order, start=1)
    ]


def parsed(text: str, attributes: list[str]) -> dict[str, str]:
    """Parse an offer to a map from attributes to values; commas within a value are kept.

    Raises:
        DataError: the text has another form, or an attribute is unknown or repeated.
    """
    names = "|".join(map(re.escape, attributes))
    found: dict[str, str] = {}
    for part in re.split(rf",(?=(?:{names})=)", text):
        name, equals, value = part.partition("=")
        if not equals or name not in attributes or name in found:
            raise DataError(
                f"--offer {text!r}: expected attribute=value, each once, with commas between; "
                f"attributes are {', '.join(attributes)}."
            )
        found[name] = value
    return found


@dataclass(frozen=True)
class OfferExport:
    """An export of offer models, read for queries on audiences and similar offers.

    Attributes:
        folder: the folder of the export stage.
        recipe: the recipe of the run.
    """

    folder: Path
    recipe: Recipe

    @classmethod
    def open(cls, store: Store, recipe: Recipe) -> OfferExport:
        """Return the run's export of offer models, after a check of its stages.

        Raises:
            MissingStage, StaleInput, ArtifactError: the stages are missing, stale or damaged.
        """
        store.read("export", recipe)
        return cls(store.folder("export"), recipe)

    @cached_property
    def user_ids(self) -> pa.StringArray:
        """Raw user ids, in the order of the user embeddings."""
        path, name = self.folder / selfcheck.USERS, self.recipe.user_id
        with reading(path, "export"):
            return pq.read_table(path, columns=[name])[name].combine_chunks()

    @cached_property
    def users(self) -> Floats:
        """User embeddings, float32 [n_users, …]."""
        path = self.folder / selfcheck.USER_VECTORS
        with reading(path, "export"):
            return np.load(path, allow_pickle=False)

    def embeddings(self, attribute: str) -> tuple[pa.ChunkedArray, Floats]:
        """Return an attribute's values and their offers' embeddings, float32 [n_offers, …].

        Raises:
            DataError: the offers of the attribute were not exported.
        """
        path = self.folder / "offer_embeddings" / f"{attribute}.parquet"
        if not path.is_file():
            raise DataError(
                f"Offers of {attribute!r} were not exported; tasks.attributes of the recipe says "
                f"which are: {', '.join(self.recipe.offer_tasks)}."
            )
        with reading(path, "export"):
            table = pq.read_table(path)
            shape = [int(n) for n in table.schema.metadata[b"shape"].decode().split("x")]
            vectors = table[EMBEDDING].combine_chunks()
            return table["value"], vectors.flatten().to_numpy().reshape(len(vectors), *shape)

    def described(self, text: str) -> tuple[Offers, int]:
        """Return an offer, described by its events in all parts, and the number of these events.

        Raises:
            DataError: an attribute or a value is unknown, or no event has all values.
        """
        wanted = parsed(text, self.recipe.offer_attributes)
        codes = {name: self._code(name, value) for name, value in wanted.items()}
        path = ExportFiles(self.folder).events
        with reading(path, "export"):
            events = {n: as_array(c) for n, c in read_columns(path).items()}
        chosen = np.all([events[name] == code for name, code in codes.items()], axis=0)
        n = int(chosen.sum())
        if not n and len(codes) > 1:
            raise DataError(
                f"--offer {text!r}: no event has all of these values, so the offer cannot be "
                "described. Name fewer attributes."
            )
        groups = np.where(chosen, 0, -1)
        offers = offers_of(groups, events, n_offers=1, top=self.recipe.tasks.top)
        defining: dict[str, Ints] = {name: np.array([code]) for name, code in codes.items()}
        return {**offers, **items_as_offers(defining)}, n

    def _code(self, attribute: str, value: str) -> int:
        """Return the vocabulary code of an attribute's value.

        Raises:
            DataError: the value is unknown.
        """
        path = ExportFiles(self.folder).vocabularies / f"{attribute}.parquet"
        known = Vocabulary.read(path)
        code = int(known.encode(pa.array([value]))[0])
        if code < known.first_code:
            raise DataError(
                f"{attribute} = {value!r} is not in the vocabulary: training has too few events "
                f"with it ({path} lists the known values)."
            )
        return code

    def embed_offers(self, offers: Offers) -> Floats:
        """Return embeddings of offers by the exported offer tower, float32 [n_offers, …]."""
        tower = _signature(self.folder / "offer_tower")
        names = {key.rpartition("__")[0] for key in tower.structured_input_signature[1]}
        inputs: dict[str, tf.Tensor] = {}
        for name in names:
            lists, weights = offers[name].lists, offers[name].weights
            inputs[f"{name}__values"] = tf.constant(lists.values, tf.int32)
            inputs[f"{name}__offsets"] = tf.constant(lists.offsets, tf.int32)
            inputs[f"{name}__weights"] = tf.constant(weights)
        return tower(**inputs)["offers"].numpy()

    def scores(self, offers: Floats) -> Floats:
        """Return the scores of all pairs of users and offers, float32 [n_users, n_offers]."""
        scorer = _signature(self.folder / "scorer")
        starts = range(0, len(self.users), _BLOCK)
        parts = [
            scorer(
                users=tf.constant(self.users[start : start + _BLOCK]), offers=tf.constant(offers)
            )
            for start in starts
        ]
        return np.concatenate([part["scores"].numpy() for part in parts])


def _signature(folder: Path) -> Any:
    trust.refuse_unsafe_model(folder)
    with reading(folder, "export"):
        loaded = tf.saved_model.load(str(folder))
        signature = loaded.signatures["serving_default"]
    signature.owner = loaded  # a signature alone does not keep its variables alive
    return signature
