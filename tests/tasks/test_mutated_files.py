"""Valid small files with bytes changed anywhere are rows, or one sentence: never another exception."""

from __future__ import annotations

import gzip
import json
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from splora.errors import InputError
from splora.tasks.glue_tables import read_table
from splora.tasks.glue_tasks import TASKS
from splora.tasks.squad_json import read_squad
from splora.tasks.text_sources import read_text

ROWS = [{"sentence": f"é a sentence, number {number} \U0001f600", "label": number % 2} for number in range(4)]
ASKED = [
    {"id": str(number), "context": "An é is here.", "question": "?", "answers": {"text": ["é"], "answer_start": [3]}}
    for number in range(3)
]


@cache
def valid(name: str) -> bytes:
    """A file that its reader takes."""
    kind = name.partition(".")[2].removesuffix(".gz")
    if kind == "parquet":
        import pyarrow as arrow
        import pyarrow.parquet as parquet

        sink = arrow.BufferOutputStream()
        parquet.write_table(arrow.Table.from_pylist(ROWS), sink, compression="gzip", row_group_size=2)
        return bytes(sink.getvalue())
    made: dict[str, str] = {
        "tsv": "sentence\tlabel\n" + "".join(f"{row['sentence']}\t{row['label']}\n" for row in ROWS),
        "csv": "sentence,label\n" + "".join(f'"{row["sentence"]}",{row["label"]}\r\n' for row in ROWS),
        "jsonl": "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in ROWS),
        "list.json": json.dumps(ROWS),
        "squad.json": json.dumps({"data": [{"title": "t", "paragraphs": [{"context": "", "qas": []}]}, *ASKED]}),
        "squad.jsonl": "".join(json.dumps(row) + "\n" for row in ASKED),
        "txt": "".join(f"{row['sentence']}\n" for row in ROWS),
    }
    content = made[kind].encode()
    return gzip.compress(content, mtime=0) if name.endswith(".gz") else content


def read(path: Path) -> Any:
    if "squad" in path.name:
        return read_squad(path)
    if path.name.startswith("text"):
        return read_text(str(path), "wikitext2", "eval")
    return read_table(path, TASKS["sst2"])


NAMES = [
    *("a.tsv", "a.tsv.gz", "a.csv", "a.csv.gz", "a.jsonl", "a.jsonl.gz", "a.list.json", "a.parquet"),
    *("a.squad.json", "a.squad.json.gz", "a.squad.jsonl", "a.squad.jsonl.gz", "text.txt", "text.jsonl.gz"),
]


@pytest.mark.parametrize("name", NAMES)
def test_the_files_themselves_are_read(name: str, tmp_path: Path) -> None:
    (tmp_path / name).write_bytes(valid(name))
    assert len(read(tmp_path / name)) >= 3


@pytest.mark.parametrize("name", NAMES)
@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_changed_bytes_give_rows_or_a_sentence(name: str, data: st.DataObject, tmp_path: Path) -> None:
    content = bytearray(valid(name))
    for _ in range(data.draw(st.integers(1, 4))):
        place = data.draw(st.integers(0, len(content)))
        removed = data.draw(st.sampled_from((0, 1, 1, 2, len(content))))
        added = data.draw(
            st.binary(max_size=3) | st.sampled_from((b'"', b"\\ud83d", b"\x00", b"[" * 3000, b"9" * 5000))
        )
        content[place : place + removed] = added
    path = tmp_path / name
    path.write_bytes(content)
    with suppress(InputError):
        read(path)
