"""GLUE's tables, from the file to the score."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from splora.errors import InputError
from splora.tasks.data_module import Split
from splora.tasks.embedded.classification import HEADERS, write_glue
from splora.tasks.glue import GlueDataModule
from splora.tasks.glue_tables import TASKS, parse_table, read_table


@pytest.fixture
def module(tmp_path: Path) -> Any:
    def make(task: str, train: Any = None, predict: Any = None, **options: Any) -> GlueDataModule:
        return GlueDataModule(
            options.pop("model", "embedded"),
            str(train) if train else None,
            str(predict) if predict else None,
            task=task,
            cache_dir=str(tmp_path / "cache"),
            **options,
        )

    return make


def logits_for(data: GlueDataModule, labels: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """Logits that predict exactly `labels`."""
    assert data.num_labels is not None
    if data.num_labels == 1:
        return labels[:, None].astype(np.float32)
    return np.eye(data.num_labels, dtype=np.float32)[labels]


@pytest.mark.parametrize("task", HEADERS)
def test_every_task_from_its_folder_to_perfect_scores(task: str, module: Any, tmp_path: Path) -> None:
    folder = write_glue(tmp_path / task, task)
    data = module(task, folder, folder, max_train_examples=40)
    data.setup("fit")
    assert len(data.features("train")) == 40
    labels = data.features("eval").columns["labels"]
    result = data.evaluate({"logits": logits_for(data, labels)})
    expected = {"mnli": ["accuracy", "accuracy_mismatched"]}.get(task, list(TASKS[task].metrics))
    assert list(result.metrics) == expected
    assert all(value == pytest.approx(100) for value in result.metrics.values())
    assert data.primary_metric in result.metrics
    assert len(json.loads(json.dumps(result.artifacts["predictions"]))) == len(labels)


@pytest.mark.parametrize("task", ["sst2", "mnli"])
def test_embedded_data_need_no_files_and_equal_the_written_ones(task: str, module: Any, tmp_path: Path) -> None:
    folder = write_glue(tmp_path / task, task)
    splits: tuple[Split, ...] = ("train", "eval")
    for split in splits:
        made = module(task, "embedded", "embedded").features(split)
        read = module(task, folder, folder).features(split)
        assert np.array_equal(made.columns["input_ids"].values, read.columns["input_ids"].values)
        assert np.array_equal(made.columns["labels"], read.columns["labels"])


def test_tokens_are_those_of_one_example_at_a_time(
    module: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("splora.tasks.glue.BATCH", 7)
    folder = write_glue(tmp_path / "rte", "rte")
    data = module("rte", folder, folder, max_seq_length=16)
    features, table = data.features("eval"), data.tables("eval")[""]
    for row in range(0, 400, 37):
        alone = data.tokenizer(*(column[row] for column in table.texts), truncation=True, max_length=16)
        for name in ("input_ids", "token_type_ids"):
            assert features.columns[name][row].tolist() == alone[name]
        assert features.lengths[row] == len(alone["input_ids"]) <= 16
    again = module("rte", folder, folder, max_seq_length=16).features("eval")
    assert np.array_equal(again.columns["input_ids"].values, features.columns["input_ids"].values)


def test_files_and_folders_are_both_taken(module: Any, tmp_path: Path) -> None:
    folder = write_glue(tmp_path / "mnli", "mnli")
    data = module("mnli", None, folder / "dev_mismatched.tsv")
    data.setup("validate")
    labels = data.features("eval").columns["labels"]
    assert list(data.evaluate({"logits": logits_for(data, labels)}).metrics) == ["accuracy"]
    (folder / "dev_mismatched.tsv").unlink()
    data = module("mnli", folder, folder)
    assert len(data.features("eval")) == 400


def test_parts_of_mnli_are_scored_apart(module: Any, tmp_path: Path) -> None:
    folder = write_glue(tmp_path / "mnli", "mnli")
    data = module("mnli", folder, folder)
    labels = data.features("eval").columns["labels"].copy()
    labels[400:] = (labels[400:] + 1) % 3
    assert data.evaluate({"logits": logits_for(data, labels)}).metrics == {"accuracy": 100, "accuracy_mismatched": 0}


def test_a_missing_training_file_matters_only_in_training(module: Any, tmp_path: Path) -> None:
    folder = write_glue(tmp_path / "qnli", "qnli")
    (folder / "train.tsv").unlink()
    data = module("qnli", folder, folder)
    data.setup("test")
    assert len(data.features("eval")) == 400
    with pytest.raises(InputError, match=r"qnli: this folder has no train\.tsv; it is needed to train qnli\."):
        data.setup("fit")


def test_a_missing_folder_is_named(module: Any, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="nowhere: there is no such file or folder"):
        module("sst2", tmp_path / "nowhere").features("train")


def test_an_unknown_task_is_met_with_the_nearest() -> None:
    with pytest.raises(InputError, match=r"task is 'mnly'; allowed are mnli, .*; did you mean 'mnli'\?"):
        GlueDataModule("embedded", task="mnly")


def test_labels_follow_a_checkpoint_that_names_them(module: Any, tmp_path: Path) -> None:
    from splora.tasks.embedded.model import embedded_config
    from splora.tasks.embedded.tokenizer import write_tokenizer

    names = {"CONTRADICTION": 0, "Entailment": 1, "neutral": 2}
    write_tokenizer(tmp_path / "model")
    embedded_config(label2id=names, id2label={v: k for k, v in names.items()}).save_pretrained(tmp_path / "model")
    ours = module("mnli", None, "embedded")
    theirs = module("mnli", None, "embedded", model=str(tmp_path / "model"))
    assert ours.label2id == {"entailment": 0, "neutral": 1, "contradiction": 2}
    assert theirs.label2id == {"contradiction": 0, "entailment": 1, "neutral": 2}
    mine, other = ours.features("eval").columns["labels"], theirs.features("eval").columns["labels"]
    assert [ours.id2label[label] for label in mine] == [theirs.id2label[label] for label in other]
    result = theirs.evaluate({"logits": logits_for(theirs, other)})
    assert result.metrics == {"accuracy": 100, "accuracy_mismatched": 100}
    assert result.artifacts["predictions"][0] == ours.id2label[mine[0]]
    # Two labels, or names of another task, say nothing about the order of three.
    assert module("sst2", None, "embedded", model=str(tmp_path / "model")).label2id == {"negative": 0, "positive": 1}


def table(*lines: str) -> str:
    return "".join(line + "\n" for line in lines)


def test_quotes_byte_order_mark_and_line_ends_are_no_matter(tmp_path: Path) -> None:
    path = tmp_path / "dev.tsv"
    content = 'sentence\tlabel\r\n"a quote that never ends\t1\r\nit\'s "fine"\u2028here\t0\r\n'
    path.write_bytes(b"\xef\xbb\xbf" + content.encode())
    found = read_table(path, TASKS["sst2"])
    assert found.texts == (['"a quote that never ends', 'it\'s "fine"\u2028here'],)
    assert found.labels.tolist() == [1, 0]


def test_mnli_takes_its_columns_by_name_and_skips_rows_without_gold() -> None:
    content = table(
        "index\tpromptID\tsentence1_binary_parse\tsentence1\tsentence2\tlabel1\tgold_label",
        "0\t1\t( a )\tA man sits.\tA man rests.\tneutral\tneutral",
        "1\t2\t( b )\tB\tC\tneutral\t-",
        "2\t3\t( c )\tD\tE\tneutral\tcontradiction",
    )
    found = parse_table(content, "dev", TASKS["mnli"])
    assert found.texts == (["A man sits.", "D"], ["A man rests.", "E"])
    assert found.labels.tolist() == [1, 2]


def test_cola_with_and_without_a_header() -> None:
    assert HEADERS["cola"] == ("source", "label", "star", "sentence")
    for content in ("gj04\t0\t*\tThey drank.\n", "sentence\tlabel\nThey drank.\t0\n"):
        found = parse_table(content, "cola", TASKS["cola"])
        assert found.texts == (["They drank."],)
        assert found.labels.tolist() == [0]


def test_scores_are_numbers() -> None:
    found = parse_table(table("sentence1\tsentence2\tscore", "a\tb\t3.25", "c\td\t0"), "x", TASKS["stsb"])
    assert found.labels.tolist() == [3.25, 0.0]


@pytest.mark.parametrize(
    ("task", "content", "message"),
    [
        ("sst2", "", "bad.tsv: is empty."),
        ("sst2", "\n \n", "bad.tsv: is empty."),
        ("sst2", "sentence\tlabel\n", "bad.tsv: has a header and no rows."),
        (
            "sst2",
            "sentences\tlabel\na\t1\n",
            "bad.tsv: line 1: has no column 'sentence'; its columns are 'sentences', 'label'; "
            "did you mean 'sentences'?",
        ),
        (
            "sst2",
            "sentence\tlabel\na\t1\nb\t2\n",
            "bad.tsv: line 3: unknown label '2'; allowed are 0 (negative), 1 (positive).",
        ),
        (
            "rte",
            "sentence1\tsentence2\tlabel\na\tb\tentailmnt\n",
            "bad.tsv: line 2: unknown label 'entailmnt'; allowed are entailment, not_entailment; "
            "did you mean 'entailment'?",
        ),
        (
            "rte",
            "sentence1\tsentence2\tlabel\na\tb\tentailment\n\nc\td\n",
            "bad.tsv: line 4 has 2 columns where at least 3 are needed (1 such rows of 2).",
        ),
        ("stsb", "sentence1\tsentence2\tscore\na\tb\tnan\n", "bad.tsv: line 2: the score 'nan' is not a number."),
        ("stsb", "sentence1\tsentence2\tscore\na\tb\thigh\n", "bad.tsv: line 2: the score 'high' is not a number."),
    ],
)
def test_bad_tables_are_named_with_their_line(task: str, content: str, message: str, tmp_path: Path) -> None:
    (tmp_path / "bad.tsv").write_text(content)
    with pytest.raises(InputError) as raised:
        read_table(tmp_path / "bad.tsv", TASKS[task])
    assert str(raised.value) == f"{tmp_path}/{message}"


def test_other_encodings_are_named_with_their_line(tmp_path: Path) -> None:
    (tmp_path / "bad.tsv").write_bytes(b"sentence\tlabel\nfine\t1\ncaf\xe9\t1\n")
    with pytest.raises(InputError, match=r"bad.tsv: line 3: is not UTF-8 \(byte 0xe9\)"):
        read_table(tmp_path / "bad.tsv", TASKS["sst2"])


def test_torn_rows_are_forgiven_only_where_they_are_published(caplog: pytest.LogCaptureFixture) -> None:
    good = ["1\t2\t3\twhy\twhy not\t0"] * 300
    content = table("id\tqid1\tqid2\tquestion1\tquestion2\tis_duplicate", *good, "4\t5\t6\ttorn", *good)
    assert len(parse_table(content, "train.tsv", TASKS["qqp"])) == 600
    assert "1 of 601 rows are cut and left out; line 302 has 4 columns" in caplog.text
    with pytest.raises(InputError, match=r"line 5 has 4 columns .* \(1 such rows of 4\)"):
        parse_table(table(*content.splitlines()[:4], "4\t5\t6\ttorn"), "train.tsv", TASKS["qqp"])


@pytest.mark.real
@pytest.mark.parametrize(("task", "examples", "positive"), [("sst2", 872, 444), ("qnli", 5463, 2761)])
def test_real_development_sets(task: str, examples: int, positive: int, shared: Path, module: Any) -> None:
    data = module(task, None, shared / "data" / task, model=str(shared / "models" / "minilm-sst2"))
    labels = data.features("eval").columns["labels"]
    assert len(labels) == examples
    assert labels.sum() == positive
