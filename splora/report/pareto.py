"""The front of the best: what no other point beats at a cost as small."""

from __future__ import annotations

from collections.abc import Sequence


def front(points: Sequence[tuple[float, float]], larger_is_better: bool = True) -> list[int]:
    """Positions of the points that no other dominates, by ascending cost.

    Args:
        points: (cost, score) pairs; a small cost is good.
        larger_is_better: of scores; perplexity is one where it is not.

    One point dominates another when it costs no more, scores no worse, and is better in one of the two. Of equal points
    the first is named, so that the scores along the front improve strictly with the cost.
    """
    sign = 1.0 if larger_is_better else -1.0
    order = sorted(range(len(points)), key=lambda position: (points[position][0], -sign * points[position][1]))
    kept: list[int] = []
    for position in order:
        if not kept or sign * points[position][1] > sign * points[kept[-1]][1]:
            kept.append(position)
    return kept
