"""Files given at serving: read as the recipe's sources are, or by what they are themselves.

The values are written by hand, and what etl reads from the same bytes is the second oracle.
"""

from __future__ import annotations

import bz2
import gzip
import json
import lzma
import os
import random
import threading
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from world import RECIPE, World

from workflows.etl.read import sources
from workflows.feature_files.rows import read, read_ids
from workflows.ground.errors import DataError
from workflows.recipe import Recipe

PEOPLE = [("é1", 31, "Köln"), ("u,2", 24, 'the "Zoo"'), ("u3", None, "Oslo")]
EXPECTED = {
    "user_id": ["é1", "u,2", "u3"],
    "age": [31, 24, None],
    "city": ["Köln", 'the "Zoo"', "Oslo"],
}
NAMES = ["age", "city"]
NAMED = "user_id{0}age{0}city\n"


def rows(delimiter: str) -> str:
    return "".join(f"{u}{delimiter}{age or ''}{delimiter}{city}\n" for u, age, city in PEOPLE)


def objects() -> str:
    keys = ("user_id", "age", "city")
    return "".join(json.dumps(dict(zip(keys, row, strict=True))) + "\n" for row in PEOPLE)


ESCAPED = 'user_id,age,city\né1,31,Köln\n"u,2",24,"the \\"Zoo\\""\nu3,,Oslo\n'
QUOTED = "user_id;age;city\né1;31;Köln\nu,2;24;'the \"Zoo\"'\nu3;;Oslo\n"
#: The source of the recipe, the name of its file, and its bytes.
FORMS = {
    "two colons, no names": (
        '{files: people.dat, format: csv, delimiter: "::", columns: [user_id, age, city]}',
        rows("::").encode(),
    ),
    "two colons, names": (
        '{files: people.dat, format: csv, delimiter: "::"}',
        (NAMED.format("::") + rows("::")).encode(),
    ),
    "latin-1": (
        '{files: people.dat, delimiter: "|", encoding: latin-1}',
        (NAMED.format("|") + rows("|").replace('the "Zoo"', '"the ""Zoo"""')).encode("latin-1"),
    ),
    "gzip": ("{files: people.tsv.gz}", gzip.compress((NAMED.format("\t") + rows("\t")).encode())),
    "xz without an ending": (
        "{files: people, format: tsv}",
        lzma.compress((NAMED.format("\t") + rows("\t")).encode()),
    ),
    "escaped quotes": ("{files: people.csv, escape: '\\'}", ESCAPED.encode()),
    "other quotes, utf-16": (
        "{files: people.csv, delimiter: ';', quote: \"'\", encoding: utf-16}",
        QUOTED.encode("utf-16"),
    ),
    "JSON lines": ("{files: people.jsonl}", objects().encode()),
    "JSON lines, utf-16, bz2": (
        "{files: people.ndjson.bz2, encoding: utf-16}",
        bz2.compress(objects().encode("utf-16")),
    ),
    "JSON lines of another ending": (
        "{files: people.log, format: jsonl, encoding: utf-16}",
        objects().replace("{", "{ ").encode("utf-16"),
    ),
    "renamed": (
        "{files: people.csv, rename: {No: user_id, Town: city}}",
        ("No,age,Town\n" + ESCAPED.replace('\\"', '""').partition("\n")[2]).encode(),
    ),
}  # fmt: skip


def recipe_of(folder: Path, source: str) -> Recipe:
    text = RECIPE.replace("{files: people.csv}", source)
    return World(folder, text=text).write().recipe()


@pytest.mark.parametrize("form", FORMS)
def test_a_file_in_the_form_of_a_source_is_read_as_in_training(tmp_path: Path, form: str) -> None:
    source, data = FORMS[form]
    recipe = recipe_of(tmp_path, source)
    files = recipe.sources["people"].files
    assert isinstance(files, str)
    (tmp_path / files).write_bytes(data)
    trained = sources.read(recipe, tmp_path).tables["people"].to_pydict()
    given = read(tmp_path / files, recipe, "user_id", NAMES).to_pydict()
    assert trained == given == EXPECTED
    assert read_ids(tmp_path / files, recipe, "user_id") == EXPECTED["user_id"]


@pytest.mark.parametrize("source", [FORMS["two colons, no names"][0], FORMS["latin-1"][0]])
def test_other_known_formats_are_read_whatever_the_sources_are(tmp_path: Path, source) -> None:
    recipe = recipe_of(tmp_path, source)
    plain = (NAMED.format(",") + 'é1,31,Köln\n"u,2",24,"the ""Zoo"""\nu3,,Oslo\n').encode()
    given = {
        "a.csv": plain,
        "b.csv": b"\xef\xbb\xbf" + plain,  # a mark is no part of the first name
        "c.csv.bz2": bz2.compress(plain),
        "packed.csv": gzip.compress(plain),
        "d.tsv": (NAMED.format("\t") + rows("\t")).encode(),
        "e.jsonl": objects().encode(),
        "f.json": objects().encode(),
    }
    pq.write_table(pa.table(EXPECTED), tmp_path / "g.parquet")
    given["h"] = (tmp_path / "g.parquet").read_bytes()
    for name, data in given.items():
        (tmp_path / name).write_bytes(data)
        found = read(tmp_path / name, recipe, "user_id", NAMES)
        assert found.to_pydict() == EXPECTED, name
    assert read(tmp_path / "g.parquet", recipe, "user_id", NAMES).to_pydict() == EXPECTED


