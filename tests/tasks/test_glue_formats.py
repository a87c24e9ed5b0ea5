"""GLUE's tasks from tables of every format, with every known name of a column and the user's own."""

from __future__ import annotations

import csv
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pyarrow as arrow
import pyarrow.parquet as parquet
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from splora.errors import InputError
from splora.tasks.glue import GlueDataModule
from splora.tasks.glue_tables import TASKS, Table, find_source, read_source, read_table, table_of_hub

FORMATS = ("tsv", "csv", "jsonl", "json", "parquet")
Rows = Mapping[str, Sequence[Any]]


def write(path: Path, columns: Rows) -> Path:
    """Write columns as the file's suffix says."""
    names, rows = list(columns), list(zip(*columns.values(), strict=True))
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix == ".parquet":
        parquet.write_table(arrow.table({name: list(cells) for name, cells in columns.items()}), path)
    elif path.suffix == ".csv":
        with path.open("w", newline="", encoding="utf-8") as file:
            csv.writer(file).writerows([names, *rows])
    elif path.suffix == ".tsv":
        path.write_text("".join("\t".join(map(str, row)) + "\n" for row in [names, *rows]), newline="")
    else:
        objects = [dict(zip(names, row, strict=True)) for row in rows]
        path.write_text("\n".join(map(json.dumps, objects)) if path.suffix == ".jsonl" else json.dumps(objects))
    return path


def equal(one: Table, other: Table) -> bool:
    same = one.labels.dtype == other.labels.dtype and np.array_equal(one.labels, other.labels)
    return one.texts == other.texts and same


@pytest.mark.parametrize("suffix", FORMATS)
@pytest.mark.parametrize("task", ["mnli", "qqp", "qnli", "sst2", "stsb", "mrpc"])
def test_every_task_loads_from_a_folder_of_every_format(task: str, suffix: str, tmp_path: Path) -> None:
    texts = [f"text {n}, \"quoted\" 'and' more" for n in range(6)]
    labels: list[Any] = [number % len(TASKS[task].labels) for number in range(6)] if TASKS[task].labels else [2.5] * 6
    names = TASKS[task].hub_sentences or TASKS[task].sentences
    columns = {"idx": range(6), **dict.fromkeys(names, texts), "label": labels}
    parts = ("validation_matched", "validation_mismatched") if task == "mnli" else ("validation",)
    for name in ("train", *parts):
        write(tmp_path / f"{name}.{suffix}", columns)
    data = GlueDataModule("embedded", str(tmp_path), str(tmp_path), task=task, cache_dir=str(tmp_path / "cache"))
    data.setup("fit")
    assert len(data.features("train")) == 6
    found = data.features("eval").columns["labels"]
    assert isinstance(found, np.ndarray)
    assert found.tolist() == labels * len(parts)
    assert data.tables("train")[""].texts[-1] == texts
    assert list(data.tables("eval")) == (["", "_mismatched"] if task == "mnli" else [""])


WORDS = st.text(st.characters(codec="utf-8", exclude_characters="\0\t\r\n"), min_size=1, max_size=20).filter(str.strip)


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(rows=st.lists(st.tuples(WORDS, WORDS, st.integers(-1, 2)), min_size=1, max_size=8), named=st.booleans())
def test_the_same_examples_in_all_formats_are_the_same_table(
    rows: list[tuple[str, str, int]], named: bool, tmp_path: Path
) -> None:
    rows += [("an end", "that is known", label) for label in (1, 0, 2)]
    labels = TASKS["mnli"].labels
    expected = [(one, two, label) for one, two, label in rows if label >= 0]
    shown = [(labels[label] if label >= 0 else "-") if named else label for _, _, label in rows]
    columns = {"premise": [row[0] for row in rows], "label": shown, "hypothesis": [row[1] for row in rows]}
    for suffix in FORMATS:
        table = read_table(write(tmp_path / f"train.{suffix}", columns), TASKS["mnli"])
        assert [(*pair, label) for *pair, label in zip(*table.texts, table.labels.tolist(), strict=True)] == expected


