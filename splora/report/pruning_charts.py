"""Accuracy of prunings after training against MACs and against latency, with the front of the best."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from splora.report.charts import Axis, Chart, Series
from splora.report.looks import grouped
from splora.report.pareto import front
from splora.report.runs import LOWER_IS_BETTER, Pruned, method_name, metric_name


def pruning_charts(pruned: Sequence[Pruned]) -> list[Chart]:
    """Score against MACs left and against measured latency, with the front of the best, for what can be compared."""
    charts = []
    for number, ((model, task, _), some) in enumerate(
        grouped(pruned, lambda one: (one.model, one.task, one.metric)).items()
    ):
        where = f"{Path(model).name}, {task}"
        charts += _pruning_chart(f"macs-{number + 1}", where, "", some, lambda one: one.macs, 100.0)
        timed = [one for one in some if one.latency is not None]
        for shape_number, (shape, alike) in enumerate(grouped(timed, lambda one: one.latency_of).items()):
            dense = sum(one.latency[0] for one in alike if one.latency) / len(alike)
            charts += _pruning_chart(
                f"latency-{number + 1}-{shape_number + 1}",
                where,
                shape,
                alike,
                lambda one: one.latency[1] if one.latency else None,
                dense,
            )
    return charts


def _pruning_chart(
    name: str,
    where: str,
    shape: str,
    some: Sequence[Pruned],
    cost: Callable[[Pruned], float | None],
    dense_cost: float,
) -> list[Chart]:
    metric = some[0].metric
    better = metric not in LOWER_IS_BETTER
    named = metric_name(metric)
    drawn = [(one, (x, one.pruned)) for one in some if (x := cost(one)) is not None]
    if not drawn:
        return []
    dense = max((one.dense for one, _ in drawn), key=lambda value: value if better else -value)
    points = [point for _, point in drawn]
    best = [points[position] for position in front(points, better)]
    unit, axis = ("ms", Axis("latency, ms")) if shape else ("% of the MACs", Axis("MACs left, %"))
    methods = list(dict.fromkeys(one.method for one, _ in drawn))
    series = [
        Series("front of the best", (), 0, line=tuple(best), filled=False, named=len(best) > 1),
        *(
            Series(
                label=method_name(method),
                points=tuple(point for one, point in drawn if one.method == method),
                look=1 + methods.index(method),
                texts=tuple(
                    f"{one.label}: {named} {y:.2f} at {x:.1f} {unit}, seed {one.seed}"
                    for one, (x, y) in drawn
                    if one.method == method
                ),
            )
            for method in methods
        ),
        Series("dense", ((dense_cost, dense),), 0, (f"dense: {named} {dense:.2f} at {dense_cost:.1f} {unit}",)),
    ]
    cheapest, highest = best[0], best[-1]
    return [
        Chart(
            name=name,
            title=f"{named} against {'measured latency' if shape else 'MACs'}: {where}",
            description=(
                f"{len(drawn)} prunings{f', {shape}' if shape else ''}; {len(best)} on the front, from {named} "
                f"{cheapest[1]:.1f} at {cheapest[0]:.1f} {unit} to {highest[1]:.1f} at {highest[0]:.1f} {unit}."
            ),
            x=axis,
            y=Axis(named + ("" if better else ", less is better")),
            series=tuple(series),
            levels=((f"dense: {dense:.1f}", dense),),
        )
    ]
