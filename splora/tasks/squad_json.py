"""Reads and checks SQuAD files; imports neither torch nor transformers, so that a check before a run is instant.

Layouts: the official one of 1.1 and 2.0, ``{"data": [{"title", "paragraphs": [{"context", "qas": [...]}]}]}``, and
those that `datasets` reads and writes: a list, JSON lines or ``{"data": [...]}`` of flat rows
``{"id", "title", "context", "question", "answers": {"text": [...], "answer_start": [...]}}``.
Whether a question can be answered is read from its answers, as the official evaluation does.
"""

from __future__ import annotations

import json
import logging
import os
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any

from splora.errors import InputError, cut, named
from splora.files import expanded
from splora.reading import Budget, check_text, json_cost, parse_json, read_lines, read_text

#: Share of answers that may disagree with their context before a file is refused.
TOLERATED = 0.01
#: Identifiers that one sentence names before it says how many more there are.
NAMED = 20

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Question:
    """One question. `answer_starts` are characters in `context`, -1 for an answer that does not stand there."""

    id: str
    title: str
    context: str
    question: str
    answers: tuple[str, ...]
    answer_starts: tuple[int, ...]

    @property
    def span(self) -> tuple[int, int] | None:
        """Characters [begin, end) of the first answer that stands in the context, or None."""
        for text, start in zip(self.answers, self.answer_starts, strict=True):
            if start >= 0:
                return start, start + len(text)
        return None

    @property
    def usable(self) -> bool:
        """Whether training can learn from it: it has no answer, or one that stands in the context."""
        return not self.answers or self.span is not None


def read_squad(path: str | os.PathLike[str], answered: bool = True) -> list[Question]:
    """All questions of a file, in its order.

    Args:
        answered: read the answers, which every question then has to have; else they are left out.

    Raises:
        InputError: the file is missing, unreadable, empty, cut off or of another layout; IDs repeat; or more than
            1 % of the answers are not found at their `answer_start` (up to 1 % is a warning of the log).
    """
    path = expanded(path)
    if path.is_dir():
        raise InputError(f"{path}: is a folder; a SQuAD file is needed.")
    if not path.exists():
        raise InputError(f"{path}: no such file.")
    return questions_from_content(_parse(path), str(path), answered)


def count_questions(path: str | os.PathLike[str], answered: bool = True) -> int:
    """How many questions a file holds, after all of `read_squad`'s checks."""
    return len(read_squad(path, answered))


def questions_from_content(content: Any, where: str, answered: bool = True) -> list[Question]:
    """Questions of parsed JSON in any of the layouts; `where` names its source in messages; see `read_squad`.

    Raises:
        InputError: as `read_squad`.
    """
    if not answered:
        _number_questions(content)
    return check_questions(list(_questions(content, where, answered)), where)


def questions_from_rows(rows: Iterable[Mapping[str, Any]], where: str, answered: bool = True) -> list[Question]:
    """Questions from flat rows as `datasets` yields them; `where` names their source in messages.

    Raises:
        InputError: as `read_squad`.
    """
    questions = [_question(row, row, f"{where}: row {n}", row, answered=answered) for n, row in enumerate(rows)]
    return check_questions(questions, where)


def check_questions(questions: list[Question], where: str) -> list[Question]:
    """The same questions, if there are any, their IDs are unique and their answers stand where they say.

    Raises:
        InputError: otherwise.
    """
    if not questions:
        raise InputError(f"{where}: holds no questions.")
    repeated = [name for name, count in Counter(question.id for question in questions).items() if count > 1]
    if repeated:
        raise InputError(
            f"{where}: {_count(len(repeated), 'question ID')} used more than once: {named(repeated, NAMED)}."
        )
    misplaced = misplaced_answers(questions)
    if misplaced:
        total = sum(len(question.answers) for question in questions)
        finding = (
            f"{where}: {len(misplaced):,} of {total:,} answers are not in their context at answer_start, "
            f"of questions {named(dict.fromkeys(misplaced), NAMED)}"
        )
        if len(misplaced) > TOLERATED * total:
            raise InputError(f"{finding}; at most {TOLERATED:.0%} is tolerated.")
        logger.warning("%s; training leaves these answers out.", finding)
    return questions


def misplaced_answers(questions: Iterable[Question]) -> list[str]:
    """The question's ID for each answer that is not in its context at its `answer_start`."""
    return [question.id for question in questions for start in question.answer_starts if start < 0]


def _parse(path: Path) -> Any:
    """The JSON of a file: one value, or a list of those of its lines where each line is a value."""
    budget = Budget(str(path))
    lines = read_lines(path, budget)
    first = next((line for line in lines if line[1].strip()), None)
    if first is None:
        raise InputError(f"{path}: is empty.")
    second = next((line for line in lines if line[1].strip()), None)
    if second is None:
        return parse_json("\n" * (first[0] - 1) + first[1], str(path), budget=budget)
    Budget(str(path)).take(json_cost(first[1]), "line 1")
    if not _is_json(first[1]):
        lines.close()
        del first, second
        return parse_json(read_text(path, budget=budget), str(path), budget=budget)
    return [
        parse_json(line, str(path), number, budget) for number, line in chain((first, second), lines) if line.strip()
    ]


