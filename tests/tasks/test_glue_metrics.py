"""Scores in percent, against the formulas written out."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from splora.tasks.glue_metrics import score

PAIRS = st.lists(st.tuples(st.booleans(), st.booleans()), min_size=1, max_size=60)


@given(PAIRS, st.sampled_from([0, 1]))
def test_accuracy_f1_and_matthews(pairs: list[tuple[bool, bool]], positive: int) -> None:
    predicted, labels = (np.array(side, np.int64) for side in zip(*pairs, strict=True))
    found = score(("accuracy", "f1", "matthews"), np.eye(2)[predicted], labels, positive)
    tp = int(((predicted == positive) & (labels == positive)).sum())
    fp = int(((predicted == positive) & (labels != positive)).sum())
    fn = int(((predicted != positive) & (labels == positive)).sum())
    tn = len(labels) - tp - fp - fn
    assert found["accuracy"] == pytest.approx(100 * (tp + tn) / len(labels), abs=1e-4)
    assert found["f1"] == pytest.approx(100 * 2 * tp / (2 * tp + fp + fn) if tp else 0, abs=1e-4)
    if (product := (tp + fp) * (tp + fn) * (tn + fp) * (tn + fn)) > 0:
        assert found["matthews"] == pytest.approx(100 * (tp * tn - fp * fn) / product**0.5, abs=1e-3)


def test_correlations_equal_numpys() -> None:
    random = np.random.default_rng(0)
    labels = random.uniform(0, 5, 50)
    scores = labels + random.normal(0, 1, 50)
    found = score(("pearson", "spearman"), scores[:, None], labels)
    ranks = np.argsort(np.argsort(scores)), np.argsort(np.argsort(labels))
    assert found["pearson"] == pytest.approx(100 * np.corrcoef(scores, labels)[0, 1], abs=1e-3)
    assert found["spearman"] == pytest.approx(100 * np.corrcoef(*ranks)[0, 1], abs=1e-3)


def test_constant_predictions_do_not_correlate() -> None:
    assert score(("pearson", "spearman"), np.ones((4, 1)), np.arange(4.0)) == {"pearson": 0, "spearman": 0}