def test_an_error_says_in_which_form_the_file_was_read(tmp_path: Path) -> None:
    recipe = recipe_of(tmp_path, FORMS["two colons, no names"][0])
    path = tmp_path / "new.dat"
    path.write_text("u1::31::Oslo\nu2::24\n")
    with pytest.raises(DataError) as caught:
        read(path, recipe, "user_id", NAMES)
    assert str(caught.value).startswith(f"{path} has 1 unparsable row; the first, row 2, has 2 ")
    assert str(caught.value).endswith(
        " The file is read as csv with the delimiter '::', in UTF-8, with the columns user_id, age,"
        " city, like the source 'people' of the recipe: convert it to this form, or write it as"
        " parquet."
    )


def test_what_was_expected_is_said_of_a_file_of_no_known_form(tmp_path: Path) -> None:
    recipe = recipe_of(tmp_path, FORMS["two colons, no names"][0])
    (tmp_path / "new.dat").write_text("u1;31;Oslo\n")
    with pytest.raises(DataError, match=r"new\.dat: expected a file that ends in .* It is not csv"):
        read(tmp_path / "new.dat", recipe, "user_id", NAMES)
    (tmp_path / "new.csv").write_text("u1;31;Oslo\n")
    said = (
        r"new\.csv: there is no column 'user_id'\..* The file is read as csv with the delimiter ','"
        r", in UTF-8: convert .* It is not csv with the delimiter '::', in UTF-8, with the columns"
    )
    with pytest.raises(DataError, match=said):
        read(tmp_path / "new.csv", recipe, "user_id", NAMES)


def test_a_row_of_other_names_is_no_row_of_data(tmp_path: Path) -> None:
    recipe = recipe_of(tmp_path, "{files: people.csv, columns: [user_id, age, city]}")
    (tmp_path / "new.csv").write_text("userid,age,town\nu1,31,Oslo\n")
    with pytest.raises(DataError, match=r"no column 'user_id'\. Did you mean 'userid'\?"):
        read(tmp_path / "new.csv", recipe, "user_id", NAMES)


@pytest.mark.parametrize("name", ["new.csv", "new.jsonl"])
def test_an_empty_file_is_refused(tmp_path: Path, name: str) -> None:
    recipe = recipe_of(tmp_path, FORMS["latin-1"][0])
    (tmp_path / name).write_bytes(b"")
    with pytest.raises(DataError, match=rf"{name} is empty\. Expected "):
        read(tmp_path / name, recipe, "user_id", NAMES)


def test_ids_in_lines_are_no_table(tmp_path: Path) -> None:
    recipe = recipe_of(tmp_path, FORMS["latin-1"][0])
    path = tmp_path / "deny.txt"
    text = "é1\nPAR1\nORC,2\n"
    for data in (gzip.compress(text.encode()), text.encode("latin-1")):
        path.write_bytes(data)
        assert read_ids(path, recipe, "user_id") == ["é1", "PAR1", "ORC,2"]


def test_a_pipe_gives_ids_and_no_table(tmp_path: Path) -> None:
    recipe = recipe_of(tmp_path, FORMS["latin-1"][0])
    pipe = tmp_path / "ids.csv"
    os.mkfifo(pipe)
    writer = threading.Thread(target=pipe.write_text, args=("7\n8\n",))
    writer.start()
    assert read_ids(pipe, recipe, "user_id") == ["7", "8"]
    writer.join()
    for path, what in ((pipe, "pipe or a device"), (tmp_path, "folder")):
        with pytest.raises(DataError, match=f"is a {what}. Expected a file"):
            read(path, recipe, "user_id", NAMES)


def fault(path: Path, recipe: Recipe) -> str:
    """Return the error of reading a file, or the name of the file if there is none."""
    try:
        read(path, recipe, "user_id", NAMES)
    except DataError as error:
        return str(error)
    return path.name


def test_a_damaged_file_of_any_kind_has_one_clear_error(tmp_path: Path) -> None:
    """Cut and changed bytes are read, or refused in one paragraph that names the file."""
    rng = random.Random(5)
    for source, data in FORMS.values():
        recipe = recipe_of(tmp_path, source)
        path = tmp_path / str(recipe.sources["people"].files)
        for _ in range(12):
            damaged = bytearray(data[: rng.randrange(len(data))])
            for at in rng.sample(range(len(damaged)), min(2, len(damaged))):
                damaged[at] = rng.randrange(256)
            path.write_bytes(damaged)
            message = fault(path, recipe)
            assert path.name in message
            assert "\n" not in message
