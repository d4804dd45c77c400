"""etl of recipes with hostile values or YAML bombs: it succeeds, or prints one paragraph."""

from __future__ import annotations

import copy
import json
import random
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml
from forked import memory_limit, two_tower
from judge import damaged_run, ended_badly, left_over
from scene import Scene
from tally import Tally

#: GiB of address space that a child may take; imported libraries take most of it.
MEMORY = 12
#: Fields that the tiny recipe does not have, as further places for values.
_MORE = """
model: {kind: two_tower, dropout: 0.1, query_layers: [8]}
loss: {temperature: 0.1}
optimizer: {lr: 0.01}
train: {epochs: 2, batch_size: 32, patience: 2, seed: 1}
evaluate: {ks: [1, 3], bootstrap: 10, level: 0.9, baselines: [popularity], seed: 1}
index: {kind: auto, at: 10, queries: 10, recall: 0.5, exact_up_to: 100}
vocabulary: {min_count: 1, oov_buckets: 1}
history: {columns: [item_id], max_len: 4}
tune: {trials: 2, space: {model.dim: [4, 8], optimizer.lr: {low: 0.001, high: 0.1}}}
description: a tiny one
"""
_NUMBERS: list[Any] = [
    0,
    -1,
    1,
    2**31,
    2**63,
    2**64,
    -(2**63) - 1,
    10**30,
    10**400,
    0.5,
    -0.0,
    1e308,
]
_TEXTS: list[Any] = [
    *("", " ", "\n", "a\n", "\0", "\u202e", "\ud800", "é", "x" * 100_000, "../../etc/passwd"),
    *(
        "/etc/passwd",
        "/dev/zero",
        "~",
        "*",
        "**/*",
        "$HOME",
        "{0}",
        "%s",
        "(a+)+$",
        "[",
        "-",
        "--help",
    ),
    *("2026-13-45", "log", "user_id", "no_such", "item_id", "1e3", "=1+1", "<script>", "null"),
]
_SHAPES: list[Any] = [
    *([], {}, [[]], [{}], {"": ""}, {"a": {"b": {"c": 1}}}, [None], [1, "a", None], ["a"] * 5_000),
    *({"kind": "keep"}, {"low": 1, "high": 0}, list(range(2_000)), {"files": []}),
    {"files": "log.csv"},
]  # fmt: skip
_OTHERS: list[Any] = [None, True, False, float("nan"), float("inf"), float("-inf")]


def bombs() -> dict[str, str]:
    """Return small texts that expand to large, deep, endless or odd values."""
    laughs = "a0: &a0 [x, x, x, x, x, x, x, x, x]\n" + "".join(
        f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]\n" for n in range(1, 10)
    )
    merges = "a0: &a0 {k0: 1, j0: 1}\n" + "".join(
        f"a{n}: &a{n} {{<<: [{', '.join([f'*a{n - 1}'] * 9)}], k{n}: 1}}\n" for n in range(1, 10)
    )
    return {
        "billion laughs": laughs,
        "merge bomb": merges,
        "deep lists": "name: " + "[" * 5_000,
        "deep maps": "name: " + "{a: " * 5_000,
        "deep closed": "name: " + "[" * 3_000 + "]" * 3_000,
        "itself": "name: &a [*a]",
        "map that is its own key": "&a {*a: 1}",
        "python object": "name: !!python/object/apply:os.system ['touch pwned']",
        "unknown tag": "name: !x y",
        "binary": "name: !!binary aGVsbG8=",
        "many documents": "a: 1\n---\n" * 2_000,
        "nothing": "",
        "only a comment": "# a\n",
        "tabs": "name:\tx\n\tdata: .",
        "nul": "name: a\0b",
        "utf-16": "\ufeffname: tiny\n",
        "long number": "name: tiny\ndata: .\ntrain: {seed: " + "9" * 20_000 + "}",
        "sexagesimal": "name: 1:2:3",
        "many keys": "".join(f"k{n}: 1\n" for n in range(20_000)),
        "the same key twice": "name: a\nname: b\n",
        "anchors": "".join(f"k{n}: &a{n} 1\n" for n in range(5_000)),
        "timestamp out of range": "name: 9999-99-99",
        "quotes that never end": 'name: "abc',
        "a list at the top": "- a\n- b\n",
    }


