"""Reading and checking SQuAD files."""

from __future__ import annotations

import json
import logging
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from splora.errors import InputError
from splora.tasks.squad_json import Question, count_questions, misplaced_answers, questions_from_rows, read_squad

CONTEXT = "Ada Lovelace wrote the first program in 1843."


def answered(name: str, text: str = "1843", start: int = 40) -> dict[str, Any]:
    return {"id": name, "question": "When?", "answers": [{"text": text, "answer_start": start}]}


def official(*asked: dict[str, Any], context: str = CONTEXT) -> dict[str, Any]:
    return {"version": "1.1", "data": [{"title": "Ada", "paragraphs": [{"context": context, "qas": list(asked)}]}]}


def flat(name: str, text: str = "1843", start: int = 40) -> dict[str, Any]:
    answers = {"text": [text], "answer_start": [start]}
    return {"id": name, "title": "Ada", "context": CONTEXT, "question": "When?", "answers": answers}


def write(folder: Path, content: Any) -> Path:
    path = folder / "squad.json"
    path.write_text(content if isinstance(content, str) else json.dumps(content), encoding="utf-8")
    return path


EXPECTED = [Question(name, "Ada", CONTEXT, "When?", ("1843",), (40,)) for name in ("q1", "q2")]


@pytest.mark.parametrize(
    "content",
    [
        official(answered("q1"), answered("q2")),
        official(answered("q1"), answered("q2"))["data"],
        [flat("q1"), flat("q2")],
        {"version": "0.1", "data": [flat("q1"), flat("q2")]},
        json.dumps(flat("q1")) + "\n\n" + json.dumps(flat("q2")) + "\n",
        "\ufeff" + json.dumps([flat("q1"), flat("q2")]),
    ],
    ids=["official", "list of articles", "list of rows", "object of rows", "JSON lines", "byte order mark"],
)
def test_every_layout_gives_the_same_questions(tmp_path: Path, content: Any) -> None:
    path = write(tmp_path, content)
    assert read_squad(path) == EXPECTED
    assert count_questions(path) == 2


def test_a_single_json_line_is_one_question(tmp_path: Path) -> None:
    assert [question.id for question in read_squad(write(tmp_path, flat("q1")))] == ["q1"]


def test_a_line_separator_inside_a_string_does_not_end_a_json_line(tmp_path: Path) -> None:
    row = flat("q1") | {"title": "a\u2028b"}
    lines = "\n".join(json.dumps(r, ensure_ascii=False) for r in (row, flat("q2")))
    assert [question.title for question in read_squad(write(tmp_path, lines))] == ["a\u2028b", "Ada"]


def test_version_2_questions_without_an_answer(tmp_path: Path) -> None:
    asked = {"id": "q2", "question": "Why?", "answers": [], "is_impossible": True, "plausible_answers": []}
    first, second = read_squad(write(tmp_path, official(answered("q1"), asked)))
    assert first.span == (40, 44)
    assert second.span is None
    assert second.usable


def test_rows_of_a_data_set_are_read_like_a_file() -> None:
    assert questions_from_rows([flat("q1"), flat("q2")], "owner/name") == EXPECTED


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        ("", "is empty"),
        ("  \n", "is empty"),
        ("[]", "holds no questions"),
        ({"data": []}, "holds no questions"),
        (official(), "holds no questions"),
        ("12", "is a whole number where an object"),
        ({"datum": []}, "has no key 'data' (its keys: datum)"),
        ({"data": {}}, "'data' is a object where a list is needed"),
        ([1], "entry 0 is a whole number where an object"),
        ([{"title": "x"}], "entry 0 has no key 'paragraphs' (its keys: title)"),
        ({"data": [{"paragraphs": [{"qas": [answered("q1")]}]}]}, "data[0].paragraphs[0] has no key 'context'"),
        ({"data": [{"paragraphs": [{"context": ""}]}]}, "data[0].paragraphs[0] has no key 'qas'"),
        ({"data": [{"paragraphs": ["x"]}]}, "data[0].paragraphs[0] is a text where an object"),
        (official({"question": "?", "answers": []}), "data[0].paragraphs[0].qas[0] has no key 'id'"),
        (official({"id": "q7", "answers": []}), "(id 'q7') has no key 'question'"),
        (official({"id": "q7", "question": "?"}), "(id 'q7') has no key 'answers'"),
        (official({"id": "q7", "question": None, "answers": []}), "'question' is a null where a text"),
        (official(answered("q7", start="40")), "(id 'q7').answers[0]: 'answer_start' is a text"),  # type: ignore[arg-type]
        ([flat("q7") | {"answers": {"text": ["x"], "answer_start": []}}], "has 1 texts but 0 answer_starts"),
        ([flat("q7") | {"answers": {"text": [3], "answer_start": [0]}}], "holds (3, 0) where a text"),
        ([flat("q7"), flat("q8"), flat("q7")], "1 question ID is used more than once: q7"),
        ([flat("q7") | {"question": "\ud83d"}], "(id 'q7') holds half a character (\\ud83d)"),
        ("[" * 100_000, "nested too deeply"),
    ],
)
def test_a_wrong_file_is_one_sentence_that_names_it(tmp_path: Path, content: Any, sentence: str) -> None:
    path = write(tmp_path, content)
    with pytest.raises(InputError) as caught:
        read_squad(path)
    (problem,) = caught.value.problems
    assert problem.startswith(str(path))
    assert sentence in problem
    assert "\n" not in problem


