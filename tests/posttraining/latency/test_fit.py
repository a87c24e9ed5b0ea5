"""The piecewise-linear latency finds what made its points, and stays a latency on points that nothing such made."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from splora.errors import InputError
from splora.posttraining.latency.fit import LatencyFit, fit, relative_error

SIZES = np.arange(0, 13)


def times(of: LatencyFit, sizes: np.ndarray = SIZES) -> np.ndarray:
    """Exact latencies."""
    return np.array([of.at(int(size)) for size in sizes])


@pytest.mark.parametrize(
    "made", [LatencyFit(1, 2.0, 0.5), LatencyFit(5, 2.0, 0.25), LatencyFit(10, 3.0, 4.0), LatencyFit(4, 0.0, 1.0)]
)
def test_exact_points_give_back_what_made_them(made: LatencyFit) -> None:
    found = fit(SIZES, times(made))
    assert found.threshold == made.threshold
    assert (found.constant, found.slope) == pytest.approx((made.constant, made.slope))
    assert relative_error(found, SIZES, times(made)) < 1e-9


def test_latency_is_zero_flat_and_then_a_line() -> None:
    made = LatencyFit(4, 2.0, 0.5)
    assert [made.at(units) for units in (0, 1, 4, 5, 8)] == [0.0, 2.0, 2.0, 2.5, 4.0]


def test_noise_moves_the_fit_little() -> None:
    made, sizes = LatencyFit(512, 5.0, 0.01), np.arange(0, 3073, 128)
    noisy = times(made, sizes) * (1 + 0.01 * np.random.default_rng(0).standard_normal(len(sizes)))
    found = fit(sizes, noisy)
    assert abs(found.threshold - 512) <= 128
    assert found.constant == pytest.approx(5.0, rel=0.05)
    assert found.slope == pytest.approx(0.01, rel=0.05)
    assert 0 < relative_error(found, sizes, noisy) < 0.05


def test_points_that_all_cost_the_same_have_no_slope_and_the_smallest_threshold() -> None:
    assert fit(SIZES, [0.0, *[3.0] * 12]) == LatencyFit(1, 3.0, 0.0)


def test_falling_points_have_no_slope() -> None:
    found = fit([0, 1, 2], [0.0, 3.0, 1.0])
    assert found.slope == 0
    assert found.constant == pytest.approx(2.0)


@given(st.lists(st.floats(0, 100), min_size=1, max_size=10))
def test_no_fit_is_negative_falls_or_is_worse_than_a_constant(measured: list[float]) -> None:
    sizes = np.arange(1, len(measured) + 1)
    found = fit(sizes, measured)
    assert found.constant >= 0
    assert found.slope >= 0
    assert found.threshold in sizes
    mean = float(np.mean(measured))
    squares = float(((times(found, sizes) - measured) ** 2).sum())
    assert squares <= float(((np.array(measured) - mean) ** 2).sum()) * (1 + 1e-9) + 1e-6


def test_nothing_to_fit_is_told() -> None:
    with pytest.raises(InputError, match="no block with heads or neurons was measured"):
        fit([0], [0.0])
