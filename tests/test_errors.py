"""Sentences about mistakes stay short and printable, whatever they quote."""

from __future__ import annotations

import pickle
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from splora.errors import SENTENCE, TOLD, InputError, cut, exit_on_input_error, named

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(st.characters()),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(st.characters()), inner),
)


@pytest.mark.parametrize(
    ("value", "text"),
    [
        ("a'b", '"a\'b"'),
        (3, "3"),
        (None, "None"),
        ("x" * 1_000_000, f"'{'x' * 80}'… (1,000,000 characters)"),
        (10**5_000 - 1, "a whole number of about 5,000 digits"),
        ([["x" * 9] * 4] * 1_000_000, None),
        ({str(number): [number] * 9 for number in range(99_999)}, None),
    ],
    ids=["text", "number", "nothing", "long text", "long number", "long list", "long object"],
)
def test_a_value_of_any_size_is_shown_shortly(value: object, text: str | None) -> None:
    assert len(cut(value)) < 300
    if text is not None:
        assert cut(value) == text


@given(JSON)
def test_every_value_of_json_can_be_shown(value: Any) -> None:
    assert len(InputError(f"is {cut(value)}.").problems[0].encode()) < 5 * SENTENCE


def test_a_long_sentence_keeps_its_begin_and_its_end() -> None:
    (problem,) = InputError(f"file: line 3 holds {'y' * 3_000_000}; allowed are a and b.").problems
    assert len(problem) < SENTENCE + 100
    assert problem.startswith("file: line 3 holds yy")
    assert problem.endswith("y; allowed are a and b.")


def test_repeats_are_counted_and_many_are_cut(capsys: pytest.CaptureFixture[str]) -> None:
    error = InputError(["a.", "b.", "a.", "a."])
    assert error.problems == ["a. (3 times)", "b."]
    many = InputError(f"{number}." for number in range(10_000))
    assert len(many.problems) == 10_000
    with pytest.raises(SystemExit), exit_on_input_error():
        raise many
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == TOLD + 1
    assert lines[-1] == "error: and 9,900 more problems; mend these first."
    assert len(str(many).splitlines()) == TOLD + 1


def test_what_no_terminal_should_see_is_escaped() -> None:
    assert InputError("a\ud83d\x1b[2Jb\x00.\n\tc").problems == ["a\\ud83d\\x1b[2Jb\\x00.\n\tc"]


def test_a_copy_in_another_process_says_the_same() -> None:
    error = InputError(["a.", "b.", "a."])
    assert pickle.loads(pickle.dumps(error)).problems == error.problems


def test_names_are_counted_where_there_are_many() -> None:
    assert named(["a", 1]) == "a, 1"
    assert named(range(30), 3) == "0, 1, 2 and 27 more"
    assert len(named(["z" * 10_000] * 10_000)) < 3_000
