"""Several seeds of one row: a folder each, told apart by its name, and what they give together. Imports no torch."""

from __future__ import annotations

import re
import statistics
from collections.abc import Sequence

_ENDING = re.compile(r"-seed-(\d+)$")


def seed_folder(name: str, seed: int) -> str:
    """The folder of one seed of a row whose folder would be `name`."""
    return f"{name}-seed-{seed}"


def group_of(run: str) -> str | None:
    """What the folders of all seeds of a row have in common, or None of a run that is not one of several seeds."""
    return f"{_ENDING.sub('', run)}-seed-*" if _ENDING.search(run) else None


def mean_and_deviation(values: Sequence[float]) -> tuple[float, float]:
    """Mean and sample standard deviation (of n − 1) of two or more values."""
    return statistics.fmean(values), statistics.stdev(values)
