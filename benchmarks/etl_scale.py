"""etl of H&M at its real size, 31.8 million purchases, and of a tenth of it.

    python benchmarks/etl_scale.py [--memory-limit 1GiB]

`two-tower sample --recipe hm --size large` writes files with the size and format of Kaggle's (3.7
GB); the tenth has every tenth line. The peak memory is that of the process and all its children,
measured ten times a second. The target is that ten times the rows take at most eleven times the
time.
"""

from __future__ import annotations

import argparse
import subprocess
import time
from pathlib import Path

import psutil
from bench import DATA, PYTHON, ROOT, machine, table, write

GIB = 2**30


def main() -> None:
    """Write the files, unless they exist, run etl on both, and print a table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, default=DATA / "hm-large")
    parser.add_argument("--memory-limit", default="1GiB")
    options = parser.parse_args()
    large, tenth = options.data, options.data.with_name(options.data.name + "-tenth")
    if not large.is_dir():
        run_and_measure("sample", "--recipe", "hm", "--size", "large", "--to", large)
    if not tenth.is_dir():
        write_tenth(large, tenth)
    facts, results, rows = machine(), {}, []
    for name, folder in (("a tenth", tenth), ("all", large)):
        recipe = folder / "hm.yaml"
        text = (ROOT / "recipes" / "hm.yaml").read_text(encoding="utf-8")
        recipe.write_text(text.replace("data: ../data/hm", "data: ."), encoding="utf-8")
        run = DATA / f"hm-{name.split()[-1]}"
        words = ("--recipe", recipe, "--run", run, "--memory-limit", options.memory_limit)
        results[name] = run_and_measure("etl", *words)
        seconds, cpu, peak = (results[name][k] for k in ("seconds", "cpu", "peak_gib"))
        rows.append([name, f"{seconds:.0f}", f"{cpu:.0f}", f"{peak:.2f}"])
        write("etl_scale", facts, results)
    print(table(["purchases", "seconds", "processor seconds", "peak GiB"], rows))


def run_and_measure(*words: object) -> dict[str, float]:
    """Run a verb; return its time, processor time, and peak memory with all child processes."""
    command = [str(PYTHON["ours"]), "-m", "workflows", *map(str, words), "--device", "cpu"]
    start, peak, cpu = time.perf_counter(), 0, 0.0
    with subprocess.Popen(command, cwd=ROOT) as process:
        tree = psutil.Process(process.pid)
        while process.poll() is None:
            try:
                of_all = [tree, *tree.children(recursive=True)]
                peak = max(peak, sum(one.memory_info().rss for one in of_all))
                cpu = max(cpu, sum(sum(one.cpu_times()[:2]) for one in of_all))
            except psutil.Error:
                pass  # a process has just ended
            time.sleep(0.1)
    if process.returncode:
        raise SystemExit(process.returncode)
    seconds = time.perf_counter() - start
    return {"seconds": round(seconds, 1), "cpu": round(cpu, 1), "peak_gib": round(peak / GIB, 2)}


def write_tenth(large: Path, folder: Path) -> None:
    """Copy the user and item tables, and every tenth purchase."""
    folder.mkdir()
    for name in ("articles.csv", "customers.csv"):
        (folder / name).symlink_to((large / name).resolve())
    with (
        (large / "transactions_train.csv").open("rb") as lines,
        (folder / "transactions_train.csv").open("wb") as out,
    ):
        out.writelines(line for n, line in enumerate(lines) if n == 0 or n % 10 == 1)


if __name__ == "__main__":
    main()
