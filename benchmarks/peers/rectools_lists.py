"""RecTools' sequential models on our split: writes each user's 100 best items, not yet seen.

`--option sasrec`: SASRec with the softmax over all items; `esasrec`: LiGR layers and a sampled
softmax with 256 negatives ("eSASRec", RecSys 2025). Settings are those of that paper for the same
data set (github.com/blondered/transformer_benchmark, configs/paper/loo); the epoch with the best
recall@10 on valid is kept, as there.

Loss and validation are those of RecTools, computed where there is a target: RecTools also computes
them at the padding, and then leaves it out. A fit that ran out of time goes on from its last epoch
when it is run again with a larger `--limit`.
"""

from __future__ import annotations

import argparse
import copy
import json
import os
import time
import warnings
from pathlib import Path

os.environ["CUDA_VISIBLE_DEVICES"] = ""
os.environ["OMP_NUM_THREADS"] = "1"

import numpy as np
import pandas as pd
import pytorch_lightning as lightning
import torch
from rectools import Columns
from rectools.dataset import Dataset
from rectools.models import SASRecModel
from rectools.models.nn.transformers.lightning import TransformerLightningModule
from rectools.models.nn.transformers.ligr import LiGRLayers

#: Data set → its settings, and the number of epochs without a better recall after which a fit ends.
#: Nothing is published for MovieLens-100K: ML-1M's model with more dropout and smaller batches, as
#: batches of 128 users would be 8 steps an epoch. (RecTools trains on the latest events of a user
#: only: with 50 in place of 200, recall@10 on valid is 0.169.)
SETTINGS = {
    "beauty": ({"n_factors": 256, "n_blocks": 1, "dropout_rate": 0.2, "session_max_len": 50}, 5),
    "ml-1m": ({"n_factors": 64, "n_blocks": 2, "dropout_rate": 0.1, "session_max_len": 200}, 5),
    "ml-100k": (
        {
            "n_factors": 64,
            "n_blocks": 2,
            "dropout_rate": 0.2,
            "session_max_len": 200,
            "batch_size": 32,
        },
        20,
    ),
}
#: Option → what the model differs in from RecTools' SASRec.
KINDS = {
    "sasrec": {"loss": "softmax"},
    "esasrec": {
        "loss": "sampled_softmax",
        "n_negatives": 256,
        "transformer_layers_type": LiGRLayers,
        "use_key_padding_mask": True,
    },
}
K = 100
EPOCHS = 200
#: RecTools takes dates. Each event gets its own second, and valid events come after all others.
START, VALID = np.datetime64("2000-01-01", "s"), np.datetime64("2100-01-01", "s")


class AtTargets(TransformerLightningModule):
    """The training step and the validation step of RecTools, only where there is a target."""

    def training_step(self, batch: dict[str, torch.Tensor], batch_idx: int) -> torch.Tensor:
        """Return the loss of a batch."""
        chosen = batch["y"] != 0
        items = self.torch_model.item_model.get_all_embeddings()
        sessions = self.torch_model.encode_sessions(batch, items)[chosen]
        scores, targets = self.torch_model.similarity_module(sessions, items), batch["y"][chosen]
        if self._requires_negatives:  # one product with all items is faster than many small ones
            compared = torch.cat([targets[:, None], batch["negatives"][chosen]], dim=1)
            scores = scores.gather(1, compared)
        return self.loss_calculator(scores[None], targets[None], batch["yw"][chosen][None])

    def validation_step(self, batch: dict[str, torch.Tensor], batch_idx: int) -> None:
        """Log recall@10; neither items of the session are recommended nor the padding."""
        sessions = self.torch_model.encode_sessions(batch, self.item_embs)[:, -1]
        scores = self.torch_model.similarity_module(sessions, self.item_embs)
        best = scores.scatter(1, batch["x"], -torch.inf)[:, 1:].topk(10).indices + 1
        hits = (best == batch["y"]).any(dim=1).float()
        self.log("recall@10", hits.mean(), on_step=False, on_epoch=True, batch_size=len(hits))


