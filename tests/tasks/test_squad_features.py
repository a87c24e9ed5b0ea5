"""Windows of tokens against the tokenizer's own, one example at a time."""

from __future__ import annotations

import string
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from splora.errors import InputError
from splora.tasks.squad_features import Windows, cut_windows, tokenizer_digest
from splora.tasks.squad_json import Question, read_squad

KINDS = ("wordpiece", "bytes")


@cache
def tokenizer(kind: str) -> Any:
    """A small BERT-like tokenizer, whose pieces are letters, or a RoBERTa-like one, whose pieces are bytes."""
    from tokenizers import Tokenizer, models, pre_tokenizers, processors
    from transformers import BertTokenizerFast, PreTrainedTokenizerFast

    if kind == "wordpiece":
        letters = string.ascii_lowercase + string.digits + string.punctuation
        vocabulary = [
            "[PAD]",
            "[UNK]",
            "[CLS]",
            "[SEP]",
            "[MASK]",
            "the",
            "##he",
            *letters,
            *(f"##{c}" for c in letters),
        ]
        return BertTokenizerFast(vocab={token: n for n, token in enumerate(vocabulary)}, do_lower_case=True)
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    numbers = {token: n for n, token in enumerate(["<s>", "<pad>", "</s>", *alphabet])}
    backend = Tokenizer(models.BPE(vocab=numbers, merges=[]))
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.post_processor = processors.RobertaProcessing(("</s>", 2), ("<s>", 0), add_prefix_space=False)
    return PreTrainedTokenizerFast(
        tokenizer_object=backend,
        cls_token="<s>",
        pad_token="<pad>",
        sep_token="</s>",
        model_input_names=["input_ids", "attention_mask"],
    )


def question(name: str, asked: str, context: str, span: tuple[int, int] | None = None) -> Question:
    answers = () if span is None else (context[span[0] : span[1]],)
    return Question(name, "", context, asked, answers, () if span is None else (span[0],))


def naive(one: Question, tok: Any, width: int, stride: int) -> list[tuple[list[int], list[int], int, int]]:
    """Ids, types and answer positions of one question's windows by the tokenizer itself and a walk over characters."""
    encoded = tok(
        one.question.lstrip(), one.context, truncation="only_second", max_length=width, stride=stride,
        return_overflowing_tokens=True, return_offsets_mapping=True, return_token_type_ids=True,
    )  # fmt: skip
    whole = tok(one.context, add_special_tokens=False, return_offsets_mapping=True)["offset_mapping"]
    rows = []
    for n, ids in enumerate(encoded["input_ids"]):
        start = end = 0
        if one.span is not None:
            touching = [(b, e) for b, e in whole if e > one.span[0] and b < one.span[1]]
            inside = [
                place
                for place, (sequence, (b, e)) in enumerate(
                    zip(encoded.sequence_ids(n), encoded["offset_mapping"][n], strict=True)
                )
                if sequence == 1 and e > one.span[0] and b < one.span[1]
            ]
            if inside and len(inside) == len(touching):
                start, end = inside[0], inside[-1]
        rows.append((ids, encoded["token_type_ids"][n], start, end))
    return rows


def rows_of(windows: Windows) -> list[tuple[list[int], list[int], int, int]]:
    slices = [slice(b, e) for b, e in zip(windows.offsets[:-1], windows.offsets[1:], strict=True)]
    return [
        (windows.input_ids[s].tolist(), windows.token_type_ids[s].tolist(), int(first), int(last))
        for s, first, last in zip(slices, windows.start_positions, windows.end_positions, strict=True)
    ]


words = st.sampled_from(
    ["the", "The", "cat", "x", "42", ".", "né", "日本", "🙂", "a\u0301", "  ", "\n", "\u200b", "s'"]
)
# Not empty: the tokenizer takes an empty second text for none at all.
contexts = st.lists(words, min_size=1, max_size=30).map(" ".join)


@st.composite
def asked(draw: st.DrawFn) -> list[Question]:
    told = draw(st.lists(contexts, min_size=1, max_size=3))
    made = []
    for n in range(draw(st.integers(1, 5))):
        context = draw(st.sampled_from(told))
        span = None
        if draw(st.booleans()):
            begin = draw(st.integers(0, len(context) - 1))
            span = (begin, draw(st.integers(begin + 1, len(context))))
        made.append(question(str(n), draw(st.sampled_from(["the x?", "", " x", "日 🙂"])), context, span))
    return made


@pytest.mark.parametrize("kind", KINDS)
@settings(deadline=None, max_examples=150)
@given(questions=asked(), width=st.integers(24, 64), stride=st.integers(0, 5))
def test_windows_equal_the_tokenizer_s_own(kind: str, questions: list[Question], width: int, stride: int) -> None:
    windows = cut_windows(questions, tokenizer(kind), width, stride)
    expected = [naive(one, tokenizer(kind), width, stride) for one in questions]
    assert rows_of(windows) == [row for rows in expected for row in rows]
    assert windows.question.tolist() == [n for n, rows in enumerate(expected) for _ in rows]


