"""Seconds of training until recall@10 on MovieLens-100K reaches a mark: ours, raw Merlin, TFRS.

    python benchmarks/time_to_recall.py

Protocol P2, validation part, whole catalogue, what was seen left out: the same trial for all. Ours
is the default recipe, its validation after every epoch included in its time; the peers' time is
their fit alone. Each peer runs as its tutorial has it, and with a batch and a rate that suit a log
as small as this.
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
    """Run ours, then the peers on the numbers that our etl made."""
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
    trial = prepared.trial("valid", recipe.evaluate)
    assert trial is not None
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
            figures = trial.per_user(Exact(found["users"], found["items"]), (10,))
            recall = float(figures["recall@10"].mean())
            curves[peer.name].append((round(float(found["seconds"]), 1), round(recall, 4)))
    write("time_to_recall", facts, curves)
    body = [[name, *(reached(curve, mark) for mark in MARKS)] for name, curve in curves.items()]
    print(table(["seconds to recall@10 of", *map(str, MARKS)], body))
    print(json.dumps({name: max(r for _, r in curve) for name, curve in curves.items()}))


def reached(curve: list[tuple[float, float]], mark: float) -> str:
    """Return the seconds until a mark, or that it was not reached."""
    return next((f"{seconds:.0f}" for seconds, recall in curve if recall >= mark), "never")


if __name__ == "__main__":
    main()
