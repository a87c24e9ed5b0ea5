"""Answers out of logits against a plain loop over windows, starts and ends."""

from __future__ import annotations

import itertools
import math
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from splora.tasks.squad_answers import Answers, find_answers
from splora.tasks.squad_features import Windows
from splora.tasks.squad_json import Question

Logits = npt.NDArray[np.float32]


def made(sizes: list[list[int]], width: int = 12) -> tuple[Windows, list[Question]]:
    """Windows with `sizes[q]` context tokens each, after a special token and `q % 3` question tokens and another.

    Token t of a question's context is the characters [2t, 2t + 1); windows do not overlap but for their last token.
    """
    rows: dict[str, list[int]] = {"question": [], "context_begin": [], "context_length": [], "first_token": []}
    starts: list[int] = []
    questions = []
    lengths = []
    for q, windows in enumerate(sizes):
        base, local = len(starts), 0
        for size in windows:
            begin = q % 3 + 2
            rows["question"].append(q)
            rows["context_begin"].append(begin)
            rows["context_length"].append(size)
            rows["first_token"].append(base + local)
            lengths.append(begin + size)
            local += max(0, size - 1)
        total = local + 1
        starts += [2 * t for t in range(total)]
        questions.append(Question(str(q), "", " ".join(chr(97 + t % 26) for t in range(total)), "?", (), ()))
    offsets = np.cumsum([0, *lengths])
    none = np.zeros(len(lengths), np.int32)
    return (
        Windows(
            input_ids=np.zeros(offsets[-1], np.int32),
            token_type_ids=np.zeros(offsets[-1], np.int32),
            offsets=offsets,
            question=np.array(rows["question"], np.int32),
            context_begin=np.array(rows["context_begin"], np.int32),
            context_length=np.array(rows["context_length"], np.int32),
            first_token=np.array(rows["first_token"], np.int64),
            char_starts=np.array(starts, np.int32),
            char_ends=np.array(starts, np.int32) + 1,
            start_positions=none,
            end_positions=none,
            cls_position=np.zeros(1, np.int32),
        ),
        questions,
    )


def padded(logits: Logits, windows: Windows) -> Logits:
    lengths = np.diff(windows.offsets)
    return np.where(np.arange(logits.shape[1]) < lengths[:, None], logits, np.float32(-1e9))


def plain(
    start: Logits, end: Logits, windows: Windows, questions: list[Question], version_2: bool, n_best: int, longest: int
) -> list[tuple[list[tuple[str, float, float, float]], float, str]]:
    """Per question: n-best (text, probability, start and end logit), no-answer score, best text."""
    result = []
    for q, question in enumerate(questions):
        best: dict[tuple[int, int], tuple[float, float]] = {}
        null: tuple[float, float] | None = None
        for w in np.flatnonzero(windows.question == q):
            s, e = [float(v) for v in start[w]], [float(v) for v in end[w]]
            if null is None or s[0] + e[0] < sum(null):
                null = (s[0], e[0])
            begin = int(windows.context_begin[w])
            places = range(begin, begin + int(windows.context_length[w]))
            for i in sorted(places, key=lambda place, s=s: -s[place])[:n_best]:  # type: ignore[misc]
                for j in sorted(places, key=lambda place, e=e: -e[place])[:n_best]:  # type: ignore[misc]
                    if not i <= j < i + longest:
                        continue
                    token = int(windows.first_token[w]) - begin
                    span = (int(windows.char_starts[token + i]), int(windows.char_ends[token + j]))
                    if span not in best or s[i] + e[j] > sum(best[span]):
                        best[span] = (s[i], e[j])
        assert null is not None
        ranked = sorted(best.items(), key=lambda item: (-sum(item[1]), item[0]))[:n_best]
        entries = [(question.context[b:e], scores) for (b, e), scores in ranked]
        text = entries[0][0] if entries else ""
        odds = sum(null) - sum(entries[0][1]) if entries else math.inf
        if version_2:
            entries.insert(sum(sum(scores) >= sum(null) for _, scores in entries), ("", null))
        highest = max((sum(scores) for _, scores in entries), default=0.0)
        total = sum(math.exp(sum(scores) - highest) for _, scores in entries)
        listed = [(t, math.exp(sum(scores) - highest) / total, *scores) for t, scores in entries]
        result.append((listed, odds, text))
    return result


def as_tuples(answers: Answers, n: int) -> list[tuple[str, float, float, float]]:
    return [(entry.text, entry.probability, entry.start_logit, entry.end_logit) for entry in answers.n_best[n]]


@pytest.mark.parametrize("version_2", [False, True])
@settings(deadline=None, max_examples=150)
@given(
    sizes=st.lists(st.lists(st.integers(0, 7), min_size=1, max_size=3), min_size=1, max_size=4),
    seed=st.integers(0, 2**32 - 1),
    coarse=st.booleans(),
    n_best=st.integers(1, 6),
    longest=st.integers(1, 8),
    threshold=st.sampled_from([-1.0, 0.0, 2.5]),
)
def test_answers_equal_a_plain_loop(
    version_2: bool, sizes: list[list[int]], seed: int, coarse: bool, n_best: int, longest: int, threshold: float
) -> None:
    windows, questions = made(sizes)
    rng = np.random.default_rng(seed)
    logits = rng.normal(size=(2, len(windows), 12)).astype(np.float32) * 3
    if coarse:  # many ties
        logits = logits.round()
    start, end = padded(logits[0], windows), padded(logits[1], windows)
    found = find_answers(start, end, windows, questions, version_2, n_best, longest, threshold)
    expected = plain(start, end, windows, questions, version_2, n_best, longest)
    for n, (entries, odds, text) in enumerate(expected):
        mine = as_tuples(found, n)
        assert [(t, s, e) for t, _, s, e in mine] == [(t, s, e) for t, _, s, e in entries]
        assert [p for _, p, _, _ in mine] == pytest.approx([p for _, p, _, _ in entries], abs=1e-12)
        assert found.best_texts[n] == text
        assert found.texts[n] == ("" if version_2 and odds > threshold else text)
        if version_2 and math.isfinite(odds):
            assert found.no_answer[n] == pytest.approx(odds)


