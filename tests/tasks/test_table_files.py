"""Tables of every format as header and rows, and what a user hears of damaged ones."""

from __future__ import annotations

import json
from pathlib import Path

import pyarrow as arrow
import pyarrow.parquet as parquet
import pytest

from splora.errors import InputError
from splora.tasks.table_files import read_raw


def write(folder: Path, name: str, content: str | bytes) -> Path:
    path = folder / name
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


def test_csv_cells_hold_commas_quotes_and_line_breaks(tmp_path: Path) -> None:
    content = 'sentence,label\r\n"one, two",1\r\n\r\n"she said ""no""\nand left",0\r\na 5" disk,1\r\n'
    raw = read_raw(write(tmp_path, "a.csv", b"\xef\xbb\xbf" + content.encode()))
    assert raw.header == ["sentence", "label"]
    assert raw.rows == [(2, ["one, two", "1"]), (4, ['she said "no"\nand left', "0"]), (6, ['a 5" disk', "1"])]


def test_json_lines_keep_types_and_fill_in_what_an_object_lacks(tmp_path: Path) -> None:
    content = '{"a": "x\u2028y", "label": 1}\n\n{"label": 2.5, "b": null}\n'
    raw = read_raw(write(tmp_path, "a.jsonl", content))
    assert (raw.header, raw.unit) == (["a", "label", "b"], "line")
    assert raw.rows == [(1, ["x\u2028y", 1, None]), (3, [None, 2.5, None])]
    assert read_raw(write(tmp_path, "a.json", content)).rows == raw.rows


def test_json_may_be_one_list_over_many_lines(tmp_path: Path) -> None:
    raw = read_raw(write(tmp_path, "a.json", json.dumps([{"a": "x", "label": 1}, {"a": "y", "label": 0}], indent=1)))
    assert raw.rows == [(1, ["x", 1]), (2, ["y", 0])]
    assert raw.at(2) == f"{tmp_path / 'a.json'}: entry 2"


def test_parquet_in_any_case_of_its_suffix_and_in_row_groups(tmp_path: Path) -> None:
    path = tmp_path / "fold=1" / "A.PARQUET"
    path.parent.mkdir()
    table = arrow.table({"s": arrow.array(["a", "b", "a"]).dictionary_encode(), "label": [0, 1, 1]})
    parquet.write_table(table, path, row_group_size=1)
    raw = read_raw(path)
    assert raw.header == ["s", "label"]
    assert raw.rows == [(1, ("a", 0)), (2, ("b", 1)), (3, ("a", 1))]
    assert raw.at(3).endswith("A.PARQUET: row 3")


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.csv", "", "is empty."),
        ("a.csv", "\n\r\n", "is empty."),
        ("a.jsonl", " \n", "is empty."),
        ("a.json", "[]", "is empty."),
        (
            "a.csv",
            "s,label\na,1\none, two,1\n",
            "line 3 has 3 columns where line 1 has 2; texts with commas, quotes or line breaks stand in quotes.",
        ),
        ("a.csv", 's,label\na,1\n"b,0\nc,1\n', "line 3: is not CSV (a quote that opens here is never closed)."),
        (
            "a.csv",
            's,label\na,1\n"' + "b,0\n" * 40_000,
            "line 3: is not CSV (a text of more than 131,072 characters, or a quote that is never closed).",
        ),
        ("a.csv", 's,label\n"a"b,1\n', "line 2: is not CSV (',' expected after '\"')."),
        ("a.jsonl", '{"a": 1}\n\n{"a": 1\n', "line 3: is not JSON at column 8 (Expecting ',' delimiter)."),
        ("a.jsonl", '{"a": 1}\n[1]\n', "line 2: is a list where an object is needed."),
        ("a.json", '[{"a": 1}, 5]', "entry 2: is a number where an object is needed."),
        ("a.json", '[{"a": 1},\n {"a" 2}]', "line 2: is not JSON at column 7 (Expecting ':' delimiter)."),
        ("a.jsonl", "[" * 100_000, "line 1: is nested too deeply."),
        ("a.csv", b"s,label\nfine,1\ncaf\xe9,1\n", "line 3: is not UTF-8 (byte 0xe9); save the file as UTF-8."),
        ("a.jsonl", b'{"s": "\xff"}', "line 1: is not UTF-8 (byte 0xff); save the file as UTF-8."),
        (
            "a.tsv",
            b"s\tlabel\nfi\0ne\t1\n",
            "line 2: holds a NUL byte: damaged, or UTF-16; save the file as UTF-8.",
        ),
        (
            "a.csv",
            "s,label\n".encode("utf-16"),
            "line 1: holds a NUL byte: damaged, or UTF-16; save the file as UTF-8.",
        ),
    ],
)
def test_damaged_files_are_named_with_their_line(name: str, content: str | bytes, message: str, tmp_path: Path) -> None:
    path = write(tmp_path, name, content)
    with pytest.raises(InputError) as raised:
        read_raw(path)
    assert str(raised.value) == f"{path}: {message}"


def test_damaged_parquet_is_named(tmp_path: Path) -> None:
    path = tmp_path / "a.parquet"
    parquet.write_table(arrow.table({"s": ["a"], "label": [1]}), path)
    path.write_bytes(path.read_bytes()[:-10])
    with pytest.raises(InputError, match=r"a\.parquet: cannot be read as Parquet \(.+\)\.$"):
        read_raw(path)
    parquet.write_table(arrow.table({"s": arrow.array([], "string"), "label": arrow.array([], "int64")}), path)
    with pytest.raises(InputError, match=r"a\.parquet: has no rows\.$"):
        read_raw(path)


@pytest.mark.parametrize("name", ["none.tsv", "none.csv", "none.jsonl", "none.parquet"])
def test_missing_files_are_named(name: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=rf"{name}: cannot be read.*No such file or directory"):
        read_raw(tmp_path / name)
