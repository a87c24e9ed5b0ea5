"""The schedule against DESIGN.md's formula, at its corners and everywhere."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from splora.errors import InputError
from splora.masks.schedule import lambda_at, threshold_at


def formula(t: int, total: int, v_i: float, v_f: float, w: float, before: float, after: float) -> float:
    if t <= before * w:
        return v_i
    if t > total - after * w:
        return v_f
    return v_f + (v_i - v_f) * (1 - (t - before * w) / (total - (before + after) * w)) ** 3


@pytest.mark.parametrize(
    ("step", "expected"),
    [
        (0, 1.0),
        (100, 1.0),
        (101, formula(101, 1000, 1.0, 0.2, 100, 1, 2)),
        (450, 0.2 + 0.8 / 8),
        (800, 0.2),
        (801, 0.2),
    ],
)
def test_corners(step: int, expected: float) -> None:
    assert threshold_at(step, 1000, 1.0, 0.2, 100, 1, 2) == pytest.approx(expected, abs=1e-12)


def test_one_step_past_the_warm_up_has_left_and_one_before_the_end_has_not_arrived() -> None:
    assert threshold_at(101, 1000, 1.0, 0.2, 100, 1, 2) < 1.0
    assert threshold_at(799, 1000, 1.0, 0.2, 100, 1, 2) > 0.2


@settings(deadline=None, max_examples=200)
@given(
    total=st.integers(1, 400),
    v_i=st.floats(-2, 2),
    v_f=st.floats(-2, 2),
    warmup=st.integers(0, 60),
    before=st.floats(0, 3),
    after=st.floats(0, 3),
)
def test_the_formula_at_every_step_monotone_and_between_its_ends(
    total: int, v_i: float, v_f: float, warmup: int, before: float, after: float
) -> None:
    values = [threshold_at(t, total, v_i, v_f, warmup, before, after) for t in range(total + 1)]
    if total - (before + after) * warmup > 1e-6:
        expected = [formula(t, total, v_i, v_f, warmup, before, after) for t in range(total + 1)]
        assert values == pytest.approx(expected, abs=1e-9)
    direction = 1 if v_f >= v_i else -1
    steps = [direction * (b - a) for a, b in pairwise(values)]
    assert all(step >= -1e-12 for step in steps)
    assert min(v_i, v_f) - 1e-12 <= min(values) <= max(values) <= max(v_i, v_f) + 1e-12


def test_without_a_warm_up_it_starts_at_once_and_ends_with_the_run() -> None:
    values = [threshold_at(t, 10, 1.0, 0.5, 0, 1, 1) for t in range(11)]
    assert values[0] == 1.0
    assert values[1] < 1.0
    assert values[10] == 0.5


@pytest.mark.parametrize(("before", "after"), [(1, 0), (0, 1), (1, 1), (0.5, 0.5)])
def test_a_warm_up_longer_than_the_run_jumps_instead_of_dividing_by_zero(before: float, after: float) -> None:
    for warmup in (10, 20, 1000):
        values = [threshold_at(t, 10, 1.0, 0.5, warmup, before, after) for t in range(12)]
        assert set(values) <= {1.0, 0.5}
        assert values == sorted(values, reverse=True)


def test_lambda_is_proportional_to_the_threshold() -> None:
    assert lambda_at(0.05, 0.1, 400.0) == pytest.approx(200.0)
    assert lambda_at(0.1, 0.1, 400.0) == 400.0
    assert lambda_at(0.0, 0.1, 400.0) == 0.0


def test_lambda_without_a_final_threshold() -> None:
    assert lambda_at(0.3, 0.0, 0.0) == 0.0
    with pytest.raises(InputError, match="final_threshold is 0"):
        lambda_at(0.3, 0.0, 1.0)