def run(n: int, seed: int, folder: Path, scene: Scene) -> Tally:
    """Change `n` recipes, each at one to three places; every bomb is tried, too."""
    rng, tally = random.Random(seed), Tally("recipes")
    raw = folder / "raw"
    shutil.copytree(scene.folder / "raw", raw)
    tree = whole(scene)
    cases = [("as it is", _written(tree))]
    cases += [(f"bomb {name}", text) for name, text in list(bombs().items())[: max(2, n // 3)]]
    cases += [_mutated(tree, rng) for _ in range(n)]
    for number, (case, text) in enumerate(cases):
        path = raw / "mutated.yaml"
        path.write_bytes(text.encode("utf-8", "surrogatepass"))
        own = Scene(folder / f"{number:04}")
        words = ["etl", "--recipe", str(path), "--run", str(own.run), "--device", "cpu"]
        ended = two_tower(words, folder=own.folder, before=memory_limit(MEMORY))
        faults = ended_badly(ended)
        if own.run.is_dir():
            faults += damaged_run(own.run) + left_over(own.folder)
        if ended.code == 2 and not ended.err.strip():
            faults.append("refused without a word")
        if (own.folder / "pwned").exists():
            faults.append("a command of the recipe was run")
        tally.count(case, faults, "done" if ended.code == 0 else "refused")
        shutil.rmtree(own.folder)
    return tally.finished()


def whole(scene: Scene) -> dict[str, Any]:
    """Return the recipe of the scene with further fields."""
    own = yaml.load(scene.recipe.read_text(encoding="utf-8"), _Loader)
    return {**yaml.load(_MORE, _Loader), **own}


class _Loader(yaml.SafeLoader):
    """A loader with the booleans of YAML 1.2, where `on` is text."""


_Loader.yaml_implicit_resolvers = {
    letter: [(tag, regex) for tag, regex in found if tag != "tag:yaml.org,2002:bool"]
    for letter, found in yaml.SafeLoader.yaml_implicit_resolvers.items()
}
_Loader.add_implicit_resolver("tag:yaml.org,2002:bool", re.compile("true|false"), list("tf"))


def _mutated(tree: dict[str, Any], rng: random.Random) -> tuple[str, str]:
    """Change a recipe; return a description of the change, and its text."""
    changed, told = copy.deepcopy(tree), []
    for _ in range(rng.choice([1, 1, 1, 2, 3])):
        places = list(_places(changed))
        container, key, path = rng.choice(places)
        how = rng.random()
        value = rng.choice(rng.choice([_NUMBERS, _TEXTS, _SHAPES, _OTHERS]))
        if how < 0.75:
            container[key] = copy.deepcopy(value)
            told.append(f"{path} = {str(value)[:40]!r}")
        elif how < 0.85:
            del container[key]
            told.append(f"{path} removed")
        elif isinstance(container, dict):
            container[str(value)[:1000]] = container.pop(key)
            told.append(f"{path} renamed to {str(value)[:40]!r}")
        else:
            container.insert(key, copy.deepcopy(value))
            told.append(f"{path} gets {str(value)[:40]!r} before it")
    return "; ".join(told), _written(changed)


def _written(tree: Any) -> str:
    """Return a recipe as JSON, which is also YAML; PyYAML cannot write every value."""
    text = json.dumps(tree, ensure_ascii=True, default=str)
    for json_word, yaml_word in (("NaN", ".nan"), ("-Infinity", "-.inf"), ("Infinity", ".inf")):
        text = text.replace(f": {json_word}", f": {yaml_word}")
    return text


def _places(tree: Any, path: str = "") -> Iterator[tuple[Any, Any, str]]:
    """Yield the container, key and path of every value."""
    keys = list(tree) if isinstance(tree, dict) else range(min(len(tree), 20))
    for key in keys:
        here = f"{path}.{key}"[:100].lstrip(".")
        yield tree, key, here
        if isinstance(tree[key], dict | list):
            yield from _places(tree[key], here)
