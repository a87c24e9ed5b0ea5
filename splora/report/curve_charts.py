"""Loss, density, threshold and λ over the steps."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from splora.report.charts import Axis, Chart, Series
from splora.report.looks import adapter_name, grouped
from splora.report.runs import Run, method_name, metric_name, primary_metric

#: Runs that are drawn in one chart.
TOGETHER = 8


@dataclass(frozen=True)
class CurveGroup:
    """Runs of one method, and their curves; quantities that never changed are told in words."""

    title: str
    runs: tuple[Run, ...]
    charts: tuple[Chart, ...]
    remarks: tuple[str, ...]


def curve_groups(runs: Sequence[Run]) -> list[CurveGroup]:
    """Loss, density, threshold and λ over the steps, a few runs of one method together."""
    groups: list[CurveGroup] = []
    logged = [run for run in runs if run.log.curves]
    for (sheet, task, method), some in grouped(logged, lambda run: (run.sheet, run.task, run.method)).items():
        ordered = sorted(some, key=lambda run: (run.adapter, -(run.density or 0.0)))
        for start in range(0, len(ordered), TOGETHER):
            few = ordered[start : start + TOGETHER]
            where = ", ".join(part for part in (sheet, task) if part)
            title = f"{method_name(method)}{f' ({where})' if where else ''}: {_labels(few)}"
            charts, remarks = _curves(few, f"curves-{len(groups) + 1}", title)
            groups.append(CurveGroup(title, tuple(few), tuple(charts), tuple(remarks)))
    return groups


def _curves(runs: Sequence[Run], name: str, title: str) -> tuple[list[Chart], list[str]]:
    charts, remarks = [], []
    columns = ["loss", "density", "threshold", "lambda"]
    score = f"val/{primary_metric(runs[0].task)}"
    for column in [*columns, score]:
        curves = [(number, run, run.log.curves[column]) for number, run in enumerate(runs) if column in run.log.curves]
        curves = [found for found in curves if found[2].values]
        named = {"lambda": "λ", "threshold": "threshold v"}.get(column, metric_name(column.removeprefix("val/")))
        values = {value for _, _, curve in curves for value in curve.values}
        broken = sum(curve.broken for _, _, curve in curves)
        if broken:
            remarks.append(f"{named}: {broken} logged values are not finite and are left out.")
        if not curves or (column == score and max(len(curve.values) for _, _, curve in curves) < 3):
            continue
        if len(values) == 1:
            remarks.append(f"{named}: {values.pop():g} throughout.")
            continue
        factor = 100.0 if column == "density" and max(values) <= 1 else 1.0
        logarithmic = min(values) > 0 and max(values) / min(values) > 50
        logged = sum(curve.logged for _, _, curve in curves)
        shown = sum(len(curve.values) for _, _, curve in curves)
        ends = "; ".join(
            f"{run.label}: {factor * curve.values[0]:.3g} to {factor * curve.values[-1]:.3g}"
            for _, run, curve in curves
        )
        charts.append(
            Chart(
                name=f"{name}-{re.sub('[^a-z0-9]+', '-', column.lower())}",
                title=f"{named} over the steps: {title}",
                description=f"{shown} of {logged} logged points, peaks and ends kept. {ends}.",
                x=Axis("step"),
                y=Axis(f"{named}, %" if factor == 100 else named, logarithmic),
                series=tuple(
                    _curve_series(number, run, curve.steps, [factor * value for value in curve.values], len(runs))
                    for number, run, curve in curves
                ),
                caption=f"{named} over the steps",
            )
        )
    return charts, remarks


def _curve_series(number: int, run: Run, steps: Sequence[float], values: Sequence[float], of: int) -> Series:
    line = tuple(zip(steps, values, strict=True))
    # Three markers tell the line by its shape; those of different runs stand at different places.
    places = sorted({round((third + (number + 0.5) / of) / 3 * (len(line) - 1)) for third in range(3)})
    told = [
        run.label,
        adapter_name(run.adapter),
        f"{run.density:.1f} %" if run.density is not None else run.state,
    ]
    return Series(
        label=" · ".join(told),
        points=tuple(line[place] for place in places),
        look=number,
        line=line,
        filled=run.adapter not in ("", "none"),
        dashed=run.adapter in ("", "none"),
    )


def _labels(runs: Sequence[Run]) -> str:
    labels = sorted((run.label for run in runs), key=lambda label: (len(label), label))
    return f"runs {', '.join(labels)}" if len(labels) > 1 else f"run {labels[0]}"
