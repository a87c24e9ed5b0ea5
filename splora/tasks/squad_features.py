"""Questions to windows of tokens: every distinct context is tokenized once, and all windows are cut from flat arrays.

A window is what the tokenizer makes of the pair (question, part of the context): special tokens, question, special
tokens, context, special tokens. A context that does not fit is cut into windows whose contexts overlap by
`doc_stride` tokens.
"""

from __future__ import annotations

import hashlib
import itertools
import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, fields
from typing import Any, cast

import numpy as np
import numpy.typing as npt

from splora.errors import InputError
from splora.tasks.features import FeatureSet, Ragged
from splora.tasks.squad_json import Question

Int32 = npt.NDArray[np.int32]
Int64 = npt.NDArray[np.int64]

#: Texts that the tokenizer works on at once; bounds the memory of its intermediate objects.
BATCH = 2048


@dataclass(frozen=True)
class Windows:
    """Windows of all questions, those of one question next to each other, in the order of the questions.

    Attributes:
        input_ids: int32, flat; window i is `offsets[i]:offsets[i + 1]`.
        token_type_ids: int32, flat, cut as `input_ids`.
        offsets: int64, (windows + 1,).
        question: int32, (windows,): number of the window's question.
        context_begin: int32, (windows,): position in the window of its first context token.
        context_length: int32, (windows,): context tokens in the window.
        first_token: int64, (windows,): place of the first context token in the two arrays below.
        char_starts, char_ends: int32, (tokens of all distinct contexts,): characters [start, end) of each token.
        start_positions, end_positions: int32, (windows,): first and last token of the answer within the window; the
            position of the classification token where the window does not hold the whole answer.
        cls_position: int32, (1,): position of the classification token, the same in every window.
    """

    input_ids: Int32
    token_type_ids: Int32
    offsets: Int64
    question: Int32
    context_begin: Int32
    context_length: Int32
    first_token: Int64
    char_starts: Int32
    char_ends: Int32
    start_positions: Int32
    end_positions: Int32
    cls_position: Int32

    def __len__(self) -> int:
        return len(self.question)

    def arrays(self) -> dict[str, npt.NDArray[Any]]:
        """All attributes by name; `Windows(**arrays)` is the same again."""
        return {field.name: getattr(self, field.name) for field in fields(self)}

    def feature_set(self, token_types: bool, labels: bool) -> FeatureSet:
        """What the model is fed: `token_type_ids` and answer positions where asked for."""
        columns: dict[str, Ragged | npt.NDArray[Any]] = {"input_ids": Ragged(self.input_ids, self.offsets)}
        if token_types:
            columns["token_type_ids"] = Ragged(self.token_type_ids, self.offsets)
        if labels:
            columns |= {"start_positions": self.start_positions, "end_positions": self.end_positions}
        return FeatureSet(columns, np.diff(self.offsets))


@dataclass(frozen=True)
class _Texts:
    """Tokens of many texts: `ids` int32 (total,), `offsets` int64 (texts + 1,), characters int32 (total, 2)."""

    ids: Int32
    offsets: Int64
    characters: Int32

    @property
    def lengths(self) -> Int64:
        return np.diff(self.offsets)


@dataclass(frozen=True)
class _Template:
    """Special tokens before the question, between question and context, and after; the type of all five parts."""

    ids: tuple[list[int], list[int], list[int]]
    types: tuple[int, int, int, int, int]

    @property
    def length(self) -> int:
        return sum(map(len, self.ids))


