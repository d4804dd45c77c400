"""Does the audience of an offer consist of users who like it, in a sample with known tastes?

    python benchmarks/audience.py --run runs/rees46-small --data data/rees46 [-k 100]

For each value of an attribute, the exported model ranks all users. The sample was generated from
known preferences. A user's true preference for an offer is the mean preference for its items, minus
the mean for all items, so that users who like everything are not first. Two figures are given for
the tenth of the users with the highest true preference: the AUC of the ranking (0.5 is chance) and
their share among the first k users (chance is a tenth).
"""

from __future__ import annotations

import argparse
import statistics
from pathlib import Path

import numpy as np
import pyarrow.compute as pc
from bench import machine, table, write

from workflows.ground import device

device.choose("cpu")

from models.offers.auc import grouped_auc
from models.offers.offers import offers_by_value
from samples.truth import read_truth
from workflows.offers.audience import OfferExport
from workflows.stages.offer_data import OfferData
from workflows.stages.store import Store

#: Share of the users who are the true audience of an offer.
SHARE = 0.1
#: Number of values of each attribute; the most frequent ones are taken.
VALUES = 20


def main() -> None:
    """Rank the users for each offer, and compare the ranking with the true preferences."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--run", type=Path, required=True)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("-k", type=int, default=100)
    options = parser.parse_args()
    store = Store(options.run)
    recipe = store.recipe("export")
    export, offer_data = OfferExport.open(store, recipe), OfferData.open(store, recipe)
    preferences = _true_preferences(offer_data, options.data)
    results = {}
    for attribute in offer_data.tasks:
        codes, _ = offer_data.values(attribute)
        events = offer_data.events("train", "valid", "test")
        counts = np.bincount(events[attribute], minlength=int(codes.max()) + 1)[codes]
        values = np.sort(codes[np.argsort(-counts, kind="stable")[:VALUES]])
        offers = offers_by_value(attribute, values, events, top=250)
        scores = export.scores(export.embed_offers(offers))
        items = [np.unique(events["product_id"][events[attribute] == code]) for code in values]
        aucs, shares = [], []
        for column, of in enumerate(items):
            liking = np.nanmean(preferences[:, of], axis=1)
            audience = liking >= np.quantile(liking, 1 - SHARE)
            mine = scores[:, column]
            one = np.zeros(len(mine), np.int64)
            aucs.append(grouped_auc(one, mine, audience, n_groups=1).auc[0])
            shares.append(audience[np.argsort(-mine, kind="stable")[: options.k]].mean())
        results[attribute] = {
            "offers": len(values),
            "auc": statistics.mean(aucs),
            "share": float(np.mean(shares)),
        }
    head = ["attribute", "offers", "AUC", f"planted audience among the first {options.k}"]
    rows = [[n, r["offers"], f"{r['auc']:.3f}", f"{r['share']:.0%}"] for n, r in results.items()]
    print(table(head, rows))
    write("audience", machine(), results)


def _true_preferences(offer_data: OfferData, data: Path) -> np.ndarray:
    """Return the preference of each user for each product code, [n_users, n_codes]."""
    truth = read_truth(data)
    users = pc.index_in(offer_data.user_ids, value_set=truth.users).to_numpy()
    vocabulary = offer_data.prepared.vocabularies["product_id"]
    items = pc.index_in(vocabulary.values, value_set=truth.items).to_numpy()
    tastes = truth.user_tastes[users] @ truth.item_tastes[items].T
    tastes -= tastes.mean(axis=1, keepdims=True)
    # reserved codes do not belong to a single product
    nothing = np.full((len(users), vocabulary.first_code), np.nan, np.float32)
    return np.concatenate([nothing, tastes], axis=1)


if __name__ == "__main__":
    main()
