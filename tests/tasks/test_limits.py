"""Small files that unpack to gigabytes, and limits lowered to the size of a test: one sentence each, soon and small.

The limits themselves are tried here with files as small as they can be; `SPLORA_LIMITS` lowers them for the rest.
"""

from __future__ import annotations

import gzip
import json
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as arrow
import pyarrow.parquet as parquet
import pytest

from splora.errors import InputError
from splora.reading import CHARACTERS, COLUMNS, FACTOR, Budget, limit, read_bytes
from splora.tasks.glue_tables import read_table
from splora.tasks.glue_tasks import TASKS
from splora.tasks.squad_json import read_squad
from splora.tasks.text_sources import read_text

Read = Callable[[Path], Any]
READERS: dict[str, Read] = {
    "questions": read_squad,
    "table": lambda path: read_table(path, TASKS["sst2"]),
    "text": lambda path: read_text(str(path), "wikitext2", "eval"),
}
LONG = "a" * (CHARACTERS + 1)
#: How every sentence about a limit ends.
LIMITED = "pass a smaller file, or set SPLORA_LIMITS=4 to allow four times as much."


def asked(**changes: Any) -> dict[str, Any]:
    answers = {"text": ["a"], "answer_start": [0]}
    return {"id": "q", "title": "t", "context": "a b", "question": "c?", "answers": answers} | changes


def refused(reader: str, path: Path, sentence: str) -> None:
    """One short sentence with the file's name, and not much memory on the way."""
    tracemalloc.start()
    with pytest.raises(InputError) as raised:
        READERS[reader](path)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    (problem,) = raised.value.problems
    assert str(path) in problem
    assert sentence in problem
    assert len(problem) < 700
    assert peak < 10_000_000


@pytest.mark.parametrize("shared", [True, False])
def test_a_parquet_bomb_of_gigabytes(shared: bool, tmp_path: Path) -> None:
    path = tmp_path / "train.parquet"
    texts = arrow.array(["a" * 100_000] * 2_000)
    table = arrow.table({"sentence": texts.dictionary_encode() if shared else texts, "label": [1] * 2_000})
    options: dict[str, Any] = {"compression": "zstd", "use_dictionary": shared, "store_schema": False}
    with parquet.ParquetWriter(path, table.schema, **options) as writer:
        for _ in range(50 if shared else 3):  # 10 GB, of which each group holds a text once; 600 MB
            writer.write_table(table)
    assert path.stat().st_size < 1_000_000
    refused("table", path, "too much to read")