def cut_windows(questions: Sequence[Question], tokenizer: Any, max_seq_length: int, doc_stride: int) -> Windows:
    """Tokenize questions and their contexts into windows of at most `max_seq_length` tokens.

    A question is cut to the tokens that leave each further window of its context at least a quarter of the room
    beyond the overlap; otherwise windows are equal to those of the tokenizer with `truncation="only_second"`.

    Args:
        tokenizer: a fast tokenizer of transformers.
        doc_stride: context tokens that neighbouring windows share.

    Raises:
        InputError: the window is too small for the overlap, or the tokenizer joins no pairs.
    """
    backend = _bare(tokenizer)
    contexts = {text: number for number, text in enumerate(dict.fromkeys(q.context for q in questions))}
    asked = _encode(backend, [q.question.lstrip() for q in questions])
    told = _encode(backend, list(contexts))
    template = _template(backend, questions)
    room = max_seq_length - template.length
    if doc_stride < 0 or room - doc_stride < 2:
        raise InputError(
            f"max_seq_length {max_seq_length} leaves {room} tokens for question and context; "
            f"doc_stride {doc_stride} must be from 0 to {room - 2}."
        )
    context_of = np.fromiter((contexts[q.context] for q in questions), np.int64, len(questions))
    longest_question = room - doc_stride - max(1, (room - doc_stride) // 4)
    question_lengths = np.minimum(asked.lengths, longest_question)

    # Windows of each question, then one row per window.
    capacity = room - question_lengths
    step = capacity - doc_stride
    count = 1 + np.maximum(0, -(-(told.lengths[context_of] - capacity) // step))
    question = np.repeat(np.arange(len(questions)), count)
    number = np.arange(len(question)) - np.repeat(np.cumsum(count) - count, count)
    begin = number * step[question]
    length = np.minimum(capacity[question], told.lengths[context_of][question] - begin)
    first_token = told.offsets[context_of][question] + begin

    ids, types, offsets = _join(template, asked, told, question, question_lengths[question], first_token, length)
    context_begin = len(template.ids[0]) + question_lengths[question] + len(template.ids[1])
    cls_position = template.ids[0].index(tokenizer.cls_token_id) if tokenizer.cls_token_id in template.ids[0] else 0
    start, end = _labels(questions, context_of, told, question, first_token, length, context_begin, cls_position)
    return Windows(
        input_ids=ids,
        token_type_ids=types,
        offsets=offsets,
        question=question.astype(np.int32),
        context_begin=context_begin.astype(np.int32),
        context_length=length.astype(np.int32),
        first_token=first_token,
        char_starts=np.ascontiguousarray(told.characters[:, 0]),
        char_ends=np.ascontiguousarray(told.characters[:, 1]),
        start_positions=start,
        end_positions=end,
        cls_position=np.array([cls_position], np.int32),
    )


def tokenizer_digest(tokenizer: Any) -> str:
    """Digest of everything that decides how a fast tokenizer cuts text (its own truncation and padding do not)."""
    content = json.loads(tokenizer.backend_tokenizer.to_str())
    content["truncation"] = content["padding"] = None
    content["cls_token_id"] = tokenizer.cls_token_id
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def _bare(tokenizer: Any) -> Any:
    """A copy of the tokenizer's backend that neither cuts nor pads, whatever its file says."""
    from tokenizers import Tokenizer

    backend = Tokenizer.from_str(tokenizer.backend_tokenizer.to_str())
    backend.no_truncation()
    backend.no_padding()
    return backend


def _encode(backend: Any, texts: Sequence[str]) -> _Texts:
    ids, lengths, characters = [np.zeros(0, np.int32)], [np.zeros(0, np.int64)], [np.zeros((0, 2), np.int32)]
    for begin in range(0, len(texts), BATCH):
        encodings = backend.encode_batch(texts[begin : begin + BATCH], add_special_tokens=False)
        length = np.fromiter(map(len, encodings), np.int64, len(encodings))
        total = int(length.sum())
        lengths.append(length)
        ids.append(np.fromiter(_chained(e.ids for e in encodings), np.int32, total))
        flat = _chained(_chained(e.offsets for e in encodings))
        characters.append(np.fromiter(flat, np.int32, 2 * total).reshape(total, 2))
    joined = np.concatenate(lengths)
    offsets = np.concatenate([np.zeros(1, np.int64), np.cumsum(joined)])
    return _Texts(np.concatenate(ids), offsets, np.concatenate(characters))


def _chained(parts: Iterable[Iterable[Any]]) -> Iterable[Any]:
    return itertools.chain.from_iterable(parts)


def _template(backend: Any, questions: Sequence[Question]) -> _Template:
    """Read off from one joined pair what the tokenizer puts around question and context."""
    pairs = [(q.question, q.context) for q in questions[:1]] + [("a", "a")]
    for first, second in pairs:
        encoding = backend.encode(first, second)
        sequence = np.array([-1 if s is None else s for s in encoding.sequence_ids], np.int64)
        asked, told = np.flatnonzero(sequence == 0), np.flatnonzero(sequence == 1)
        if len(asked) and len(told) and asked[-1] < told[0]:
            a, b, c, d = int(asked[0]), int(asked[-1]) + 1, int(told[0]), int(told[-1]) + 1
            parts = [slice(0, a), slice(a, b), slice(b, c), slice(c, d), slice(d, None)]
            types = [(encoding.type_ids[part] or [0])[0] for part in parts]
            ids = (encoding.ids[parts[0]], encoding.ids[parts[2]], encoding.ids[parts[4]])
            return _Template(ids, cast("tuple[int, int, int, int, int]", tuple(types)))
    raise InputError("The tokenizer does not join a question and a context into one sequence.")


def _join(
    template: _Template,
    asked: _Texts,
    told: _Texts,
    question: Int64,
    question_length: Int64,
    first_token: Int64,
    context_length: Int64,
) -> tuple[Int32, Int32, Int64]:
    """Ids and types of all windows and where each begins: five slices per window out of one source array."""
    special = [np.asarray(ids, np.int32) for ids in template.ids]
    source = np.concatenate([*special, asked.ids, told.ids])
    place = np.cumsum([0, *map(len, special), len(asked.ids)])
    starts = np.empty((len(question), 5), np.int64)
    lengths = np.empty_like(starts)
    for part, begin, length in (
        (0, place[0], len(special[0])),
        (1, place[3] + asked.offsets[question], question_length),
        (2, place[1], len(special[1])),
        (3, place[4] + first_token, context_length),
        (4, place[2], len(special[2])),
    ):
        starts[:, part], lengths[:, part] = begin, length
    flat = lengths.reshape(-1)
    destination = np.cumsum(flat) - flat
    take = np.repeat(starts.reshape(-1) - destination, flat) + np.arange(int(flat.sum()))
    types = np.repeat(np.tile(np.asarray(template.types, np.int32), len(question)), flat)
    offsets = np.concatenate([np.zeros(1, np.int64), np.cumsum(lengths.sum(axis=1))])
    return source[take], types, offsets


def _labels(
    questions: Sequence[Question],
    context_of: Int64,
    told: _Texts,
    question: Int64,
    first_token: Int64,
    length: Int64,
    context_begin: Int64,
    cls_position: int,
) -> tuple[Int32, Int32]:
    """First and last answer token in each window, int32 (windows,): every token that holds a character of it."""
    spans = np.array([q.span or (-1, -1) for q in questions], np.int64).reshape(len(questions), 2)
    # One sorted axis for all contexts: characters of context c lie from c · width on.
    width = int(max(told.characters.max(initial=0), spans.max(initial=0))) + 1
    context_of_token = np.repeat(np.arange(len(told.lengths)), told.lengths)
    starts = context_of_token * width + told.characters[:, 0]
    ends = context_of_token * width + told.characters[:, 1]
    first = np.searchsorted(ends, context_of * width + spans[:, 0], side="right")[question]
    last = np.searchsorted(starts, context_of * width + spans[:, 1], side="left")[question] - 1
    held = (spans[question, 0] >= 0) & (first <= last) & (first >= first_token) & (last < first_token + length)
    start = np.where(held, first - first_token + context_begin, cls_position)
    end = np.where(held, last - first_token + context_begin, cls_position)
    return start.astype(np.int32), end.astype(np.int32)