def test_a_file_that_is_not_there_or_a_folder(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"nope\.json: no such file"):
        read_squad(tmp_path / "nope.json")
    with pytest.raises(InputError, match="is a folder"):
        read_squad(tmp_path)


def test_not_utf8_names_the_line_and_the_byte(tmp_path: Path) -> None:
    path = tmp_path / "latin.json"
    path.write_bytes(b'{"data": "caf\xe9"}')
    with pytest.raises(InputError, match=r"line 1: is not UTF-8 \(byte 0xe9\)"):
        read_squad(path)


@pytest.mark.parametrize("indent", [None, 1])
def test_a_file_cut_anywhere_is_an_error_with_a_place(tmp_path: Path, indent: int | None) -> None:
    whole = json.dumps(official(answered("q1"), answered("q2")), indent=indent)
    for length in range(1, len(whole), 7):
        path = write(tmp_path, whole[:length])
        with pytest.raises(InputError, match=r"line \d+: is .* at column \d+"):
            read_squad(path)


def test_a_cut_off_file_says_so(tmp_path: Path) -> None:
    whole = json.dumps([flat("q1")])
    for cut in (whole[:-1], whole[:-60]):
        with pytest.raises(InputError, match=r"line 1: is cut off at column"):
            read_squad(write(tmp_path, cut))


def test_json_lines_name_the_broken_line(tmp_path: Path) -> None:
    lines = json.dumps(flat("q1")) + "\n" + json.dumps(flat("q2"))[:-5]
    with pytest.raises(InputError, match="line 2: is not JSON"):
        read_squad(write(tmp_path, lines))


BAD = [("1843", 41), ("1843", -5), ("1843", 4000), ("1843.x", 40), ("", 40), ("  ", 40), ("1844", 40)]


@pytest.mark.parametrize(("text", "start"), BAD)
def test_misplaced_answers_past_one_percent_are_refused(tmp_path: Path, text: str, start: int) -> None:
    rows = [flat(f"q{n}") for n in range(98)] + [flat("bad1", text, start), flat("bad2", text, start)]
    with pytest.raises(InputError, match=r"2 of 100 answers .* of questions bad1, bad2; at most 1% is tolerated"):
        read_squad(write(tmp_path, rows))


@pytest.mark.parametrize(("text", "start"), BAD)
def test_misplaced_answers_up_to_one_percent_are_reported_and_left_out(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, text: str, start: int
) -> None:
    rows = [flat(f"q{n}") for n in range(99)] + [flat("bad1", text, start)]
    with caplog.at_level(logging.WARNING):
        questions = read_squad(write(tmp_path, rows))
    (record,) = caplog.records
    assert "1 of 100 answers are not in their context at answer_start, of questions bad1" in record.getMessage()
    assert misplaced_answers(questions) == ["bad1"]
    assert questions[-1].answers == (text,)  # the metric still accepts it
    assert not questions[-1].usable
    assert all(question.usable for question in questions[:-1])


def test_a_question_is_trained_on_its_first_well_placed_answer() -> None:
    question = Question("q", "", CONTEXT, "When?", ("1844", "1843"), (-1, 40))
    assert question.span == (40, 44)
    assert question.usable


def test_many_bad_answers_are_counted_not_all_listed(tmp_path: Path) -> None:
    rows = [flat(f"q{n}", "1843", 0) for n in range(50)]
    with pytest.raises(InputError, match="q19 and 30 more; at most"):
        read_squad(write(tmp_path, rows))


def test_counting_questions_needs_no_torch(root: Path, tmp_path: Path) -> None:
    path = write(tmp_path, [flat("q1")])
    program = (
        "import sys; from splora.tasks.squad_json import count_questions; "
        f"print(count_questions({str(path)!r}), {{'torch', 'transformers', 'lightning'}} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", program], cwd=root, capture_output=True, text=True, check=True)
    assert done.stdout.split("\n")[0] == "1 set()"


@pytest.mark.real
def test_real_files(shared: Path, caplog: pytest.LogCaptureFixture) -> None:
    assert count_questions(shared / "data/squad/dev.json") == 1731
    train = read_squad(shared / "data/squad/train.json")
    assert len(train) == 8839
    assert all(question.span for question in train)
    assert not caplog.records


def test_questions_without_an_id_are_numbered_beside_those_that_have_one(tmp_path: Path) -> None:
    asked = [{"question": "Who?", "context": "Ada."} for _ in range(3)]
    path = tmp_path / "asked.json"
    path.write_text(json.dumps([asked[0] | {"id": "1"}, *asked[1:]]), encoding="utf-8")
    assert [question.id for question in read_squad(path, answered=False)] == ["1", "question-1", "2"]
