"""The page's tables: a column is a heading and what it says of a row."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

from markupsafe import Markup

from splora.report.looks import adapter_name
from splora.report.markup import element, join
from splora.report.runs import LOWER_IS_BETTER, Pruned, Run, method_name, metric_name

Row = TypeVar("Row")

MISSING = "–"
_SIGNS = {"finished": "✓", "failed": "✗", "unreadable": "✗", "running": "▶", "queued": "…", "interrupted": "■"}
#: Metrics in the order of their columns; others follow by name.
_METRICS = ("f1", "exact_match", "accuracy", "accuracy_mismatched")
#: Characters up to which a small table's cell stays in one line.
SHORT = 24
#: From so many points below the published score on it is told in the stronger colour.
MUCH = 1.0


@dataclass(frozen=True)
class Column(Generic[Row]):
    """One column.

    Attributes:
        cell: what stands in a row: text, markup, or a whole cell (`td`).
        is_number: whether it is sorted and set as one.
    """

    heading: str
    cell: Callable[[Row], str]
    is_number: bool = False


def run_columns(runs: Sequence[Run], anchors: dict[str, str]) -> list[Column[Run]]:
    """Columns that tell runs apart or measure them; reported scores stand before measured ones."""
    found = {metric for run in runs for metric in (*run.metrics, *run.reported)}
    metrics = [*(name for name in _METRICS if name in found), *sorted(found - set(_METRICS))]
    columns: list[Column[Run]] = [
        Column("run", lambda run: element("a", run.label, href=f"#{anchors[run.name]}")),
        Column("state", lambda run: _state(run)),
    ]
    where: list[Column[Run]] = [Column("sheet", lambda run: run.sheet), Column("task", lambda run: run.task)]
    columns += [column for column in where if len({column.cell(run) for run in runs}) > 1]
    columns += [
        Column("method", lambda run: method_name(run.method)),
        Column("adapter", lambda run: adapter_name(run.adapter)),
    ]
    if any(run.reported_density is not None for run in runs):
        columns.append(Column("remaining %, reported", lambda run: decimal(run.reported_density, 1), True))
    columns.append(Column("remaining %", lambda run: decimal(run.density, 1), True))
    for metric in metrics:
        if any(metric in run.reported for run in runs):
            columns.append(Column(f"{metric_name(metric)}, reported", _reported(metric), True))
        columns.append(Column(metric_name(metric), _measured(metric), True))
    if any(run.macs is not None for run in runs):
        columns.append(Column("MACs left, %", lambda run: decimal(run.macs, 1), True))
        columns.append(Column("times as fast", lambda run: decimal(_speed(run), 2), True))
    columns += [
        Column("learned %", lambda run: decimal(run.learned, 2), True),
        Column("stored, MiB", lambda run: decimal(mebi(run.stored_bytes), 2), True),
        Column("minutes", lambda run: decimal(None if run.seconds is None else run.seconds / 60, 1), True),
        Column("peak memory, MiB", lambda run: decimal(mebi(run.peak_memory_bytes), 0), True),
        Column("steps", lambda run: str(run.step) if run.step is not None else MISSING, True),
        Column("seed", lambda run: run.seed or MISSING, True),
    ]
    return columns


def pruned_columns(anchors: dict[str, str]) -> list[Column[Pruned]]:
    """Columns of prunings after training."""
    return [
        Column("pruning", lambda one: element("a", one.label, href=f"#{anchors[one.name]}")),
        Column("method", lambda one: method_name(one.method)),
        Column("model", lambda one: one.model.rstrip("/").rpartition("/")[2]),
        Column("task", lambda one: one.task),
        Column("metric", lambda one: metric_name(one.metric)),
        Column("dense", lambda one: decimal(one.dense, 2), True),
        Column("pruned", _pruned_score, True),
        Column("MACs left, %", lambda one: decimal(one.macs, 1), True),
        Column("latency, ms", lambda one: decimal(one.latency[1] if one.latency else None, 1), True),
        Column("times as fast", lambda one: decimal(_speed(one), 2), True),
        Column("parameters, M", lambda one: decimal(one.parameters[1] / 1e6 if one.parameters else None, 1), True),
        Column("seconds", lambda one: decimal(one.seconds, 1), True),
        Column("samples", lambda one: str(one.samples) if one.samples is not None else MISSING, True),
        Column("seed", lambda one: one.seed or MISSING, True),
    ]


def decimal(value: float | None, digits: int) -> str:
    """A number, or a dash."""
    return MISSING if value is None else f"{value:.{digits}f}"


def mebi(size: int | None) -> float | None:
    """Bytes in MiB."""
    return None if size is None else size / 2**20


def _state(run: Run) -> Markup:
    told = f"{_SIGNS.get(run.state, '?')} {run.state}"
    if run.state != "finished" and run.step is not None and run.steps:
        told += f", step {run.step} of {run.steps}"
    return element(
        "td", told, class_="alarm" if run.state in ("failed", "unreadable") else None, title=run.reason or None
    )


def _reported(metric: str) -> Callable[[Run], str]:
    return lambda run: decimal(run.reported.get(metric), 2)


def _measured(metric: str) -> Callable[[Run], str]:
    def cell(run: Run) -> str:
        value, reported = run.metrics.get(metric), run.reported.get(metric)
        if value is None or reported is None:
            return decimal(value, 2)
        short = value - reported if metric in LOWER_IS_BETTER else reported - value
        return _score(value, value - reported, short)

    return cell


def _score(value: float, change: float, short: float) -> str:
    if round(short, 2) <= 0:
        return f"{value:.2f}"
    small = element("small", f"{'−' if change < 0 else '+'}{abs(change):.2f}")
    return element("td", join(f"{value:.2f} ", small), class_="num much" if short >= MUCH else "num some")


def _pruned_score(one: Pruned) -> str:
    change = one.pruned - one.dense
    small = element("small", f"{'−' if change < 0 else '+'}{abs(change):.2f}")
    return element("td", join(f"{one.pruned:.2f} ", small), class_="num")


def _speed(one: Pruned | Run) -> float | None:
    return one.latency[0] / one.latency[1] if one.latency and one.latency[1] else None