@pytest.mark.parametrize(("rows", "columns", "sentence"), [
    (3_000_000, 1, "has 3,000,000 rows; at most 1,000,000 are read"),
    (1, COLUMNS + 1, "has 1,001 columns; at most 1,000 are read"),
])  # fmt: skip
def test_a_parquet_of_many_rows_or_columns(rows: int, columns: int, sentence: str, tmp_path: Path) -> None:
    path = tmp_path / "train.parquet"
    ones = arrow.array([1], "int8").take(arrow.array([0] * min(rows, 100_000), "int32"))
    part = arrow.table({f"c{number}": ones for number in range(columns)})
    with parquet.ParquetWriter(path, part.schema, compression="zstd") as writer:
        for _ in range(max(1, rows // 100_000)):
            writer.write_table(part)
    refused("table", path, sentence)


def test_lists_in_parquet_count_by_what_they_hold(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(FACTOR, "0.01")
    path = tmp_path / "train.parquet"
    parquet.write_table(arrow.table({"label": arrow.array([[1] * 10_000] * 9, arrow.list_(arrow.int8()))}), path)
    refused("table", path, "9 rows: too much to read")


@pytest.mark.parametrize(
    ("reader", "name", "line"),
    [
        ("questions", "dev.json.gz", b"[" + b"[],"*9),
        ("table", "dev.tsv.gz", b"a" * 99 + b"\t"),
        ("table", "dev.csv.gz", b"a," * 99),
        ("table", "dev.jsonl.gz", b'{"a": 1}\n' + b" " * 9_000),
        ("table", "dev.json.gz", b"[1," + b" " * 9_000),
        ("text", "test.jsonl.gz", b'{"text": "a"}\n' + b"\n" * 9_000),
        ("text", "test.json.gz", b'{"text": "'),
    ],
)  # fmt: skip
def test_a_gzip_bomb(
    reader: str, name: str, line: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:  # fmt: skip
    monkeypatch.setenv(FACTOR, "0.002")  # of 256 MB unpacked
    path = tmp_path / name
    with gzip.open(path, "wb", 1) as file:
        for _ in range(1_000_000 // (1000 * len(line)) + 1):
            file.write(1000 * line)
    assert path.stat().st_size < 100_000
    refused(reader, path, LIMITED)


def test_the_unpacked_size_is_limited_as_it_is_told(tmp_path: Path) -> None:
    with gzip.open(tmp_path / "a.gz", "wb", 1) as file:
        for _ in range(257):
            file.write(b" " * 1_000_000)
    with pytest.raises(
        InputError, match=r"a\.gz: has more than 256 MB unpacked, the most that is read; pass a smaller"
    ):
        read_bytes(tmp_path / "a.gz")


@pytest.mark.parametrize(
    ("reader", "name", "content", "sentence"),
    [
        ("questions", "a.json", [asked(context=LONG)], "(id 'q') holds a text of 1,000,001 characters"),
        ("questions", "a.json", [asked(question=LONG)], "(id 'q') holds a text of 1,000,001 characters"),
        ("questions", "a.json", [asked(id=LONG)], "aaa'… (1,000,001 characters)) holds a text of 1,000,001 char"),
        ("questions", "a.json", [asked(title=LONG)], "(id 'q') holds a text of 1,000,001 characters"),
        ("table", "a.tsv", f"sentence\tlabel\n{LONG}\t1\n", "line 2: column 'sentence' holds a text of 1,000,001 char"),
        ("table", "a.tsv", f"sentence\tlabel\na\t{LONG}\n", "line 2: unknown label 'aaaa"),
        ("table", "a.tsv", f"{LONG}\tlabel\na\t1\n", "its columns are 'aaaa"),
        ("table", "a.csv", f"sentence,label\n{LONG},1\n", "line 2: is not CSV (a text of more than 131,072 characters"),
        ("table", "a.jsonl", json.dumps({"sentence": LONG, "label": 1}), "holds a text of 1,000,001 characters"),
        ("table", "a.jsonl", json.dumps({"sentence": [LONG] * 3, "label": 1}), "in column 'sentence'; a text is"),
        ("table", "a.jsonl", json.dumps({"sentence": "a", "label": LONG}), "unknown label 'aaa"),
        ("text", "a.txt", f"a\n{LONG}\n", "line 2: holds a text of"),
        ("text", "a.jsonl", json.dumps({"text": LONG}), "line 1: holds a text of 1,000,001 characters"),
        ("text", "a.jsonl", json.dumps({"text": [LONG]}), "line 1: text is ['aaaa"),
    ],
)  # fmt: skip
def test_a_text_of_millions_of_characters(
    reader: str, name: str, content: Any, sentence: str, tmp_path: Path
) -> None:  # fmt: skip
    (tmp_path / name).write_text(content if isinstance(content, str) else json.dumps(content), encoding="utf-8")
    refused(reader, tmp_path / name, sentence)


@pytest.mark.parametrize(
    ("reader", "name", "content"),
    [
        ("questions", "a.json", "[" + "[]," * 10_000 + "[]]"),
        ("questions", "a.json", "[" + "1,2," * 20_000 + "1]"),
        ("questions", "a.json", "\n".join(["[]"] * 10_000)),
        ("questions", "a.json", json.dumps([asked(context="x\U0001f600" * 40_000)], ensure_ascii=False)),
        ("table", "a.tsv", "sentence\tlabel\n" + "a\t1\n" * 10_000),
        ("table", "a.tsv", "sentence\tlabel\n" + "\ta" * 10_000),
        ("table", "a.csv", "sentence,label\n" + "a,1\n" * 10_000),
        ("table", "a.csv", "sentence,label\n" + "," * 10_000),
        ("table", "a.json", "[" + '{"a":1},' * 10_000 + "{}]"),
        ("table", "a.jsonl", '{"a":1}\n' * 10_000),
        ("text", "a.txt", "a\n" * 10_000),
        ("text", "a.jsonl", '{"text":"a"}\n' * 10_000),
    ],
)
def test_what_would_take_too_much_memory_is_not_parsed(
    reader: str, name: str, content: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(FACTOR, "0.0005")  # of 500 MB
    (tmp_path / name).write_text(content, encoding="utf-8")
    refused(reader, tmp_path / name, LIMITED)


@pytest.mark.parametrize(("reader", "name"), [("questions", "a.json"), ("table", "a.tsv"), ("text", "a.txt")])
def test_blank_lines_are_counted(
    reader: str, name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:  # fmt: skip
    monkeypatch.setenv(FACTOR, "0.001")
    (tmp_path / name).write_text("\n" * 10_000)
    refused(reader, tmp_path / name, "")


def test_a_key_of_its_own_in_each_object_is_no_table(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text("".join(f'{{"k{number}": 1}}\n' for number in range(2_000)))
    refused("table", tmp_path / "a.jsonl", "line 1001: with it there are more than 1,000 different keys")


@pytest.mark.parametrize("reader", READERS)
@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        ('{"id": %s}' % ("9" * 5_000), "holds a whole number of thousands of digits"),
        ('{"a": "\\ud83d"}\n{"a": %s}' % ("9" * 5_000), "line 2: holds a whole number of thousands of digits"),
        ("[" * 5_000 + "]" * 5_000, "nested too deeply"),
        ('{"a":' * 5_000 + "1" + "}" * 5_000, "nested too deeply"),
    ],
)  # fmt: skip
def test_numbers_and_nesting_without_end(reader: str, content: str, sentence: str, tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text(content, encoding="utf-8")
    refused(reader, tmp_path / "a.json", sentence)


@pytest.mark.parametrize("changes", [
    {"id": "\ud83d"}, {"title": "a\udc00"}, {"context": "a \ud83d b"}, {"question": "\udfff"},
    {"answers": {"text": ["\ud83d"], "answer_start": [0]}},
])  # fmt: skip
def test_what_is_written_at_the_end_can_be_written(changes: dict[str, Any], tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text(json.dumps([asked(**changes)]))
    refused("questions", tmp_path / "a.json", "holds half a character (\\ud")


def test_half_a_character_in_running_text(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text('{"text": "fine"}\n{"text": "a\\ud83d"}')
    refused("text", tmp_path / "a.jsonl", "line 2: holds half a character (\\ud83d)")


def test_who_has_more_raises_the_limits(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(FACTOR, "2")
    (tmp_path / "a.jsonl").write_text(json.dumps({"text": LONG}))
    assert read_text(str(tmp_path / "a.jsonl"), "wikitext2", "eval") == LONG
    for wrong in ("0", "-1", "many", "nan", "inf", "1e-30"):
        monkeypatch.setenv(FACTOR, wrong)
        with pytest.raises(InputError, match=rf"{FACTOR} is '{wrong}' in the environment; a number above 0 is needed"):
            limit(10)


def test_a_budget_tells_where_it_ended() -> None:
    budget = Budget("file", 10)
    budget.take(10)
    with pytest.raises(InputError, match=r"^file: line 3: too much to read: .* more than 10 bytes of memory; pass a"):
        budget.take(1, "line 3")


def test_compressed_under_another_name(tmp_path: Path) -> None:
    for reader, name in (("questions", "a.json"), ("table", "a.tsv"), ("text", "a.txt")):
        (tmp_path / name).write_bytes(gzip.compress(b"[]"))
        refused(reader, tmp_path / name, "is compressed; its name must end in .gz, or unpack it.")
