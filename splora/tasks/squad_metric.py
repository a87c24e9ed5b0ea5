"""Exact match and F1 of SQuAD 1.1 and 2.0, per question and over a data set, equal to the official evaluation.

Sources: Rajpurkar et al., arXiv 1606.05250 (1.1) and arXiv 1806.03822 (2.0). All totals are in percent.
"""

from __future__ import annotations

import re
import string
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

_PUNCTUATION = str.maketrans("", "", string.punctuation)
_ARTICLE = re.compile(r"\b(?:a|an|the)\b")

#: Accepted answers of each question by its ID; none for a question that cannot be answered.
References = Mapping[str, Sequence[str]]


@dataclass(frozen=True)
class Score:
    """Exact match (0 or 1) and F1 (0…1) of one question's prediction."""

    exact: float
    f1: float


def normalize(text: str) -> str:
    """Lower case, without ASCII punctuation, without the words a, an and the, single spaces."""
    # The order matters: "a.m." loses its full stops before articles are looked for, and stays a word.
    return " ".join(_ARTICLE.sub(" ", text.lower().translate(_PUNCTUATION)).split())


def score(prediction: str, answers: Iterable[str], version_2: bool = False) -> Score:
    """The best exact match and the best F1 over the accepted answers.

    The two versions differ where nothing is left after normalization: 2.0 ignores such answers, takes the empty text as
    the answer of a question without any, and counts empty against empty as right; F1 of 1.1 counts it as 0.
    """
    found = normalize(prediction)
    accepted = [normalize(answer) for answer in answers]
    if version_2:
        accepted = [answer for answer in accepted if answer] or [""]
    return Score(
        exact=float(found in accepted),
        f1=max((_f1(found.split(), answer.split(), version_2) for answer in accepted), default=0.0),
    )


def _f1(found: list[str], wanted: list[str], version_2: bool) -> float:
    if version_2 and not (found and wanted):
        return float(found == wanted)
    common = sum((Counter(found) & Counter(wanted)).values())
    if common == 0:
        return 0.0
    precision, recall = common / len(found), common / len(wanted)
    return 2 * precision * recall / (precision + recall)


def scores(predictions: Mapping[str, str], references: References, version_2: bool = False) -> dict[str, Score]:
    """The score of each question in `references`.

    A question without a prediction scores 0 in 1.1 and is left out in 2.0, as the official evaluations have it.
    """
    result = {}
    for name, answers in references.items():
        if name in predictions:
            result[name] = score(predictions[name], answers, version_2)
        elif not version_2:
            result[name] = Score(0.0, 0.0)
    return result


def totals(of: Mapping[str, Score]) -> dict[str, float]:
    """`exact_match` and `f1`, means in percent over all given questions; both 0 for none."""
    count = max(1, len(of))
    return {
        "exact_match": 100.0 * sum(s.exact for s in of.values()) / count,
        "f1": 100.0 * sum(s.f1 for s in of.values()) / count,
    }


def totals_v2(of: Mapping[str, Score], references: References) -> dict[str, float]:
    """The official keys of 2.0 (`exact`, `f1`, `total`, `HasAns_*`, `NoAns_*`) and `exact_match`, equal to `exact`."""
    overall = totals(of)
    result = {"exact_match": overall["exact_match"], "exact": overall["exact_match"], "f1": overall["f1"]}
    result["total"] = float(len(of))
    for prefix, has_answer in (("HasAns", True), ("NoAns", False)):
        part = {name: s for name, s in of.items() if bool(references[name]) == has_answer}
        if part:
            mean = totals(part)
            result |= {f"{prefix}_exact": mean["exact_match"], f"{prefix}_f1": mean["f1"]}
            result[f"{prefix}_total"] = float(len(part))
    return result


def best_thresholds(
    of: Mapping[str, Score], texts: Mapping[str, str], no_answer: Mapping[str, float], references: References
) -> dict[str, float]:
    """The threshold on `no_answer` that would have given the best exact match, the best F1, and those scores.

    Args:
        of: scores of `texts`.
        texts: the answer to each question before any is withheld.
        no_answer: how much speaks against an answer; one is withheld when this exceeds the threshold.

    Returns:
        `best_exact`, `best_exact_thresh`, `best_f1`, `best_f1_thresh`; where withholding
        every answer is best, the threshold is 0, or below all of `no_answer` if some of them are not above 0.
    """
    order = sorted((name for name in no_answer if name in of), key=lambda name: no_answer[name])
    lowest = min((no_answer[name] for name in order), default=1.0)
    result: dict[str, float] = {}
    for key in ("exact", "f1"):
        best = current = float(sum(not references[name] for name in references))
        threshold = 0.0 if lowest > 0 else lowest - 1.0
        for name in order:
            # An answer given to a question without one costs the point that withholding it had earned.
            current += getattr(of[name], key) if references[name] else -float(bool(texts[name]))
            if current > best:
                best, threshold = current, no_answer[name]
        result |= {f"best_{key}": 100.0 * best / max(1, len(of)), f"best_{key}_thresh": threshold}
    return result