@pytest.mark.parametrize(
    ("task", "names"),
    [
        ("sst2", ("sentence", "label")),
        ("sst2", ("text", "LABEL")),
        ("cola", ("Text", "labels")),
        ("mnli", ("sentence1", "sentence2", "gold_label")),
        ("mnli", ("Premise", "Hypothesis", "label")),
        ("qqp", ("question1", "question2", "is_duplicate")),
        ("qqp", ("sentence1", "sentence2", "label")),
        ("qnli", ("question", "sentence", "label")),
        ("qnli", ("sentence1", "sentence2", "label")),
        ("mrpc", ("#1 String", "#2 String", "Quality")),
        ("mrpc", ("sentence1", "sentence2", "label")),
        ("rte", ("premise", "hypothesis", "label")),
        ("stsb", ("sentence1", "sentence2", "score")),
        ("stsb", ("text_a", "text_b", "label")),
    ],
)
@pytest.mark.parametrize("suffix", FORMATS)
def test_usual_names_of_columns_are_recognized(suffix: str, task: str, names: tuple[str, ...], tmp_path: Path) -> None:
    cells = [[f"{name} {row}" for row in range(2)] for name in names[:-1]]
    columns = {"idx": [7, 8], names[-1]: [1, 0], **dict(zip(names, cells, strict=False))}
    table = read_table(write(tmp_path / f"train.{suffix}", columns), TASKS[task])
    assert list(table.texts) == cells
    assert table.labels.tolist() == [1, 0]


def test_a_tasks_own_columns_go_before_others_of_the_same_table(tmp_path: Path) -> None:
    columns = {"text": ["no"], "sentence": ["yes"], "Sentence": ["no"], "labels": [0], "label": [1]}
    table = read_table(write(tmp_path / "a.jsonl", columns), TASKS["sst2"])
    assert table.texts == (["yes"],)
    assert table.labels.tolist() == [1]


@pytest.mark.parametrize("suffix", FORMATS)
def test_the_users_names_of_columns(suffix: str, tmp_path: Path) -> None:
    columns = {"sentence1": ["no"], "My premise": ["a"], "hypothesis": ["b"], "gold": ["neutral"], "label": [0]}
    write(tmp_path / f"dev.{suffix}", columns)
    own = {"premise": "my PREMISE", "sentence2": "hypothesis", "label": "gold"}
    data = GlueDataModule("embedded", None, str(tmp_path), task="mnli", columns=own)
    table = data.tables("eval")[""]
    assert table.texts == (["a"], ["b"])
    assert table.labels.tolist() == [1]
    assert data.settings()["columns"] == own


def test_the_users_names_go_together_with_usual_ones(tmp_path: Path) -> None:
    path = write(tmp_path / "a.csv", {"premise": ["a"], "hypothesis": ["b"], "gold": [2]})
    table = read_table(path, TASKS["mnli"], {"label": "gold"})
    assert (table.texts, table.labels.tolist()) == ((["a"], ["b"]), [2])
    path = write(tmp_path / "b.csv", {"question": ["a"], "answer": ["b"], "label": [1]})
    assert read_table(path, TASKS["qnli"], {"sentence": "answer"}).texts == (["a"], ["b"])


@pytest.mark.parametrize(
    ("task", "columns", "message"),
    [
        ("mnli", {"labl": "gold"}, "columns names 'labl'; allowed are sentence1, sentence2, label and .*'label'"),
        ("sst2", {"sentence2": "b"}, "columns names 'sentence2'; allowed are sentence, label and"),
        ("mnli", {"premise": "a", "sentence1": "b"}, "columns names 'b' and 'a' for the same column"),
    ],
)
def test_overrides_that_mean_nothing_are_refused_at_once(task: str, columns: dict[str, str], message: str) -> None:
    with pytest.raises(InputError, match=message):
        GlueDataModule("embedded", task=task, columns=columns)


