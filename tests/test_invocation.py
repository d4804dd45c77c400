"""Commands in messages: complete, quoted for a shell, and with their form for make."""

from __future__ import annotations

import shlex
from hashlib import sha256
from pathlib import Path

import pytest

from workflows.ground.invocation import Invocation


@pytest.mark.parametrize(
    ("invocation", "verb", "command"),
    [
        (Invocation(), "etl", "`two-tower etl` (or `make etl`)"),
        (
            Invocation("evaluate", "r", "x", ("a.b=1", "c=d")),
            "train",
            "`two-tower train --recipe r --run x --set a.b=1 --set c=d` "
            "(or `make train RECIPE=r RUN=x SET='a.b=1 c=d'`)",
        ),
        (
            Invocation("train", run="x", settings=("filter=[{kind: keep}]",)),
            "train",
            "`two-tower train --run x --set 'filter=[{kind: keep}]'`",
        ),
        (
            Invocation("train", run="x"),
            "etl",
            "`two-tower etl --recipe RECIPE --run x` (or `make etl",
        ),
    ],
)
def test_a_command_repeats_what_was_given(invocation: Invocation, verb: str, command: str) -> None:
    assert invocation.command(verb).startswith(command)


def test_a_command_is_read_by_a_shell_as_it_was_typed() -> None:
    words = ["--recipe", "my recipes/a b.yaml", "--run", "it's", "--set", 'x="$HOME"']
    invocation = Invocation("etl", words[1], words[3], (words[5],))
    command = invocation.command("etl")
    assert shlex.split(command.strip("`")) == ["two-tower", "etl", *words]
    assert "make" not in command  # its variables cannot hold that


def test_the_command_of_etl_names_the_recipe_file_that_the_run_remembers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    invocation = Invocation("train", run="x", file=tmp_path / "r" / "shop.yaml")
    assert invocation.command("etl").startswith("`two-tower etl --recipe r/shop.yaml --run x`")
    assert invocation.command("train").startswith("`two-tower train --run x`")


@pytest.mark.parametrize(
    ("invocation", "own"),
    [
        (Invocation(), ""),
        (Invocation("evaluate", run="x"), ""),  # that is what was typed
        (Invocation("evaluate", settings=("a=b",)), "`two-tower evaluate`"),
        (Invocation("evaluate", "r", "x"), "`two-tower evaluate --run x`"),
    ],
)
def test_the_call_by_the_recipe_of_the_run(invocation: Invocation, own: str) -> None:
    assert invocation.own == own


def test_the_file_is_told_relative_to_the_run(tmp_path: Path) -> None:
    file = tmp_path / "recipes" / "shop.yaml"
    file.parent.mkdir()
    file.write_bytes(b"name: shop\n")
    assert Invocation(file=file).options(tmp_path / "runs" / "shop") == {
        "recipe_file": "../../recipes/shop.yaml",
        "recipe_sha256": sha256(b"name: shop\n").hexdigest(),
    }
    assert Invocation().options(tmp_path) == {}
