"""Export, recommend and evaluate by number of users: time and peak memory of each verb.

    python benchmarks/users_scale.py [--users 100000 300000 1000000] [--verbs export recommend]

The log is generated: etl and train run on 2,000 users with 52 interactions each and 5,000 items,
and the encoded log of these users is repeated under new user ids, in a random order of users.
Training that many rows is not measured here. Each verb runs in a process of its own; the peak is
the resident memory of this process, or of the process that checks the export if that is larger. The
run of each size is removed at the end, unless --keep is given.

`--users 10000000 --verbs export recommend` is the size of the project's target: 10 million users
with histories of 50 items, in at most 3 GiB.
"""

from __future__ import annotations

import argparse
import json
import resource
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from bench import DATA, PYTHON, exponent, machine, table, write

GIB = 2**30
#: Users, items and interactions per user of the log that etl and train run on.
USERS, ITEMS, LENGTH = 2_000, 5_000, 52
#: Users of the generated log that are written into one part file.
PER_PART = 200_000
VERBS = ("export", "recommend", "evaluate")

RECIPE = """
name: users-scale
data: .
sources: {log: {files: log.parquet, format: parquet}}
interactions: log
features:
  user_id: {role: user, id: true, input: false}
  item_id: {role: item, id: true}
  when: {role: time}
split: {kind: leave_last, valid: 1, test: 1}
history: {columns: [item_id], max_len: 50}
model: {dim: 64, encoder: {kind: decay_pool}, query_layers: [], item_layers: []}
train: {epochs: 1, batch_size: 4096}
evaluate: {max_users: 100000, baselines: [popularity, random], bootstrap: 200}
fallback: popularity
"""