@pytest.mark.parametrize("kind", KINDS)
@settings(deadline=None)
@given(questions=asked(), width=st.integers(24, 64))
def test_context_tokens_know_their_characters(kind: str, questions: list[Question], width: int) -> None:
    tok = tokenizer(kind)
    windows = cut_windows(questions, tok, width, 4)
    for n, begin in enumerate(windows.context_begin):
        first, length = int(windows.first_token[n]), int(windows.context_length[n])
        tokens = windows.input_ids[windows.offsets[n] + begin :][:length].tolist()
        context = questions[windows.question[n]].context
        whole = tok(context, add_special_tokens=False, return_offsets_mapping=True)
        characters = list(
            zip(windows.char_starts[first : first + length], windows.char_ends[first : first + length], strict=True)
        )
        pairs = list(zip(whole["input_ids"], whole["offset_mapping"], strict=True))
        mine = list(zip(tokens, characters, strict=True))
        assert any(pairs[k : k + length] == mine for k in range(len(pairs) - length + 1))


def test_the_answer_of_a_trained_window_is_the_answer() -> None:
    context = "the cat sat on the mat in the year 1843 and then it left"
    one = question("q", "when?", context, (35, 39))
    windows = cut_windows([one], tokenizer("wordpiece"), 24, 8)
    assert len(windows) > 2
    found = [n for n in range(len(windows)) if windows.start_positions[n] > 0]
    assert found
    for n in found:
        token = windows.first_token[n] - windows.context_begin[n]
        begin = windows.char_starts[token + windows.start_positions[n]]
        assert context[begin : windows.char_ends[token + windows.end_positions[n]]] == "1843"


def test_windows_overlap_by_the_stride_and_cover_the_context() -> None:
    one = question("q", "x", "x" * 90)
    windows = cut_windows([one], tokenizer("wordpiece"), 24, 5)
    begin = windows.first_token
    end = begin + windows.context_length
    assert begin[0] == 0
    assert end[-1] == 90
    assert (end[:-1] - begin[1:] == 5).all()
    assert (np.diff(windows.offsets) <= 24).all()


@pytest.mark.parametrize("length", [14, 15, 16, 40, 400])
def test_a_question_longer_than_the_window_is_cut(length: int) -> None:
    one = question("q", "x" * length, "the cat " * 20, (4, 7))
    windows = cut_windows([one], tokenizer("wordpiece"), 24, 5)
    assert (np.diff(windows.offsets) <= 24).all()
    assert (windows.context_length >= 1).all()
    assert int(windows.start_positions.max()) > 0
    # 21 tokens of room, 5 of overlap: a quarter of the rest is the smallest step.
    assert np.diff(windows.first_token).min() >= 4


@pytest.mark.parametrize(("width", "stride"), [(8, 5), (8, 4), (3, 0), (384, 381), (64, -1)])
def test_a_window_too_small_for_its_overlap(width: int, stride: int) -> None:
    with pytest.raises(InputError, match=rf"max_seq_length {width} leaves .* doc_stride {stride} must be from 0 to"):
        cut_windows([question("q", "x", "the")], tokenizer("wordpiece"), width, stride)


def test_nothing_to_cut() -> None:
    assert len(cut_windows([], tokenizer("wordpiece"), 32, 4)) == 0
    assert len(cut_windows([question("q", "", "")], tokenizer("wordpiece"), 32, 4)) == 1


def test_the_tokenizer_s_own_truncation_and_padding_do_not_matter() -> None:
    tok = tokenizer("wordpiece")
    questions = [question("q", "x y", "the cat " * 30)]
    before, digest = cut_windows(questions, tok, 32, 4), tokenizer_digest(tok)
    tok("x", truncation=True, max_length=7, padding="max_length")
    assert tokenizer_digest(tok) == digest
    assert rows_of(cut_windows(questions, tok, 32, 4)) == rows_of(before)
    assert tokenizer_digest(tokenizer("bytes")) != digest


def test_feature_sets_hold_what_was_asked_for() -> None:
    windows = cut_windows([question("q", "x", "the cat", (0, 3))], tokenizer("wordpiece"), 32, 4)
    assert set(windows.feature_set(token_types=False, labels=False).columns) == {"input_ids"}
    full = windows.feature_set(token_types=True, labels=True)
    assert set(full.columns) == {"input_ids", "token_type_ids", "start_positions", "end_positions"}
    assert full.lengths.tolist() == np.diff(windows.offsets).tolist()
    again = Windows(**windows.arrays())
    assert rows_of(again) == rows_of(windows)


@pytest.mark.real
def test_real_windows_equal_the_tokenizer_s_own(shared: Path) -> None:
    from transformers import AutoTokenizer

    tok = AutoTokenizer.from_pretrained(shared / "models/minilm-l6")
    questions = read_squad(shared / "data/squad/train.json")[::97]
    windows = cut_windows(questions, tok, 256, 96)
    assert rows_of(windows) == [row for one in questions for row in naive(one, tok, 256, 96)]
