"""Whether the users that an offer addresses are those who were planted to like it.

    python benchmarks/audience.py --run runs/rees46-small --data data/rees46 [-k 100]

For each value of an attribute the exported model ranks all users. A user's planted liking of the
offer is the mean of what the truth says of its items, less the mean of all items, so that nobody is
first for liking everything. The figure is the AUC of the ranking for the tenth of the users who
like the offer most (0.5 is chance), and the share of these among the first k (chance: a tenth).
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
from workflows.stages.store import Store

#: Share of the users who count as an offer's planted audience.
SHARE = 0.1
#: Values of an attribute, the most frequent ones.
VALUES = 20


def main() -> None:
    """Rank and compare."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--run", type=Path, required=True)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("-k", type=int, default=100)
    options = parser.parse_args()
    store = Store(options.run)
    export = OfferExport.open(store, store.recipe("export"))
    likings = _likings(export, options.data)
    results = {}
    for attribute in export.offering.tasks:
        codes, _ = export.offering.values(attribute)
        events = export.offering.events("train", "valid", "test")
        counts = np.bincount(events[attribute], minlength=int(codes.max()) + 1)[codes]
        values = np.sort(codes[np.argsort(-counts, kind="stable")[:VALUES]])
        offers = offers_by_value(attribute, values, events, top=250)
        scores = export.scores(export.embedded(offers))
        items = [np.unique(events["product_id"][events[attribute] == code]) for code in values]
        aucs, shares = [], []
        for column, of in enumerate(items):
            liking = np.nanmean(likings[:, of], axis=1)
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


def _likings(export: OfferExport, data: Path) -> np.ndarray:
    """Return how much more than others each user likes each product code, [n_users, n_codes]."""
    truth, offering = read_truth(data), export.offering
    users = pc.index_in(offering.user_ids, value_set=truth.users).to_numpy()
    vocabulary = offering.prepared.vocabularies["product_id"]
    items = pc.index_in(vocabulary.values, value_set=truth.items).to_numpy()
    tastes = truth.user_tastes[users] @ truth.item_tastes[items].T
    tastes -= tastes.mean(axis=1, keepdims=True)
    # codes that stand for no single product have no taste
    nothing = np.full((len(users), vocabulary.first_code), np.nan, np.float32)
    return np.concatenate([nothing, tastes], axis=1)


if __name__ == "__main__":
    main()