def _is_json(line: str) -> bool:
    try:
        json.loads(line)
    except (ValueError, RecursionError):
        return False
    return True


def _number_questions(content: Any) -> None:
    """Give each question that has no ID its number, from 0 on, in place: nothing else refers to it.

    Where another question has that number for its ID, it is `question-` and the number.
    """
    entries = content.get("data", [content]) if isinstance(content, dict) else content
    questions: list[dict[str, Any]] = []
    for entry in entries if isinstance(entries, list) else []:
        paragraphs = entry.get("paragraphs", [{"qas": [entry]}]) if isinstance(entry, dict) else []
        for paragraph in paragraphs if isinstance(paragraphs, list) else []:
            asked = paragraph.get("qas") if isinstance(paragraph, dict) else None
            questions += [each for each in (asked if isinstance(asked, list) else []) if isinstance(each, dict)]
    taken = {str(question["id"]) for question in questions if "id" in question}
    for number, question in enumerate(questions):
        question.setdefault("id", f"question-{number}" if str(number) in taken else str(number))


def _questions(content: Any, where: str, answered: bool) -> Iterator[Question]:
    if isinstance(content, dict) and "data" not in content and {"question", "context"} & content.keys():
        content = [content]  # JSON lines of a single line
    place = where
    if isinstance(content, dict):
        content, place = _get(content, "data", list, where), f"{where}: data"
    if not isinstance(content, list):
        raise InputError(f"{where}: is a {_kind(content)} where an object with key 'data' or a list is needed.")
    for a, entry in enumerate(content):
        at = f"{place}[{a}]" if place != where else f"{where}: entry {a}"
        if not isinstance(entry, dict):
            raise InputError(f"{at} is a {_kind(entry)} where an object is needed.")
        if "paragraphs" not in entry and "question" in entry:
            yield _question(entry, entry, at, entry, answered=answered)
            continue
        for p, paragraph in enumerate(_get(entry, "paragraphs", list, at)):
            inside = f"{at}.paragraphs[{p}]"
            for q, asked in enumerate(_get(paragraph, "qas", list, inside)):
                yield _question(asked, paragraph, f"{inside}.qas[{q}]", entry, inside, answered)


def _question(
    asked: Mapping[str, Any],
    paragraph: Mapping[str, Any],
    where: str,
    article: Mapping[str, Any],
    around: str = "",
    answered: bool = True,
) -> Question:
    context = _get(paragraph, "context", str, around or where)
    name = _get(asked, "id", (str, int), where)
    where = f"{where} (id {cut(name)})"
    question = _get(asked, "question", str, where)
    texts, starts = _answers(asked, where) if answered else ((), ())
    title = str(article.get("title", ""))
    # All of them, as predictions are written by ID: half a character would fail when all training is done.
    for text in (str(name), title, context, question, *texts):
        check_text(text, where)
    found = tuple(
        start if text.strip() and start >= 0 and context.startswith(text, start) else -1
        for text, start in zip(texts, starts, strict=True)
    )
    return Question(str(name), title, context, question, texts, found)


def _answers(asked: Mapping[str, Any], where: str) -> tuple[tuple[str, ...], tuple[int, ...]]:
    answers = _get(asked, "answers", (list, dict), where)
    where = f"{where}.answers"
    if isinstance(answers, dict):
        texts, starts = list(_get(answers, "text", list, where)), list(_get(answers, "answer_start", list, where))
        if len(texts) != len(starts):
            raise InputError(f"{where} has {len(texts)} texts but {len(starts)} answer_starts.")
    else:
        texts = [_get(answer, "text", str, f"{where}[{n}]") for n, answer in enumerate(answers)]
        starts = [_get(answer, "answer_start", int, f"{where}[{n}]") for n, answer in enumerate(answers)]
    for text, start in zip(texts, starts, strict=True):
        if not isinstance(text, str) or not isinstance(start, int):
            raise InputError(f"{where} holds ({cut(text)}, {cut(start)}) where a text and a whole number are needed.")
    return tuple(texts), tuple(starts)


def _get(value: Any, key: str, kind: type | tuple[type, ...], where: str) -> Any:
    if not isinstance(value, Mapping):
        raise InputError(f"{where} is a {_kind(value)} where an object is needed.")
    if key not in value:
        keys = named(value) or "none"
        raise InputError(f"{where} has no key {key!r} (its keys: {keys}).")
    if not isinstance(value[key], kind) or isinstance(value[key], bool):
        allowed = " or ".join(_NAMES[k] for k in (kind if isinstance(kind, tuple) else (kind,)))
        raise InputError(f"{where}: {key!r} is a {_kind(value[key])} where a {allowed} is needed.")
    return value[key]


_NAMES: dict[type, str] = {str: "text", int: "whole number", list: "list", dict: "object"}


def _kind(value: Any) -> str:
    names = {**_NAMES, bool: "true/false", float: "fraction", type(None): "null"}
    return names.get(type(value), type(value).__name__)


def _count(number: int, noun: str) -> str:
    return f"1 {noun} is" if number == 1 else f"{number:,} {noun}s are"