@pytest.mark.parametrize(
    ("task", "content", "columns", "message"),
    [
        (
            "mnli",
            '{"premise": "a", "hypotheses": "b", "label": 1}',
            {},
            "has no column 'hypothesis'; its columns are 'premise', 'hypotheses', 'label'; did you mean 'hypotheses'?",
        ),
        (
            "sst2",
            '{"sentence": "a", "golden": 1}',
            {"label": "gold"},
            "has no column 'gold'; its columns are 'sentence', 'golden'; did you mean 'golden'?",
        ),
        (
            "rte",
            '{"sentence1": "a", "sentence2": "b", "label": 0}',
            {"sentence2": "sentence1"},
            "the columns 'sentence1', 'sentence1', 'label' are not all different ones.",
        ),
        ("cola", '{"a": "b", "c": 1}', {}, "has no column 'sentence'; its columns are 'a', 'c'."),
        ("sst2", '{"text": "a", "label": 1}\n{"text": "b"}', {}, "line 2: has no label."),
        ("sst2", '{"text": "a", "label": [1]}', {}, "line 1: [1] is no label."),
        (
            "qnli",
            '{"question": "a", "sentence": "b", "label": 2}',
            {},
            "line 1: unknown label '2'; allowed are entailment, not_entailment.",
        ),
        ("sst2", '{"text": null, "label": 1}', {}, "line 1: has no text in column 'text'; a text is needed."),
        ("sst2", '{"text": 5, "label": 1}', {}, "line 1: has 5 in column 'text'; a text is needed."),
        ("sst2", '{"text": "\\ud83d", "label": 1}', {}, "line 1: column 'text' holds half a character (\\ud83d)."),
        (
            "stsb",
            '{"sentence1": "a", "sentence2": "b", "label": NaN}',
            {},
            "line 1: the score 'nan' is not a number.",
        ),
        (
            "sst2",
            '{"text": "a", "label": -1}\n{"text": "b", "label": "-"}',
            {},
            "none of its 2 rows has a label, as in a test set.",
        ),
    ],
)
def test_bad_tables_are_named_with_their_line(
    task: str, content: str, columns: dict[str, str], message: str, tmp_path: Path
) -> None:
    path = tmp_path / "bad.jsonl"
    path.write_text(content)
    with pytest.raises(InputError) as raised:
        read_table(path, TASKS[task], columns)
    assert str(raised.value) == f"{path}: {message}"


def test_rows_of_parquet_and_lines_of_csv_are_counted_from_one(tmp_path: Path) -> None:
    columns = {"sentence": ["a\nb", "c"], "label": [1, 5]}
    with pytest.raises(InputError, match=r"a\.parquet: row 2: unknown label '5'; allowed are 0 \(negative\)"):
        read_table(write(tmp_path / "a.parquet", columns), TASKS["sst2"])
    with pytest.raises(InputError, match=r"a\.csv: line 4: unknown label '5'"):
        read_table(write(tmp_path / "a.csv", columns), TASKS["sst2"])
    with pytest.raises(InputError, match=r"b\.csv: has a header and no rows\."):
        read_table(write(tmp_path / "b.csv", {"sentence": [], "label": []}), TASKS["sst2"])


def test_labels_are_names_or_numbers_in_any_spelling(tmp_path: Path) -> None:
    spelled = ["Not entailment", "entailment", "not-entailment", "1", "0", "1.0", "-1", "-"]
    columns = {"question": ["q"] * 8, "sentence": ["s"] * 8, "label": spelled}
    for suffix in ("csv", "tsv"):
        table = read_table(write(tmp_path / f"a.{suffix}", columns), TASKS["qnli"])
        assert table.labels.tolist() == [1, 0, 1, 1, 0, 1]
    path = tmp_path / "a.jsonl"
    path.write_text("\n".join(json.dumps({"text": "a", "label": label}) for label in (True, 0.0, "positive", 1)))
    assert read_table(path, TASKS["sst2"]).labels.tolist() == [1, 0, 1, 1]


def test_cola_without_a_header_as_csv(tmp_path: Path) -> None:
    path = tmp_path / "dev.csv"
    path.write_text('gj04,0,*,"They drank, slept."\ngj04,1,,They slept.\n')
    table = read_table(path, TASKS["cola"])
    assert (table.texts, table.labels.tolist()) == ((["They drank, slept.", "They slept."],), [0, 1])
    path.write_text("gj04,0,*,They drank.\n")
    assert read_table(path, TASKS["cola"]).texts == (["They drank."],)