def test_only_the_context_answers() -> None:
    windows, questions = made([[3]])
    start = np.array([[9, 9, 1, 0, 0, 9, 9]], np.float32)
    found = find_answers(start, start, windows, questions)
    assert found.texts == ["a"]


def test_an_answer_is_not_longer_than_allowed() -> None:
    windows, questions = made([[7]])
    start, end = np.zeros((2, 1, 12), np.float32)
    start[0, 2], end[0, 8] = 5, 5
    assert find_answers(start, end, windows, questions, max_answer_length=7).texts == ["a b c d e f g"]
    assert len(find_answers(start, end, windows, questions, max_answer_length=6).texts[0].split()) <= 6


def test_no_context_gives_an_empty_answer_and_finite_numbers() -> None:
    windows, questions = made([[0], [2]])
    start = np.full((2, 8), -1e9, np.float32)
    for version_2 in (False, True):
        found = find_answers(start, start, windows, questions, version_2)
        assert found.texts[0] == ""
        assert np.isfinite(found.no_answer).all()
        assert all(math.isfinite(entry.probability) for entries in found.n_best for entry in entries)


def test_nan_is_the_lowest_and_never_the_answer() -> None:
    windows, questions = made([[3]])
    start = np.array([[0, 0, np.nan, 1, 0]], np.float32)
    found = find_answers(start, start, windows, questions, version_2=True)
    assert found.best_texts == ["b"]
    assert np.isfinite(found.no_answer).all()


def test_probabilities_of_a_list_add_to_one() -> None:
    windows, questions = made([[5], [4, 4]])
    logits = np.random.default_rng(0).normal(size=(2, 3, 12)).astype(np.float32)
    for version_2 in (False, True):
        found = find_answers(*logits, windows, questions, version_2)
        for entries in found.n_best:
            assert sum(entry.probability for entry in entries) == pytest.approx(1)
            assert all(a.probability >= b.probability for a, b in itertools.pairwise(entries))
            assert sum(entry.text == "" for entry in entries) == int(version_2)


def test_the_empty_answer_is_scored_by_its_lowest_window() -> None:
    windows, questions = made([[3, 3]])
    start = np.zeros((2, 8), np.float32)
    start[:, 0] = [10, -3]
    found = find_answers(start, start, windows, questions, version_2=True)
    assert found.no_answer.tolist() == [-6]
    assert found.texts == found.best_texts != [""]
    assert find_answers(start, start, windows, questions, True, null_score_diff_threshold=-7).texts == [""]


@pytest.mark.real
def test_a_real_model_answers_as_a_plain_loop_does(shared: Path, tmp_path: Path) -> None:
    import torch
    from transformers import AutoModelForQuestionAnswering

    from splora.tasks.squad import SquadDataModule
    from splora.tasks.squad_json import read_squad
    from splora.tasks.squad_metric import score

    source = read_squad(shared / "data/squad/dev.json")[::27]
    rows = [
        {"id": q.id, "title": q.title, "context": q.context, "question": q.question,
         "answers": {"text": list(q.answers), "answer_start": list(q.answer_starts)}}
        for q in source
    ]  # fmt: skip
    data = _module(SquadDataModule, shared / "models/minilm-squad", rows, tmp_path)
    model = AutoModelForQuestionAnswering.from_pretrained(shared / "models/minilm-squad", dtype=torch.float32).eval()
    outputs = {
        name: np.full((len(data.features("eval")), 256), -1e9, np.float32) for name in ("start_logits", "end_logits")
    }
    with torch.no_grad():
        for batch in data.val_dataloader():
            index = batch.pop("index").numpy()
            for name, logits in model(**batch).items():
                outputs[name][index, : logits.shape[1]] = logits.numpy()
    result = data.evaluate(outputs)

    questions, windows = data._evaluation()
    assert [q.id for q in questions] == [q.id for q in source]
    expected = plain(outputs["start_logits"], outputs["end_logits"], windows, questions, False, 20, 30)
    texts = {q.id: text for q, (_, _, text) in zip(questions, expected, strict=True)}
    assert result.artifacts["predictions"] == texts
    mean = sum(score(texts[q.id], q.answers).f1 for q in questions) / len(questions)
    assert result.metrics["f1"] == pytest.approx(100 * mean)
    assert result.metrics["f1"] > 50


def _module(kind: Any, model: Path, rows: list[dict[str, Any]], folder: Path) -> Any:
    import json

    path = folder / "dev.json"
    path.write_text(json.dumps(rows))
    return kind(
        str(model), predict_file=str(path), max_seq_length=256, doc_stride=96, cache_dir=str(folder), eval_batch_size=16
    )
