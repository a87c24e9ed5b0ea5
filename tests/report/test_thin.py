"""Thinning keeps what a reader looks for; the front keeps what nothing beats; logs are read as far as they go."""

from __future__ import annotations

import itertools
import math
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from splora.report.log import read_log
from splora.report.pareto import front
from splora.report.thin import thin

VALUES = st.lists(st.floats(allow_nan=True, allow_infinity=True), max_size=300)


@given(values=VALUES, most=st.integers(4, 60))
def test_ends_and_extremes_stay(values: list[float], most: int) -> None:
    kept = thin(values, most)
    finite = [position for position, value in enumerate(values) if math.isfinite(value)]
    assert kept == sorted(set(kept))
    assert len(kept) <= most
    assert set(kept) <= set(finite)
    if finite:
        assert {finite[0], finite[-1]} <= set(kept)
        numbers, shown = [values[position] for position in finite], [values[position] for position in kept]
        assert (min(shown), max(shown)) == (min(numbers), max(numbers))
    if len(finite) <= most:
        assert kept == finite


@given(st.integers(100, 400), st.integers(10, 60))
def test_every_stretch_keeps_its_extremes(count: int, most: int) -> None:
    values = [math.sin(position * 1.7) * position for position in range(count)]
    kept = thin(values, most)
    longest = max(later - earlier for earlier, later in itertools.pairwise(kept))
    buckets = (most - 2) // 2
    # Two values of neighbouring buckets are never further apart than two whole buckets.
    assert longest <= 2 * math.ceil(count / buckets)


def test_too_few_points_to_keep_anything() -> None:
    with pytest.raises(ValueError, match="two ends and two extremes take 4"):
        thin([1.0], 3)


POINTS = st.lists(st.tuples(st.integers(0, 8), st.integers(0, 8)), max_size=30)


@given(points=POINTS, larger_is_better=st.booleans())
def test_the_front_is_what_nothing_dominates(points: list[tuple[int, int]], larger_is_better: bool) -> None:
    sign = 1 if larger_is_better else -1

    def dominates(one: tuple[int, int], other: tuple[int, int]) -> bool:
        no_worse = one[0] <= other[0] and sign * one[1] >= sign * other[1]
        return no_worse and one != other

    kept = front([(float(x), float(y)) for x, y in points], larger_is_better)
    best = {point for point in points if not any(dominates(other, point) for other in points)}
    assert {points[position] for position in kept} == best
    assert len(kept) == len(best)
    assert [points[position][0] for position in kept] == sorted(points[position][0] for position in kept)


def test_a_log_is_read_as_far_as_it_goes(tmp_path: Path) -> None:
    path = tmp_path / "metrics.csv"
    path.write_bytes(
        b"step,loss,epoch,density,val/f1\n9,2.5,0,1.0,\n19,nan,0,,\n10,3.5,0,0.5,\nno,1,1,1,\n29,1.0,0,0.25,70.5\n39,0.\xff\n4"
    )
    log = read_log(path, 10)
    assert log.bad_lines == 3
    loss = log.curves["loss"]
    assert (loss.steps, loss.values, loss.logged, loss.broken) == ((9, 10, 29), (2.5, 3.5, 1.0), 4, 1)
    assert log.curves["density"].values == (1.0, 0.5, 0.25)
    assert log.curves["val/f1"].steps == (29,)
    assert "epoch" not in log.curves


def test_a_log_that_is_none(tmp_path: Path) -> None:
    path = tmp_path / "metrics.csv"
    assert read_log(path, 10).curves == {}
    path.write_bytes(b"")
    assert read_log(path, 10).bad_lines == 0
    path.write_bytes(b"\x00\x01\x02")
    assert read_log(path, 10).bad_lines == 1