@pytest.mark.parametrize("stem", ["dev", "validation", "VALIDATION", "val"])
def test_files_of_a_folder_by_their_usual_names(stem: str, tmp_path: Path) -> None:
    path = write(tmp_path / f"{stem}.csv", {"sentence": ["a"], "label": [1]})
    write(tmp_path / "dev_ids.tsv", {"id": [1]})
    assert find_source(str(tmp_path), "sst2", "eval") == {"": [path]}


@pytest.mark.parametrize("stem", ["dev_{}", "validation_{}", "validation-{}", "dev.{}"])
def test_both_parts_of_mnli_by_their_usual_names(stem: str, tmp_path: Path) -> None:
    for part in ("matched", "mismatched"):
        columns = {"premise": [part], "hypothesis": ["b"], "label": [0]}
        write(tmp_path / f"{stem.format(part)}.jsonl", columns)
    found = read_source(str(tmp_path), "mnli", "eval")
    assert {part: table.texts[0] for part, table in found.items()} == {"": ["matched"], "_mismatched": ["mismatched"]}


def test_shards_are_joined_in_their_order(tmp_path: Path) -> None:
    for number in (2, 0, 1):
        columns = {"sentence": [f"text {number}"], "label": [number % 2]}
        write(tmp_path / f"train-{number:05}-of-00003.parquet", columns)
    table = read_source(str(tmp_path), "sst2", "train")[""]
    assert equal(table, Table((["text 0", "text 1", "text 2"],), np.array([0, 1, 0])))
    (tmp_path / "train-00001-of-00003.parquet").unlink()
    with pytest.raises(InputError, match=r"train-00001-of-00003\.parquet is missing \(1 of 3 shards are\)"):
        read_source(str(tmp_path), "sst2", "train")


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (("dev.tsv", "validation.tsv"), "holds dev.tsv and validation.tsv, and which of them is meant"),
        (("dev.csv", "dev.tsv"), "holds dev.csv and dev.tsv, and which of them is meant"),
        (("dev.parquet", "dev-00000-of-00002.parquet"), "holds dev-00000-of-00002.parquet and dev.parquet, and"),
        (
            ("train.json", "readme.md"),
            "this folder has no dev.tsv; it is needed to evaluate sst2. "
            "Other endings (.csv, .jsonl, .parquet, .json, .ndjson) are fine; it holds readme.md and train.json.",
        ),
        ((), "are fine; it holds no files."),
    ],
)
def test_folders_with_too_many_files_or_none(names: tuple[str, ...], message: str, tmp_path: Path) -> None:
    for name in names:
        (tmp_path / name).touch()
    with pytest.raises(InputError) as raised:
        find_source(str(tmp_path), "sst2", "eval")
    assert message in str(raised.value)


def test_data_sets_of_the_hub_have_columns_too() -> None:
    rows = datasets.Dataset.from_dict({"premise": ["a", "b"], "hypothesis": ["c", "d"], "gold": [2, -1]})
    table = table_of_hub(rows, "someone/data", TASKS["mnli"], {"label": "gold"})
    assert (table.texts, table.labels.tolist()) == ((["a"], ["c"]), [2])
    with pytest.raises(InputError, match=r"^someone/data: has no column 'gold_label'; its columns are 'premise'"):
        table_of_hub(rows, "someone/data", TASKS["mnli"])


def test_minus_one_is_no_class(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    columns = {"sentence": ["a", "b", "c"], "label": [-1, 1, 1]}
    with pytest.raises(
        InputError, match=r"labels are -1, 1; GLUE counts from 0, and -1 means no label; write 0, 1, or"
    ):
        read_table(write(tmp_path / "a.csv", columns), TASKS["sst2"])
    assert len(read_table(write(tmp_path / "b.csv", columns | {"label": [-1, 1, 0]}), TASKS["sst2"])) == 2
    assert "b.csv: 1 of 3 rows have no label and are left out" in caplog.text
