"""Latency by the number of heads or neurons of a block: flat, then a straight line (Kwon et al. 2022)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from splora.errors import InputError


@dataclass(frozen=True)
class LatencyFit:
    """Milliseconds of a block of n units: 0 without any, c up to T of them, c + a·(n − T) beyond.

    Attributes:
        threshold: T, at least 1: so many units cost no more than one.
        constant: c, milliseconds, not negative.
        slope: a, milliseconds per further unit, not negative.
    """

    threshold: int
    constant: float
    slope: float

    def at(self, units: int) -> float:
        """Milliseconds of a block that keeps so many units."""
        return 0.0 if units <= 0 else self.constant + self.slope * max(units - self.threshold, 0)


def fit(sizes: npt.ArrayLike, milliseconds: npt.ArrayLike) -> LatencyFit:
    """The least-squares fit of measured points, over all thresholds T among the measured sizes.

    Among thresholds that fit equally well the smallest is taken: it forbids the least.

    Args:
        sizes: units of a block, (points,); a size of 0 says nothing, as its latency is 0 by definition.
        milliseconds: what such a block costs more than one without units, (points,).

    Raises:
        InputError: no size but 0.
    """
    every, times = np.asarray(sizes, dtype=np.int64), np.asarray(milliseconds, dtype=np.float64)
    units, measured = every[every > 0], times[every > 0]
    if not len(units):
        raise InputError("a latency cannot be fitted: no block with heads or neurons was measured.")
    scale = float(measured @ measured)
    best, least = LatencyFit(int(units.min()), 0.0, 0.0), np.inf
    for threshold in np.unique(units):
        candidate = _line(int(threshold), units, measured)
        missed = measured - np.array([candidate.at(int(size)) for size in units])
        squares = float(missed @ missed)
        # Differences as small as rounding are none.
        if squares < least - 1e-12 * scale:
            best, least = candidate, squares
    return best


def relative_error(found: LatencyFit, sizes: npt.ArrayLike, milliseconds: npt.ArrayLike) -> float:
    """The largest distance of a measured point from its fit, as a part of the largest measured latency."""
    every, times = np.asarray(sizes, dtype=np.int64), np.asarray(milliseconds, dtype=np.float64)
    missed = [abs(found.at(int(size)) - time) for size, time in zip(every, times, strict=True) if size > 0]
    return float(max(missed) / np.abs(times).max()) if missed and np.abs(times).max() > 0 else 0.0


def _line(threshold: int, units: npt.NDArray[np.int64], measured: npt.NDArray[np.float64]) -> LatencyFit:
    """Least squares for one threshold, with neither a constant nor a slope below zero."""
    beyond = np.maximum(units - threshold, 0).astype(np.float64)
    mean, spread = beyond.mean(), beyond - beyond.mean()
    slope = float(spread @ measured / (spread @ spread)) if spread.any() else 0.0
    constant = float(measured.mean() - slope * mean)
    if slope < 0:
        slope, constant = 0.0, float(measured.mean())
    elif constant < 0:
        slope, constant = float(beyond @ measured / (beyond @ beyond)), 0.0
    return LatencyFit(threshold, max(constant, 0.0), max(slope, 0.0))
