"""Long logs made short without losing what a reader looks for: peaks, troughs, and both ends."""

from __future__ import annotations

import math
from collections.abc import Sequence


def thin(values: Sequence[float], most: int) -> list[int]:
    """Which of `values` to draw: ascending positions, at most `most` of them, and all if there are no more.

    The positions between the ends are cut into buckets of equal length, and each bucket gives its smallest and its
    largest value. So the first and the last value stay, as do the smallest and the largest of all, and a curve through
    what is left reaches, in every bucket, as high and as low as the log did. Values that are not finite are left out:
    they have no place on an axis.

    Raises:
        ValueError: `most` is below 4, which two ends and two extremes take.
    """
    if most < 4:
        raise ValueError(f"most is {most}; two ends and two extremes take 4")
    finite = [position for position, value in enumerate(values) if math.isfinite(value)]
    if len(finite) <= most:
        return finite
    inner = finite[1:-1]
    buckets = (most - 2) // 2
    kept = {finite[0], finite[-1]}
    for number in range(buckets):
        bucket = inner[number * len(inner) // buckets : (number + 1) * len(inner) // buckets]
        kept.add(min(bucket, key=values.__getitem__))
        kept.add(max(bucket, key=values.__getitem__))
    return sorted(kept)
