"""`metrics.csv` of a run as curves."""

from __future__ import annotations

import csv
import itertools
import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from splora.json_values import number
from splora.report.thin import thin

#: Columns that are drawn; the scores of evaluations begin with `val/`.
COLUMNS = ("loss", "density", "threshold", "lambda")
SCORES = "val/"


@dataclass(frozen=True)
class Curve:
    """One logged quantity over the steps, thinned.

    Attributes:
        steps: ascending.
        values: one for each step, all finite.
        logged: values in the log.
        broken: how many of them were not finite.
    """

    steps: tuple[float, ...]
    values: tuple[float, ...]
    logged: int
    broken: int


@dataclass(frozen=True)
class Log:
    """The curves of a run by column, and how many lines of the file were not readable."""

    curves: dict[str, Curve]
    bad_lines: int = 0


def read_log(path: Path, most: int) -> Log:
    """Read `metrics.csv`, each curve thinned to at most `most` points; a missing or empty file gives no curves.

    A line that a killed program left half written is skipped and counted.

    Raises:
        OSError: the file is there and cannot be read.
    """
    found: dict[str, tuple[list[float], list[float]]] = {}
    bad = 0
    if not path.is_file():
        return Log({})
    with path.open(encoding="utf-8", errors="replace", newline="") as file:
        lines = _rows(csv.reader(file))
        heading = next(lines, None) or []
        if "step" not in heading:
            return Log({}, bad_lines=1 if heading else 0)
        step_at = heading.index("step")
        wanted = [(at, name) for at, name in enumerate(heading) if name in COLUMNS or name.startswith(SCORES)]
        for row in lines:
            try:
                if row is None or len(row) != len(heading):
                    raise ValueError
                step = number(float(row[step_at]))
                if step is None:
                    raise ValueError
                new = [(name, _value(row[at])) for at, name in wanted if row[at]]
            except ValueError:
                bad += 1
                continue
            for name, value in new:
                steps, values = found.setdefault(name, ([], []))
                steps.append(step)
                values.append(value)
    return Log({name: _curve(steps, values, most) for name, (steps, values) in found.items()}, bad)


def _value(cell: str) -> float:
    """A logged value; nan for one that is no measurement, which a curve leaves out and counts."""
    found = number(float(cell))
    return math.nan if found is None else found


def _rows(reader: Iterator[list[str]]) -> Iterator[list[str] | None]:
    """The rows of a CSV file, None for one that is none."""
    while True:
        try:
            row = next(reader)
        except StopIteration:
            return
        except csv.Error:
            yield None
        else:
            if row:
                yield row


def _curve(steps: list[float], values: list[float], most: int) -> Curve:
    if any(later < earlier for earlier, later in itertools.pairwise(steps)):
        order = sorted(range(len(steps)), key=steps.__getitem__)
        steps, values = [steps[i] for i in order], [values[i] for i in order]
    kept = thin(values, most)
    return Curve(
        tuple(steps[i] for i in kept),
        tuple(values[i] for i in kept),
        len(values),
        sum(not math.isfinite(value) for value in values),
    )
