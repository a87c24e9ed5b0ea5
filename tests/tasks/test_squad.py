"""The SQuAD data module: sources, training questions, cache, scores."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from splora.errors import InputError
from splora.tasks import hub, squad
from splora.tasks.features import Ragged
from splora.tasks.squad import SquadDataModule

CONTEXT = "Tessa Marlow wrote the first book in 1843 and the second one in 1851."


def row(name: str, text: str | None = "1843", start: int = 37) -> dict[str, Any]:
    answers = {"text": [] if text is None else [text], "answer_start": [] if text is None else [start]}
    return {"id": name, "title": "", "context": CONTEXT, "question": f"When was it ({name})?", "answers": answers}


def write(folder: Path, rows: list[dict[str, Any]], name: str = "data.json") -> str:
    path = folder / name
    path.write_text(json.dumps(rows))
    return str(path)


def module(folder: Path, **options: Any) -> SquadDataModule:
    options = {"train_file": "embedded", "predict_file": "embedded", "doc_stride": 16, "max_seq_length": 64} | options
    return SquadDataModule("embedded", cache_dir=str(folder / "cache"), **options)


def perfect(data: SquadDataModule, low: float = -5.0) -> dict[str, Any]:
    """Logits that point at the right tokens, found by training's labels."""
    _, windows = data._evaluation()
    width = data.max_seq_length
    outputs = {name: np.full((len(windows), width), low, np.float32) for name in ("start_logits", "end_logits")}
    rows = np.arange(len(windows))
    outputs["start_logits"][rows, windows.start_positions] = 5
    outputs["end_logits"][rows, windows.end_positions] = 5
    return outputs


@pytest.mark.parametrize("task", ["squad", "squad_v2"])
def test_right_logits_score_one_hundred_percent(tmp_path: Path, task: str) -> None:
    data = module(tmp_path, task=task)
    result = data.evaluate(perfect(data))
    assert result.metrics["exact_match"] == pytest.approx(100)
    assert result.metrics["f1"] == pytest.approx(100)
    names = {question.id for question in data.questions("eval")}
    assert set(result.artifacts["predictions"]) == set(result.artifacts["scores"]) == names
    assert ("null_odds" in result.artifacts) == (task == "squad_v2")
    if task == "squad_v2":
        assert result.metrics["NoAns_exact"] == pytest.approx(100)
        assert result.metrics["HasAns_f1"] == pytest.approx(100)
        assert result.metrics["best_f1"] == pytest.approx(100)
    json.dumps(result.artifacts, allow_nan=False)


def test_batches_hold_the_labels_that_their_windows_have(tmp_path: Path) -> None:
    data = module(tmp_path, train_batch_size=8, max_train_examples=64)
    features = data.features("train")
    batch = next(iter(data.train_dataloader()))
    assert batch["input_ids"].shape == batch["attention_mask"].shape == batch["token_type_ids"].shape
    for n, number in enumerate(batch["index"].tolist()):
        ids = features.columns["input_ids"]
        assert isinstance(ids, Ragged)
        assert batch["input_ids"][n, : len(ids[number])].tolist() == ids[number].tolist()
        assert batch["start_positions"][n] == features.columns["start_positions"][number]
        assert batch["start_positions"][n] <= batch["end_positions"][n] < len(ids[number])
    assert "start_positions" not in next(iter(data.val_dataloader()))


def test_the_order_of_outputs_is_the_order_of_windows(tmp_path: Path) -> None:
    data = module(tmp_path, max_seq_length=40, doc_stride=8)
    outputs = perfect(data)
    shuffled = np.random.default_rng(0).permutation(len(outputs["start_logits"]))
    collected = {name: np.empty_like(values) for name, values in outputs.items()}
    for name, values in outputs.items():
        collected[name][shuffled] = values[shuffled]
    assert data.evaluate(collected) == data.evaluate(outputs)


def test_misplaced_answers_are_not_trained_on_but_still_accepted(tmp_path: Path) -> None:
    rows = [row(f"q{n}") for n in range(99)] + [row("bad", "1843", 0) | {"question": "When was it (q0)?"}]
    path = write(tmp_path, rows)
    data = module(tmp_path, train_file=path, predict_file=path)
    assert len(data.features("train")) == 99
    assert len(data.features("eval")) == 100
    outputs = perfect(data)
    for name in outputs:  # the last question is the first once more
        outputs[name][-1] = outputs[name][0]
    assert data.evaluate(outputs).metrics["exact_match"] == pytest.approx(100)


def test_a_subset_of_the_training_questions(tmp_path: Path) -> None:
    path = write(tmp_path, [row(f"q{n}") for n in range(30)])
    sizes = [len(module(tmp_path, train_file=path, max_train_examples=n).features("train")) for n in (1, 7, 30, 99)]
    assert sizes == [1, 7, 30, 30]


def test_version_1_needs_an_answer_for_each_question(tmp_path: Path) -> None:
    path = write(tmp_path, [row("q1"), row("q2", None)])
    with pytest.raises(InputError, match=r"data\.json: 1 of 2 questions have no answer; task squad \(1\.1\)"):
        module(tmp_path, train_file=path).features("train")
    assert len(module(tmp_path, train_file=path, task="squad_v2").features("train")) == 2


def test_prepared_windows_are_kept_and_made_anew_when_anything_changes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write(tmp_path, [row("q1"), row("q2")])
    first = module(tmp_path, predict_file=path).features("eval")
    made: list[int] = []
    real = squad.cut_windows

    def counting(*arguments: Any) -> Any:
        made.append(1)
        return real(*arguments)

    monkeypatch.setattr(squad, "cut_windows", counting)
    again = module(tmp_path, predict_file=path).features("eval")
    assert not made
    for name, column in first.columns.items():
        other = again.columns[name]
        assert isinstance(column, Ragged)
        assert isinstance(other, Ragged)
        assert np.array_equal(column.values, other.values)
        assert np.array_equal(column.offsets, other.offsets)
    # The same content under another name is the same content.
    module(tmp_path, predict_file=write(tmp_path, [row("q1"), row("q2")], "other.json")).features("eval")
    assert not made
    module(tmp_path, predict_file=path, max_seq_length=63).features("eval")
    module(tmp_path, predict_file=path, doc_stride=15).features("eval")
    assert len(made) == 2
    module(tmp_path, predict_file=write(tmp_path, [row("q1"), row("q3")])).features("eval")
    assert len(made) == 3


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    for name in (str(tmp_path / "nope.json"), "nope.json", "folder/nope.json", "./folder/nope"):
        with pytest.raises(InputError, match="no such file"):
            module(tmp_path, train_file=name).features("train")


@pytest.mark.parametrize(
    ("source", "task", "asked"),
    [(None, "squad", "rajpurkar/squad"), (None, "squad_v2", "rajpurkar/squad_v2"), ("some/name", "squad", "some/name")],
)
def test_data_of_the_hub(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, source: str | None, task: str, asked: str
) -> None:
    seen: list[tuple[Any, ...]] = []

    def load(*arguments: Any) -> list[dict[str, Any]]:
        seen.append(arguments)
        return [row("q1")]

    monkeypatch.setattr(hub, "load_dataset", load)
    data = module(tmp_path, train_file=source, predict_file=source, task=task)
    assert len(data.features("train")) == len(data.features("eval")) == 1
    assert [(name, split) for name, _, split, _ in seen] == [(asked, "train"), (asked, "validation")]


def test_the_metric_of_a_checkpoint_is_among_the_metrics(tmp_path: Path) -> None:
    data = module(tmp_path)
    assert data.primary_metric in data.evaluate(perfect(data)).metrics
