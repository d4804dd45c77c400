"""Training time until a given recall@10 on MovieLens-100K: ours, raw Merlin and TFRS.

    python benchmarks/time_to_recall.py

All are measured with protocol P2 on the validation part: all items are ranked, without seen items.
Ours has the default recipe, and its time includes the validation after each epoch; the time of the
peers is only that of their fits. Each peer runs with the settings of its tutorial, and with a batch
size and learning rate that suit a log of this size.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent))

from bench import DATA, Peer, machine, table, write

from workflows.ground import device as devices

MARKS = (0.02, 0.05, 0.10, 0.15, 0.20, 0.25)
PEERS = [
    Peer("raw Merlin, notebook 05", "ours", "merlin_recall.py", "notebook"),
    Peer("raw Merlin, batch 512, Adam 0.003", "ours", "merlin_recall.py", "small"),
    Peer("TFRS, its tutorial", "tfrs", "tfrs_recall.py", "tutorial"),
    Peer("TFRS, batch 512, Adam 0.003", "tfrs", "tfrs_recall.py", "small"),
]


def main() -> None:
    """Run ours, then the peers on the encoded data of our etl."""
    device = devices.choose("cpu")
    import numpy as np

    from models.core.exact import Exact
    from workflows import recipe as recipes
    from workflows.etl import etl
    from workflows.stages.etl import Prepared
    from workflows.stages.store import Store
    from workflows.stages.train_files import TrainFiles
    from workflows.train import train

    store = Store(DATA / "movielens")
    path = recipes.find("movielens-100k")
    recipe = recipes.load(path)
    facts = machine()
    etl(recipe, store, device, data=(path.parent / recipe.data).resolve())
    train(recipe, store, device)
    prepared = Prepared.open(store, recipe)
    curve, clock = [], 0.0
    for epoch in TrainFiles(store.folder("train")).read_history():
        clock += epoch.seconds
        curve.append((round(clock, 1), epoch.metrics["val_recall@10"]))
    curves = {"ours, the default recipe": curve}
    evaluation_set = prepared.evaluation_set("valid", recipe.evaluate)
    assert evaluation_set is not None
    rows = prepared.part("train")
    place = DATA / "movielens" / "peers"
    place.mkdir(exist_ok=True)
    names = ("user_id", "gender", "occupation", "item_id", "release_year")
    np.savez(place / "rows.npz", **{n: rows[n] for n in (*names, "user_row", "item_row")})
    for name, of in (("users", prepared.users), ("items", prepared.items)):
        np.savez(place / f"{name}.npz", **{n: of[n] for n in names if n in of})
    for peer in PEERS:
        for old in place.glob("epoch-*.npz"):
            old.unlink()
        print(peer.name, peer.run("--data", place))
        curves[peer.name] = []
        for file in sorted(place.glob("epoch-*.npz")):
            found = np.load(file)
            figures = evaluation_set.per_user(Exact(found["users"], found["items"]), (10,))
            recall = float(figures["recall@10"].mean())
            curves[peer.name].append((round(float(found["seconds"]), 1), round(recall, 4)))
    write("time_to_recall", facts, curves)
    body = [
        [name, *(time_to_reach(curve, mark) for mark in MARKS)] for name, curve in curves.items()
    ]
    print(table(["seconds to recall@10 of", *map(str, MARKS)], body))
    print(json.dumps({name: max(r for _, r in curve) for name, curve in curves.items()}))


def time_to_reach(curve: list[tuple[float, float]], mark: float) -> str:
    """Return the seconds until a recall was reached, or that it was not."""
    return next((f"{seconds:.0f}" for seconds, recall in curve if recall >= mark), "never")


if __name__ == "__main__":
    main()
