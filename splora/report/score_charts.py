"""The task's score against remaining and against learned weights, with the published points behind."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from splora.report.charts import Axis, Chart, Point, Series
from splora.report.looks import adapter_name, grouped, look_of
from splora.report.pareto import front
from splora.report.runs import Run, method_name, metric_name, primary_metric


@dataclass(frozen=True)
class Published:
    """One published point: what the workbook reports of a run; densities and scores in percent.

    Attributes:
        block: side of a block; 1 for single weights, None where nothing is pruned.
    """

    task: str
    title: str
    method: str
    adapter: str
    density: float
    metrics: dict[str, float]
    block: int | None


def score_charts(runs: Sequence[Run], published: Sequence[Published]) -> list[Chart]:
    """The task's score against remaining and against learned weights, for each set of evaluation data."""
    charts = []
    for number, ((task, data), some) in enumerate(grouped(runs, lambda run: (run.task, run.data[2])).items()):
        metric = primary_metric(task)
        named = metric_name(metric)
        scored = [run for run in some if run.finished and metric in run.metrics]
        where = f"{task or 'unknown task'}{f', {Path(data).name}' if data else ''}"
        behind = [] if data == "embedded" else [one for one in published if one.task == task and metric in one.metrics]
        for what, axis, cost in (
            ("density", Axis("remaining encoder weights, %"), lambda run: run.density),
            ("learned", Axis("learned weights, % of the encoder's"), lambda run: run.learned),
        ):
            drawn = [(run, (x, run.metrics[metric])) for run in scored if (x := cost(run)) is not None]
            if not drawn:
                continue
            xs = [x for _, (x, _) in drawn]
            logarithmic = what == "learned" and min(xs) > 0 and max(xs) / min(xs) > 20
            points = behind if what == "density" else []
            best, best_point = max(drawn, key=lambda pair: pair[1][1])
            description = (
                f"{len(drawn)} runs. Best: {best.label}, {method_name(best.method)}, {named} {best_point[1]:.1f} at "
                f"{best_point[0]:.1f} {axis.label}." + f" {len(points)} published points behind." * bool(points)
            )
            charts.append(
                Chart(
                    name=f"{what}-{number + 1}",
                    title=f"{named} against {'remaining' if what == 'density' else 'learned'} weights: {where}",
                    description=description,
                    x=Axis(axis.label, logarithmic),
                    y=Axis(named if metric != "f1" else "F1, %"),
                    series=(*_published_series(points, metric), *_run_series(drawn, named, logarithmic)),
                    levels=_dense_level(drawn, named),
                )
            )
    return charts


def _run_series(drawn: Sequence[tuple[Run, Point]], named: str, logarithmic: bool) -> list[Series]:
    series = []
    kinds = grouped(drawn, lambda pair: (look_of(pair[0].method), pair[0].adapter))
    for (look, adapter), some in sorted(kinds.items()):
        points = [point for _, point in some]
        best = [points[position] for position in front(points)]
        series.append(
            Series(
                label=f"{method_name(some[0][0].method)}, {adapter_name(adapter)}",
                points=tuple(points),
                look=look,
                texts=tuple(
                    f"{run.label}: {named} {y:.2f} at {x:.2f} %{f' ({run.title})' if run.title else ''}"
                    for run, (x, y) in some
                ),
                line=tuple(best) if len(best) > 1 and (not logarithmic or all(x > 0 for x, _ in best)) else (),
                filled=adapter not in ("", "none"),
                dashed=adapter in ("", "none"),
            )
        )
    return series


def _published_series(points: Sequence[Published], metric: str) -> list[Series]:
    return [
        Series(
            label=f"published: {method_name(some[0].method)}, {adapter_name(some[0].adapter)}",
            points=tuple((one.density, one.metrics[metric]) for one in some),
            look=look,
            texts=tuple(
                f"published: {one.title}, {_block_name(one.block)}, {one.metrics[metric]:.2f} at {one.density:.1f} %"
                for one in some
            ),
            filled=filled,
            faint=True,
            named=False,
        )
        for (look, filled), some in sorted(
            grouped(points, lambda one: (look_of(one.method), one.adapter != "none")).items()
        )
    ]


def _dense_level(drawn: Sequence[tuple[Run, Point]], named: str) -> tuple[tuple[str, float], ...]:
    dense = [(y, run.label) for run, (_, y) in drawn if run.method == "none"]
    return ((f"dense ({max(dense)[1]}): {max(dense)[0]:.1f}", max(dense)[0]),) if dense else ()


def _block_name(block: int | None) -> str:
    return "dense" if block is None else "single weights" if block == 1 else f"blocks of {block} × {block}"