class Progress(lightning.Callback):
    """Keeps the state of a fit in a file, and says when it ends.

    Args:
        file: the file of the state; if there is one, the fit goes on from it.
        patience: the fit ends after so many epochs without a better recall.
        limit: seconds of processor time after which no epoch begins.
    """

    def __init__(self, file: str, patience: int, limit: float) -> None:
        self.file, self.patience, self.limit = Path(file), patience, limit
        self.curve: list[float] = []
        self.best: dict[str, torch.Tensor] = {}
        self.seconds, self.start = 0.0, 0.0

    @property
    def best_epoch(self) -> int:
        """The number of the best epoch, from 1."""
        return int(np.argmax(self.curve)) + 1

    @property
    def is_finished(self) -> bool:
        """Whether the fit ended by itself, not because its time was over."""
        return bool(self.curve) and len(self.curve) >= min(EPOCHS, self.best_epoch + self.patience)

    @property
    def is_over(self) -> bool:
        """Whether no further epoch is wanted."""
        return self.is_finished or self.clock > self.limit

    @property
    def clock(self) -> float:
        """Seconds of processor time, with those of earlier runs."""
        return self.seconds + time.process_time() - self.start

    def on_train_start(self, trainer: lightning.Trainer, model: AtTargets) -> None:
        """Take up the state of an earlier run."""
        self.start = time.process_time()
        if self.file.is_file():
            state = torch.load(self.file, weights_only=True)
            self.curve, self.best, self.seconds = state["curve"], state["best"], state["seconds"]
            model.load_state_dict(state["now"])
            model.optimizers().optimizer.load_state_dict(state["optimizer"])
            model.is_fitted = True  # or RecTools draws new weights
            trainer.should_stop = self.is_over

    def on_train_epoch_end(self, trainer: lightning.Trainer, model: AtTargets) -> None:
        """Write the state, and a line to read."""
        self.curve.append(round(float(trainer.callback_metrics["recall@10"]), 5))
        now = model.state_dict()
        if self.best_epoch == len(self.curve):
            self.best = copy.deepcopy(now)
        state = {"curve": self.curve, "best": self.best, "now": now, "seconds": self.clock}
        new = self.file.with_suffix(".new")
        torch.save({**state, "optimizer": model.optimizers().optimizer.state_dict()}, new)
        new.replace(self.file)
        with self.file.with_suffix(".log").open("a", encoding="utf-8") as out:
            out.write(f"epoch {len(self.curve)}: {self.curve[-1]} after {self.clock:.0f} s\n")
        trainer.should_stop = self.is_over


def make_trainer(file: str, patience: int, limit: float) -> lightning.Trainer:
    """Return a trainer with `Progress`, which gets the arguments."""
    return lightning.Trainer(
        max_epochs=EPOCHS,
        accelerator="cpu",
        callbacks=[Progress(file, patience, limit)],
        num_sanity_val_steps=0,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )


def is_valid(interactions: pd.DataFrame) -> np.ndarray:
    """Mark the events of the valid part, which RecTools must not train on."""
    return (interactions[Columns.Datetime] >= VALID).to_numpy()


def dataset(rows: dict[str, np.ndarray]) -> Dataset:
    """Return the train part and the valid part as RecTools' data set, in order of time."""
    parts = []
    for name, start in (("train", START), ("valid", VALID)):
        users, items = rows[f"{name}_users"], rows[f"{name}_items"]
        times = start + np.arange(len(users)).astype("timedelta64[s]")
        columns = {Columns.User: users, Columns.Item: items, Columns.Datetime: times}
        parts.append(pd.DataFrame({**columns, Columns.Weight: 1.0}))
    return Dataset.construct(pd.concat(parts, ignore_index=True))


def lists(model: SASRecModel, data: Dataset, users: np.ndarray) -> np.ndarray:
    """Return each user's best items that are not in the data, int64 [n_users, K]; -1 is empty."""
    known = np.intersect1d(users, data.user_id_map.external_ids)
    found = model.recommend(known, data, k=K, filter_viewed=True, on_unsupported_targets="ignore")
    items = np.full((len(users), K), -1, np.int64)
    order = np.argsort(users)
    rows = order[np.searchsorted(users, found[Columns.User].to_numpy(), sorter=order)]
    items[rows, found[Columns.Rank].to_numpy() - 1] = found[Columns.Item].to_numpy()
    return items


def main() -> None:
    """Fit one model, write its lists, and print how the fit went as JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, required=True, help="folder with rows.npz")
    parser.add_argument("--settings", choices=SETTINGS, required=True)
    parser.add_argument("--option", choices=KINDS, required=True)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument(
        "--limit",
        type=float,
        default=3600.0,
        help="seconds of processor time after which no epoch begins",
    )
    options = parser.parse_args()
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    lightning.seed_everything(options.seed)
    rows = dict(np.load(options.data / "rows.npz"))
    data = dataset(rows)
    settings, patience = SETTINGS[options.settings]
    file = options.data / f"{options.option}-{options.seed}.npz"
    state = str(file.with_suffix(".state"))
    model = SASRecModel(
        **settings,
        **KINDS[options.option],
        n_heads=1,
        lightning_module_type=AtTargets,
        get_val_mask_func=is_valid,
        get_trainer_func=make_trainer,
        get_trainer_func_kwargs={"file": state, "patience": patience, "limit": options.limit},
    )
    model.fit(data)
    progress = next(c for c in model.fit_trainer.callbacks if isinstance(c, Progress))
    model.lightning_model.load_state_dict(progress.best)
    np.savez(file, items=lists(model, data, rows["users"]))
    told = {
        "seconds": round(progress.clock, 1),
        "epochs": len(progress.curve),
        "best_epoch": progress.best_epoch,
        "is_finished": progress.is_finished,
        "valid recall@10": progress.curve,
        "parameters": sum(weight.numel() for weight in model.torch_model.parameters()),
    }
    print(json.dumps(told))


if __name__ == "__main__":
    main()