def main() -> None:
    """Run the verbs for each number of users, and print a table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--users", type=int, nargs="+", default=[100_000, 300_000, 1_000_000])
    parser.add_argument("--verbs", nargs="+", choices=VERBS, default=VERBS)
    parser.add_argument("--data", type=Path, default=DATA / "users-scale")
    parser.add_argument("--keep", action="store_true")
    parser.add_argument("--child", nargs=2, metavar=("VERB", "RUN"))
    options = parser.parse_args()
    if options.child:
        print(json.dumps(run(options.child[0], Path(options.child[1]), options.data)))
        return
    small = options.data / "small"
    if not (small / "train").is_dir():
        in_process("small", small, options.data)
    facts, results, rows = machine(), {}, []
    for n_users in options.users:
        large = options.data / f"users-{n_users}"
        if not (large / "train").is_dir():
            in_process("grow", large, options.data)
        for verb in options.verbs:
            found = in_process(verb, large, options.data)
            results[f"{verb} {n_users}"] = found
            rows.append([verb, f"{n_users:,}", found["seconds"], found["cpu"], found["peak_gib"]])
            print(rows[-1], flush=True)
            write("users_scale", facts, results)
        if not options.keep:
            shutil.rmtree(large)
    print(table(["verb", "users", "seconds", "processor seconds", "peak GiB"], rows))
    for verb in options.verbs:
        of_verb = [row for row in rows if row[0] == verb]
        if len(of_verb) > 1:
            sizes = [int(row[1].replace(",", "")) for row in of_verb]
            for name, column in (("processor time", 3), ("memory", 4)):
                grows = exponent(sizes, [float(row[column]) for row in of_verb])
                print(f"{verb}: {name} grows as users ** {grows:.2f}")


def in_process(verb: str, place: Path, data: Path) -> dict[str, Any]:
    """Run a verb in a process of its own, and return its time and its peak memory."""
    words = [PYTHON["ours"], Path(__file__), "--data", data, "--child", verb, place]
    done = subprocess.run([str(w) for w in words], stdout=subprocess.PIPE, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"{verb} of {place} ended with {done.returncode}.")
    found: dict[str, Any] = json.loads(done.stdout.strip().splitlines()[-1])
    return found


def run(verb: str, place: Path, data: Path) -> dict[str, Any]:
    """Run a verb in this process; return its time, its peak memory, and its counts."""
    from workflows.ground.device import Device
    from workflows.recipe import load
    from workflows.stages.store import Store

    data.mkdir(parents=True, exist_ok=True)
    (data / "recipe.yaml").write_text(RECIPE, encoding="utf-8")
    recipe = load(data / "recipe.yaml")
    store, device = Store(place), Device("cpu", "a benchmark of the CPU")
    start = time.perf_counter()
    if verb == "small":
        found = make_small(recipe, store, device, data)
    elif verb == "grow":
        found = grow(recipe, store, device, Store(data / "small"))
    elif verb == "export":
        from workflows.export import export

        found = export(recipe, store, device).rows
    elif verb == "recommend":
        from workflows.recommend import recommend

        found = recommend(recipe, store, device).answered_by
    else:
        from workflows.evaluate import evaluate

        report: Any = evaluate(recipe, store, device).report
        recall = report.headline.metrics[report.ours]["recall@10"]
        sample = report.headline.protocol.sample
        found = {"users": report.headline.users, "of": sample.of if sample else "all"}
        found |= {"recall@10": round(recall.mean, 5), "error": round(recall.standard_error, 6)}
    seconds = time.perf_counter() - start
    who = (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)
    used = [resource.getrusage(each) for each in who]
    return {
        "seconds": round(seconds, 1),
        "cpu": round(sum(each.ru_utime + each.ru_stime for each in used), 1),
        "peak_gib": round(max(each.ru_maxrss for each in used) * 1024 / GIB, 2),
        **found,
    }


def make_small(recipe: Any, store: Any, device: Any, data: Path) -> dict[str, int]:
    """Run etl and train on the small log."""
    from workflows.etl import etl
    from workflows.train import train

    draw = np.random.default_rng(1)
    users = np.repeat(np.arange(USERS), LENGTH)
    log = {
        "user_id": pa.array([f"u{user:09d}" for user in users]),
        "item_id": pa.array([f"i{i:06d}" for i in draw.integers(0, ITEMS, len(users))]),
        "when": pa.array(1_600_000_000 + draw.integers(0, 10_000_000, len(users))),
    }
    pq.write_table(pa.table(log), data / "log.parquet")
    etl(recipe, store, device, data=data)
    train(recipe, store, device)
    return {"users": USERS}


def grow(recipe: Any, store: Any, device: Any, small: Any) -> dict[str, int]:
    """Write the etl and train stages of many users, from those of the small log."""
    n_users = int(store.root.name.rpartition("-")[2])
    copies = n_users // USERS
    with store.write("etl", recipe, device) as draft:
        shutil.copytree(small.folder("etl"), draft.folder, dirs_exist_ok=True)
        (draft.folder / "manifest.json").unlink()
        for part in ("train", "valid", "test"):
            repeat_log(draft.folder / part, copies)
        repeat_users(draft.folder / "users", copies)
    with store.write("train", recipe, device) as draft:
        shutil.copytree(small.folder("train"), draft.folder, dirs_exist_ok=True)
        (draft.folder / "manifest.json").unlink()
    return {"users": copies * USERS}


def repeat_log(folder: Path, copies: int) -> None:
    """Repeat the rows of a part for new users, in a random order of the copies."""
    from models.core.column_names import ITEM_ROW, USER_ROW

    rows = pq.read_table(sorted(folder.glob("part-*")), columns=[USER_ROW, ITEM_ROW, "when"])
    for path in folder.glob("part-*"):
        path.unlink()
    users = rows[USER_ROW].to_numpy()
    order = np.random.default_rng(2).permutation(copies)
    for number, some in enumerate(np.array_split(order, max(1, copies * USERS // PER_PART))):
        # row by row: the rows of a copy are not together
        new = (users[:, None] + USERS * some[None, :]).ravel().astype(users.dtype)
        repeated = rows.take(pa.array(np.repeat(np.arange(len(users)), len(some))))
        column = rows.column_names.index(USER_ROW)
        repeated = repeated.set_column(column, rows.schema.field(USER_ROW), pa.array(new))
        pq.write_table(repeated, folder / f"part-{number}.parquet")


def repeat_users(folder: Path, copies: int) -> None:
    """Repeat the rows of the user table under new ids; the last row is for unknown users."""
    encoded = pq.read_table(sorted(folder.glob("part-*")))
    raw = pq.read_table(folder / "raw.parquet")
    for path in folder.glob("part-*"):
        path.unlink()
    column = raw.column_names.index("user_id")
    with (
        pq.ParquetWriter(folder / "part-0.parquet", encoded.schema) as codes,
        pq.ParquetWriter(folder / "raw.parquet", raw.schema) as texts,
    ):
        for start in range(0, copies, 100):
            some = np.arange(start, min(start + 100, copies))
            rows = pa.array(np.tile(np.arange(USERS), len(some)))
            codes.write_table(encoded.take(rows))
            first = start * USERS
            ids = pa.array([f"u{n:09d}" for n in range(first, first + len(rows))])
            texts.write_table(raw.take(rows).set_column(column, raw.schema.field(column), ids))
        codes.write_table(encoded.slice(USERS))
        texts.write_table(raw.slice(USERS))


if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).parent.parent))
    main()
