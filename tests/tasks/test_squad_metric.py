"""Exact match and F1 against torchmetrics (1.1) and a naive account of the official rules (2.0)."""

from __future__ import annotations

import re
import string

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from splora.tasks.squad_metric import Score, best_thresholds, normalize, score, scores, totals, totals_v2

WORDS = ["the", "The", "a", "An", "an", "cat", "Cat.", "U.S.", "a.m.", "the-end", "“an”", "$1,843", "1843", "ß", "İ",
         "É", "…", "--", "\u00a0", "\t", "thea", "_the_", "日本", "a'"]  # fmt: skip
texts = st.one_of(
    st.lists(st.sampled_from(WORDS), max_size=6).map(" ".join),
    st.text(max_size=12),
    st.lists(st.sampled_from(WORDS), max_size=4).map("".join),
)


# torchmetrics scores empty texts by the rule of 2.0; the official evaluation of 1.1 gives them an F1 of 0.
worded = texts.filter(lambda text: naive_words(text) != [])


@settings(deadline=None, max_examples=200)
@given(st.lists(st.tuples(worded, st.lists(worded, min_size=1, max_size=3)), min_size=1, max_size=8))
def test_version_1_equals_torchmetrics(cases: list[tuple[str, list[str]]]) -> None:
    from torchmetrics.functional.text import squad

    ours = totals(
        scores(
            {str(n): prediction for n, (prediction, _) in enumerate(cases)},
            {str(n): answers for n, (_, answers) in enumerate(cases)},
        )
    )
    theirs = squad(
        [{"prediction_text": prediction, "id": str(n)} for n, (prediction, _) in enumerate(cases)],
        [{"answers": {"text": a, "answer_start": [0] * len(a)}, "id": str(n)} for n, (_, a) in enumerate(cases)],
    )
    assert ours["exact_match"] == pytest.approx(float(theirs["exact_match"]), rel=1e-5)
    assert ours["f1"] == pytest.approx(float(theirs["f1"]), rel=1e-5)


def naive_words(text: str) -> list[str]:
    """Step by step, character by character, as the evaluation's rules are written down."""
    kept = "".join(character for character in text.lower() if character not in set(string.punctuation))
    return re.sub(r"\b(a|an|the)\b", " ", kept, flags=re.UNICODE).split()


def naive_score_v2(prediction: str, answers: list[str]) -> tuple[float, float]:
    golds = [naive_words(answer) for answer in answers if naive_words(answer)] or [[]]
    found = naive_words(prediction)
    exact = max(float(found == gold) for gold in golds)
    best = 0.0
    for gold in golds:
        if not gold or not found:
            best = max(best, float(gold == found))
            continue
        rest, common = list(gold), 0
        for word in found:
            if word in rest:
                rest.remove(word)
                common += 1
        if common:
            p, r = common / len(found), common / len(gold)
            best = max(best, 2 * p * r / (p + r))
    return exact, best


@settings(deadline=None, max_examples=300)
@given(texts, st.lists(texts, max_size=3))
def test_version_2_equals_the_rules(prediction: str, answers: list[str]) -> None:
    exact, f1 = naive_score_v2(prediction, answers)
    assert score(prediction, answers, version_2=True) == Score(exact, pytest.approx(f1))


@given(texts)
def test_normalizing_equals_the_rules(text: str) -> None:
    assert normalize(text) == " ".join(naive_words(text))


@pytest.mark.parametrize(
    ("text", "normal"),
    [
        ("The  Cat.", "cat"),
        ("a.m.", "am"),
        ("an-other", "another"),
        ("U.S.A", "usa"),
        ("the a an", ""),
        ("“the”", "“ ”"),
    ],
)
def test_normalizing(text: str, normal: str) -> None:
    assert normalize(text) == normal


def test_the_versions_differ_only_on_empty_texts() -> None:
    assert score("the", ["a"]) == Score(1.0, 0.0)
    assert score("the", ["a"], version_2=True) == Score(1.0, 1.0)
    assert score("", [], version_2=True) == Score(1.0, 1.0)
    assert score("", []) == Score(0.0, 0.0)
    assert score("", ["the", "cat"], version_2=True) == Score(0.0, 0.0)


def test_a_missing_prediction_costs_in_version_1_only() -> None:
    references = {"q1": ["cat"], "q2": ["dog"]}
    assert totals(scores({"q1": "cat"}, references)) == {"exact_match": 50.0, "f1": 50.0}
    assert totals_v2(scores({"q1": "cat"}, references, version_2=True), references)["exact"] == 100.0


def test_version_2_totals_by_kind_of_question() -> None:
    references = {"q1": ["black cat"], "q2": [], "q3": []}
    found = totals_v2(scores({"q1": "cat", "q2": "", "q3": "dog"}, references, version_2=True), references)
    assert found == pytest.approx(
        {
            "exact_match": 100 / 3,
            "exact": 100 / 3,
            "f1": (200 / 3 + 100) / 3,
            "total": 3,
            "HasAns_exact": 0,
            "HasAns_f1": 200 / 3,
            "HasAns_total": 1,
            "NoAns_exact": 50,
            "NoAns_f1": 50,
            "NoAns_total": 2,
        }
    )


def test_a_kind_without_questions_has_no_total() -> None:
    references = {"q1": ["cat"]}
    assert "NoAns_exact" not in totals_v2(scores({"q1": "cat"}, references, version_2=True), references)


cases = st.lists(
    st.tuples(
        st.sampled_from(["cat", "black cat", "dog", ""]),
        st.sampled_from([[], ["cat"], ["black dog", "dog"]]),
        st.floats(-9, 9, allow_nan=False, width=32),
    ),
    min_size=1,
    max_size=8,
    unique_by=lambda case: case[2],
)


@settings(deadline=None)
@given(cases)
def test_best_thresholds_are_the_best_of_all_thresholds(made: list[tuple[str, list[str], float]]) -> None:
    predictions = {str(n): prediction for n, (prediction, _, _) in enumerate(made)}
    references = {str(n): answers for n, (_, answers, _) in enumerate(made)}
    odds = {str(n): value for n, (_, _, value) in enumerate(made)}

    def at(threshold: float, key: str) -> float:
        given = {name: text if odds[name] <= threshold else "" for name, text in predictions.items()}
        return totals_v2(scores(given, references, version_2=True), references)[key]

    found = best_thresholds(scores(predictions, references, version_2=True), predictions, odds, references)
    for key in ("exact", "f1"):
        assert found[f"best_{key}"] == pytest.approx(max(at(t, key) for t in [-10.0, *odds.values()]))
        assert at(found[f"best_{key}_thresh"], key) == pytest.approx(found[f"best_{key}"])
