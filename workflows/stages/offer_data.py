"""Reads the etl stage of a recipe with offer models, and the weights of these models."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache, cached_property

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from models.core.columns import USER_ROW, Column, as_array, concatenate
from models.core.partitions import PartitionInMemory, Partitions
from models.core.retriever import Ints
from models.core.user_sample import ALL_USERS, UserSample
from models.offers import model as noun
from models.offers.batches import DayLoader, day_batches
from models.offers.config import OfferModel, OffersConfig
from models.offers.model import InferenceModel, Model
from models.offers.pairs import Pairs
from models.towers.schema_file import read_schema
from models.training.batches import Batches
from workflows.ground.errors import RecipeError, StaleInput
from workflows.ground.stage_content import reading
from workflows.recipe import Recipe
from workflows.stages.etl import LATEST, Prepared
from workflows.stages.store import Store
from workflows.stages.train_files import TrainFiles


@dataclass(frozen=True)
class OfferData:
    """The encoded data of a recipe with offer models, and the models that are fitted to it.

    Attributes:
        prepared: the encoded data of the etl stage.
    """

    prepared: Prepared

    @classmethod
    def open(cls, store: Store, recipe: Recipe) -> OfferData:
        """Check that the etl stage fits a recipe with offer models, and return its content.

        Raises:
            MissingStage, StaleInput, ArtifactError: the etl stage is missing, stale or damaged.
        """
        prepared = Prepared.open(store, recipe)
        if not prepared.files.parts(LATEST):
            raise StaleInput(
                f"{prepared.folder} was made before the recipe had models of offers. Run "
                "`two-tower etl` (or `make etl`) again."
            )
        return cls(prepared)

    @property
    def recipe(self) -> Recipe:
        """The recipe that the etl stage was made from."""
        return self.prepared.recipe

    @property
    def config(self) -> OffersConfig:
        """The block `model` of the recipe: the settings of the offer models."""
        assert isinstance(self.recipe.model, OffersConfig)
        return self.recipe.model

    @property
    def attributes(self) -> list[str]:
        """The item attributes (such as brand) whose values can define an offer."""
        return self.recipe.offer_attributes

    @property
    def tasks(self) -> list[str]:
        """The names of the attributes whose values are the offers of evaluation and export."""
        return self.recipe.offer_tasks

    @property
    def compared(self) -> dict[str, OfferModel]:
        """The settings, by name, of offer models that use all attributes; these are comparable."""
        return {
            name: blocks for name, blocks in self.config.models.items() if not blocks.attributes
        }

    @cached_property
    def latest(self) -> dict[str, Column]:
        """The final histories of users, with all events, [n_users], by history column."""
        assert self.recipe.history is not None
        return self.prepared.part(LATEST, list(self.recipe.history.inputs))

    @cached_property
    def user_ids(self) -> pa.StringArray:
        """Raw user ids in the order of the histories in `latest`."""
        name = self.recipe.user_id
        with reading(self.prepared.files.table(LATEST), "etl"):
            column = pq.read_table(self.prepared.files.parts(LATEST), columns=[name])[name]
            return column.combine_chunks()

    def events(self, *parts: str) -> dict[str, Ints]:
        """Return the attribute codes of the target events in some parts of the split."""
        found = [self._codes(part) for part in parts]
        return {name: np.concatenate([codes[name] for codes in found]) for name in self.attributes}

    @cached_property
    def _codes(self) -> Callable[[str], dict[str, Ints]]:
        # evaluate and export describe the offers of every task by the events of the same part
        return cache(self._read_codes)

    def _read_codes(self, part: str) -> dict[str, Ints]:
        columns = self.prepared.part(part, self.attributes)
        return {name: as_array(codes) for name, codes in columns.items()}

    def values(self, attribute: str) -> tuple[Ints, list[str]]:
        """Return an attribute's known values and their codes, by ascending code.

        Null and empty values are left out, because they cannot define an offer.
        """
        vocabulary = self.prepared.vocabularies[attribute]
        chosen = pc.not_equal(vocabulary.values, "").to_numpy(zero_copy_only=False)
        codes = vocabulary.first_code + np.flatnonzero(chosen)
        return codes, vocabulary.decode(codes).to_pylist()

    def batches(self, part: str, *, seed: int, names: list[str]) -> Batches:
        """Return the mini-batches of training rows with which an offer model is fitted.

        Raises:
            RecipeError: the batch size is not a multiple of 1 + the number of negatives, or there
                are too few rows.
        """
        read = dict.fromkeys([*names, USER_ROW, *filter(None, [self.recipe.time])])
        rows = self.prepared.partitions(part, list(read))
        return self._batches(part, rows, seed=seed, names=names, drop_last=True)

    def pairs(self, part: str, *, seed: int, sample: UserSample = ALL_USERS) -> Pairs | None:
        """Return the held-out events of a part in mini-batches; None if the part has no events.

        Args:
            part: the name of the part, `valid` or `test`.
            seed: the random seed by which events are put into mini-batches.
            sample: the sample of the part's users whose events are taken.
        """
        rows = PartitionInMemory(self.prepared.rows_of_sample(part, sample))
        if not rows.n_rows.sum():
            return None
        names = [*self.attributes, *self.latest, USER_ROW]
        batches = self._batches(part, rows, seed=seed, names=names, drop_last=False)
        columns = concatenate([batches.columns(i) for i in range(len(batches))])
        users = as_array(columns.pop(USER_ROW))
        return Pairs(columns, users, self.config.negatives + 1)

    def _batches(
        self, part: str, rows: Partitions, *, seed: int, names: list[str], drop_last: bool
    ) -> Batches:
        assert self.recipe.time is not None
        loader = DayLoader(
            names,
            self.recipe.time,
            max_per_day=self.config.max_per_day,
            seed=seed,
            resample=self.config.resample,
        )
        try:
            return day_batches(
                rows,
                loader,
                batch_size=self.recipe.train.batch_size,
                negatives=self.config.negatives,
                seed=seed,
                drop_last=drop_last,
            )
        except ValueError as error:
            raise RecipeError(f"recipe {self.recipe.name}, part {part}: {error}.") from None

    def build(self, name: str) -> Model:
        """Build an offer model of the recipe with newly initialised weights."""
        with reading(self.prepared.folder / "train", "etl"):
            schema = read_schema(self.prepared.folder / "train")
        return noun.build(
            schema,
            self.config,
            self.config.models[name],
            self.attributes,
            seed=self.recipe.train.seed,
        )

    def load_weights(self, store: Store, name: str) -> Model:
        """Build an offer model of the recipe with the trained weights of the train stage.

        Raises:
            MissingStage, StaleInput, ArtifactError: the train stage is missing, stale or damaged.
        """
        store.read("train", self.recipe)
        model = self.build(name)
        TrainFiles(store.folder("train"), name).load_weights(model)
        return model

    def load(self, store: Store, name: str) -> InferenceModel:
        """Return a trained offer model of the recipe for inference."""
        return InferenceModel(self.load_weights(store, name))
