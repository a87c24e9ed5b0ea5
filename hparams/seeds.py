"""Several seeds of one row: how they are named on the command line, and their means in the results."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from splora.errors import InputError
from splora.json_values import number
from splora.training.columns import LARGEST
from splora.training.seeds import group_of, mean_and_deviation

#: So many seeds in one call are taken for a mistake.
MOST = 1000
_PART = re.compile(r"([0-9]{1,10})(?:-([0-9]{1,10}))?")


def parse_seeds(text: str) -> tuple[int, ...]:
    """The seeds that ``1-5`` or ``1,3,7-9`` names, each once, in the order named.

    Raises:
        InputError: it names none.
    """
    seeds: dict[int, None] = {}
    for part in text.split(","):
        match = _PART.fullmatch(part.strip())
        first, last = (int(match[1]), int(match[2] or match[1])) if match else (1, 0)
        if first > last or last > LARGEST:
            raise InputError(
                f"--seeds: is {text[:60]!r}; allowed are whole numbers from 0 to {LARGEST}, as in 1-5 or 1,3,7-9."
            )
        if last - first >= MOST:
            raise InputError(f"--seeds: {part.strip()} names {last - first + 1:,} seeds; at most {MOST} are allowed.")
        seeds |= dict.fromkeys(range(first, last + 1))
    return tuple(seeds)


def with_means(
    lines: Iterable[Mapping[str, Any]],
    scores: Sequence[str],
    averaged: Sequence[str],
    typed: Callable[[str, Any], Any],
) -> list[dict[str, Any]]:
    """`lines` of runs with one more behind each group of seeds: means of its numbers, deviations of its scores.

    Args:
        scores: columns whose deviation stands in ``<column>_deviation``.
        averaged: other columns of which the mean is told.
        typed: a column's value as the number it is, of a line that was read from a text.
    """
    runs = [dict(line) for line in lines if not _is_mean(line)]
    groups: dict[tuple[str, str, str], list[dict[str, Any]]] = {}
    for line in runs:
        if (group := group_of(str(line.get("run") or ""))) is not None:
            groups.setdefault((str(line.get("sheet")), str(line.get("exp_id")), group), []).append(line)
    for (_, _, group), members in groups.items():
        if len(members) > 1:
            mean = {**members[-1], "run": group, "seed": f"mean of {len(members)}"}
            for name in (*scores, *averaged):
                values = [typed(name, line.get(name)) for line in members]
                known = [value for value in map(number, values) if value is not None]
                whole = len(known) == len(members)
                mean[name] = mean_and_deviation(known)[0] if whole else None
                if name in scores:
                    mean[f"{name}_deviation"] = mean_and_deviation(known)[1] if whole else None
            runs.insert(runs.index(members[-1]) + 1, mean)
    return runs


def _is_mean(line: Mapping[str, Any]) -> bool:
    return str(line.get("run") or "").endswith("-seed-*")
