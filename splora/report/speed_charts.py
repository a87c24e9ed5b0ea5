"""The report's main picture: score against measured latency, of trained runs and of prunings without training alike."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from splora.posttraining.core.method import commands
from splora.report.charts import Axis, Chart, Series
from splora.report.looks import adapter_name, grouped, look_of
from splora.report.pareto import front
from splora.report.runs import LOWER_IS_BETTER, Pruned, Run, method_name, metric_name, primary_metric


@dataclass(frozen=True)
class _Point:
    """A model that was measured: what it is called, where it stands, and what it is by whom."""

    label: str
    kind: str
    look: int
    trained: bool
    latency: float
    score: float
    told: str


def speed_charts(runs: Sequence[Run], pruned: Sequence[Pruned]) -> list[Chart]:
    """One chart per task and metric; latency in percent of the dense model's, measured by turns in the same minute."""
    found: dict[tuple[str, str], list[_Point]] = {}
    for run in runs:
        metric = primary_metric(run.task)
        if run.finished and run.latency is not None and metric in run.metrics:
            found.setdefault((run.task, metric), []).append(_of_run(run, run.metrics[metric]))
    for one in pruned:
        if one.latency is not None:
            found.setdefault((one.task, one.metric), []).append(_of_pruned(one))
    return [
        _chart(number, task, metric, points)
        for number, ((task, metric), points) in enumerate(found.items(), start=1)
        # Where nothing is faster than dense there is nothing to see.
        if len(points) > 1 and any(point.latency < _FASTER for point in points)
    ]


#: Percent of the dense latency below which a model counts as faster: between are clocks.
_FASTER = 95.0


#: Looks of what is no method of masks: prunings by their own, healed rows by what they trained.
_HEALED = ("none", "splopa", "lora", "splora")


def _of_run(run: Run, score: float) -> _Point:
    assert run.latency is not None
    name, look = method_name(run.method), look_of(run.method)
    if run.method == "none" and run.macs is not None and run.macs < 100:
        name, look = "healed", 4 + _number(run.adapter or "none", _HEALED)
    kind = f"{name}, {adapter_name(run.adapter)}, trained"
    return _Point(run.label, kind, look, True, _share(run.latency), score, run.latency_of)


def _of_pruned(one: Pruned) -> _Point:
    assert one.latency is not None
    trained = one.method == "heal"
    kind = f"{method_name(one.method)}{'' if trained else ', not trained'}"
    look = 1 + _number(one.method, (*commands(), "heal", "export"))
    return _Point(one.label, kind, look, trained, _share(one.latency), one.pruned, one.latency_of)


def _number(name: str, known: tuple[str, ...]) -> int:
    return known.index(name) if name in known else len(known)


def _share(latency: tuple[float, float]) -> float:
    return 100 * latency[1] / latency[0]


def _chart(number: int, task: str, metric: str, points: Sequence[_Point]) -> Chart:
    better, named = metric not in LOWER_IS_BETTER, metric_name(metric)
    best = [(points[at].latency, points[at].score) for at in front([(p.latency, p.score) for p in points], better)]
    series = [Series("front of the best", (), 0, line=tuple(best), filled=False, named=len(best) > 1)]
    for (kind, look, trained), some in grouped(points, lambda p: (p.kind, p.look, p.trained)).items():
        series.append(
            Series(
                label=kind,
                points=tuple((point.latency, point.score) for point in some),
                look=look,
                texts=tuple(
                    f"{p.label}: {named} {p.score:.2f} at {p.latency:.1f} % of the dense latency"
                    + f" ({p.told})" * bool(p.told)
                    for p in some
                ),
                filled=trained,
            )
        )
    first, last = best[0], best[-1]
    return Chart(
        name=f"speed-{number}",
        title=f"{named} against measured latency: {task}",
        description=(
            f"{len(points)} models, trained and not; {len(best)} on the front, from {named} {first[1]:.1f} at "
            f"{first[0]:.1f} % of the dense latency to {last[1]:.1f} at {last[0]:.1f} %."
        ),
        x=Axis("latency, % of the dense model's"),
        y=Axis(named + ("" if better else ", less is better")),
        series=tuple(series),
        levels=(),
    )
