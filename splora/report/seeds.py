"""Runs of one row with several seeds, together: mean ± standard deviation of what they measured."""

from __future__ import annotations

from collections.abc import Sequence

from splora.report.looks import grouped
from splora.report.runs import Run, metric_name
from splora.training.seeds import group_of, mean_and_deviation

#: One row of the table: what was run, its seeds, how many of them are finished, and its figures.
HEADINGS = ("row", "runs", "seeds", "scores, mean ± deviation", "remaining %")


def seed_rows(runs: Sequence[Run]) -> list[tuple[str, ...]]:
    """A line per group of at least two finished seeds."""
    seeded = [run for run in runs if run.finished and group_of(run.name or run.folder.name) is not None]
    groups = grouped(seeded, lambda run: (run.sheet, run.label, group_of(run.name or run.folder.name) or ""))
    return [_line(label, group, some) for (_, label, group), some in groups.items() if len(some) > 1]


def _line(label: str, group: str, some: Sequence[Run]) -> tuple[str, ...]:
    names = [name for name in some[0].metrics if all(name in run.metrics for run in some)]
    scores = "; ".join(f"{metric_name(name)} {_shown([run.metrics[name] for run in some])}" for name in names)
    densities = [run.density for run in some if run.density is not None]
    left = _shown(densities) if len(densities) == len(some) else ""
    return label, group, ", ".join(run.seed for run in some), scores, left


def _shown(values: Sequence[float]) -> str:
    mean, deviation = mean_and_deviation(values)
    return f"{mean:.2f} ± {deviation:.2f}"
