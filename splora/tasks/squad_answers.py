"""From start and end logits to answers: the best spans of each question over all of its windows.

A span's score is start logit + end logit. In 2.0 the empty answer's score is that of the classification token, its
lowest over the question's windows: a single window that sees an answer is enough to speak against "no answer".
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from splora.tasks.squad_features import Windows
from splora.tasks.squad_json import Question

Float64 = npt.NDArray[np.float64]
Int64 = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Answer:
    """One entry of an n-best list; `text` is empty for "no answer"."""

    text: str
    probability: float
    start_logit: float
    end_logit: float

    def as_json(self) -> dict[str, str | float]:
        """Its four fields."""
        return {
            "text": self.text,
            "probability": self.probability,
            "start_logit": self.start_logit,
            "end_logit": self.end_logit,
        }


@dataclass(frozen=True)
class Answers:
    """Answers to questions, each a list or array in the questions' order.

    Attributes:
        texts: the answer given; empty for "no answer".
        best_texts: the best span's text whatever the empty answer scores.
        no_answer: score of the empty answer minus that of the best span, float64 (questions,); 0 in 1.1.
        n_best: the best spans (and in 2.0 the empty answer), best first, with softmax probabilities over the list.
    """

    texts: list[str]
    best_texts: list[str]
    no_answer: Float64
    n_best: list[list[Answer]]


@dataclass(frozen=True)
class _Spans:
    """Candidate spans, those of a question next to each other and best first; all (spans,)."""

    question: Int64
    rank: Int64
    first: Int64  # character in the context
    end: Int64
    start_logit: Float64
    end_logit: Float64


def find_answers(
    start_logits: npt.NDArray[Any],
    end_logits: npt.NDArray[Any],
    windows: Windows,
    questions: Sequence[Question],
    version_2: bool = False,
    n_best: int = 20,
    max_answer_length: int = 30,
    null_score_diff_threshold: float = 0.0,
) -> Answers:
    """Answers out of logits.

    Each window offers the pairs of its `n_best` best start and `n_best` best end tokens, both in the context, that
    lie in order and span at most `max_answer_length` tokens; a question keeps the `n_best` best of all its windows,
    each span of characters once. A question without any such pair gets the empty text. A NaN counts as the lowest.

    Args:
        start_logits, end_logits: float (windows, width), width at least that of the longest window.
        null_score_diff_threshold: in 2.0 the answer is empty where `no_answer` exceeds this.
    """
    spans = _best_spans(_finite(start_logits), _finite(end_logits), windows, n_best, max_answer_length)
    # One row per question, padded; the last column is the empty answer in 2.0.
    scores = np.full((len(questions), n_best + 1), -np.inf)
    scores[spans.question, spans.rank] = spans.start_logit + spans.end_logit
    best = scores[:, 0].copy()
    null_start, null_end = _null_logits(start_logits, end_logits, windows, len(questions))
    no_answer = np.zeros(len(questions))
    if version_2:
        scores[:, -1] = null_start + null_end
        # Without any span nothing speaks against the empty answer; kept finite for JSON.
        no_answer = np.nan_to_num(scores[:, -1] - best)
    probabilities = _softmax(scores)

    n_lists: list[list[Answer]] = [[] for _ in questions]
    columns = (spans.question, spans.rank, spans.first, spans.end, spans.start_logit, spans.end_logit)
    for number, rank, first, end, start, stop in zip(*(column.tolist() for column in columns), strict=True):
        text = questions[number].context[first:end]
        n_lists[number].append(Answer(text, float(probabilities[number, rank]), start, stop))
    best_texts = [entries[0].text if entries else "" for entries in n_lists]
    if version_2:
        for number, entries in enumerate(n_lists):
            place = int(np.sum(scores[number, : len(entries)] >= scores[number, -1]))
            null = Answer("", float(probabilities[number, -1]), float(null_start[number]), float(null_end[number]))
            entries.insert(place, null)
    withheld = no_answer > null_score_diff_threshold if version_2 else np.zeros(len(questions), bool)
    texts = ["" if empty else text for text, empty in zip(best_texts, withheld.tolist(), strict=True)]
    return Answers(texts, best_texts, no_answer, n_lists)


def _best_spans(start: Float64, end: Float64, windows: Windows, n_best: int, longest: int) -> _Spans:
    positions = np.arange(start.shape[1])
    begin = windows.context_begin[:, None]
    context = (positions >= begin) & (positions < begin + windows.context_length[:, None])
    # A stable sort: equal logits keep the order of the text, whatever the batch was.
    firsts = np.argsort(np.where(context, -start, np.inf), axis=1, kind="stable")[:, :n_best]
    lasts = np.argsort(np.where(context, -end, np.inf), axis=1, kind="stable")[:, :n_best]
    inside = np.take_along_axis(context, firsts, 1)[:, :, None] & np.take_along_axis(context, lasts, 1)[:, None, :]
    length = lasts[:, None, :] - firsts[:, :, None] + 1
    window, i, j = np.nonzero(inside & (length >= 1) & (length <= longest))
    first, last = firsts[window, i], lasts[window, j]
    start_logit, end_logit = start[window, first], end[window, last]

    question = windows.question[window].astype(np.int64)
    token = windows.first_token[window] - windows.context_begin[window]
    first_character = windows.char_starts[token + first].astype(np.int64)
    end_character = windows.char_ends[token + last].astype(np.int64)
    score = start_logit + end_logit

    # The best of the spans with the same characters, then the best n of each question.
    order = np.lexsort((-score, end_character, first_character, question))
    new = np.ones(len(order), bool)
    new[1:] = np.any([np.diff(column[order]) != 0 for column in (question, first_character, end_character)], axis=0)
    order = order[new]
    order = order[np.lexsort((end_character[order], first_character[order], -score[order], question[order]))]
    of = question[order]
    rank = np.arange(len(of)) - np.searchsorted(of, of, side="left")
    order, rank = order[rank < n_best], rank[rank < n_best]
    return _Spans(
        question[order], rank, first_character[order], end_character[order], start_logit[order], end_logit[order]
    )


def _null_logits(
    start_logits: npt.NDArray[Any], end_logits: npt.NDArray[Any], windows: Windows, questions: int
) -> tuple[Float64, Float64]:
    """Start and end logit of the classification token in each question's window with the lowest sum, (questions,)."""
    place = int(windows.cls_position[0])
    start, end = _finite(start_logits[:, place]), _finite(end_logits[:, place])
    order = np.lexsort((start + end, windows.question))
    lowest = order[np.searchsorted(windows.question[order], np.arange(questions))]
    return start[lowest], end[lowest]


def _finite(logits: npt.NDArray[Any]) -> Float64:
    lowest = float(np.finfo(np.float32).min)
    return np.nan_to_num(logits.astype(np.float64), nan=lowest, neginf=lowest, posinf=-lowest)


def _softmax(scores: Float64) -> Float64:
    """Over the last axis; a row of -inf alone gives zeros."""
    highest = scores.max(axis=1, keepdims=True)
    weights = np.exp(scores - np.where(np.isfinite(highest), highest, 0.0))
    total = weights.sum(axis=1, keepdims=True)
    return weights / np.where(total > 0, total, 1.0)
