"""Scores against density: a table and a picture of finished runs."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from splora.errors import InputError
from splora.files import replacing

#: What a method is called in a picture.
NAMES = {
    "none": "dense",
    "magnitude": "magnitude",
    "topK": "movement",
    "topK_global": "global movement",
    "threshold": "threshold",
    "sigmoied_threshold": "soft movement",
    "sigmoid_threshold": "soft movement",
    "l0": "L0",
}
_COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9")


@dataclass(frozen=True)
class Point:
    """One finished run: percentages, and bytes of what its task stores."""

    exp_id: str
    method: str
    adapter: str
    metrics: dict[str, float]
    remaining: float
    learned: float
    stored_bytes: int
    seconds: float


def read_points(folder: str | Path) -> list[Point]:
    """All finished runs below a folder, by EXP ID.

    Raises:
        InputError: there is none, or a result cannot be read.
    """
    paths = sorted(Path(folder).glob("**/result.json"))
    if not paths:
        raise InputError(f"{folder}: no finished run is below this folder.")
    points = []
    for path in paths:
        try:
            points.append(_point(json.loads(path.read_text(encoding="utf-8"))))
        except (ValueError, KeyError) as error:
            raise InputError(f"{path}: is not the result of a run ({error}).") from error
    return sorted(points, key=lambda point: (len(point.exp_id), point.exp_id))


def table(points: Sequence[Point], metrics: Sequence[str]) -> str:
    """A Markdown table, a line per run."""
    headings = ["EXP ID", "method", "adapter", *metrics, "remaining %", "learned %", "stored", "minutes"]
    lines = ["| " + " | ".join(headings) + " |", "|" + "---|" * 3 + "---:|" * (len(headings) - 3)]
    for point in points:
        scores = [f"{point.metrics[name]:.2f}" if name in point.metrics else "–" for name in metrics]
        stored = f"{point.stored_bytes / 2**20:.2f} MiB"
        cells = [point.exp_id, NAMES[point.method], point.adapter, *scores]
        cells += [f"{point.remaining:.1f}", f"{point.learned:.2f}", stored, f"{point.seconds / 60:.1f}"]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def draw(points: Sequence[Point], metric: str, path: str | Path, title: str = "") -> None:
    """A picture of `metric` against remaining weights: a line per method, solid with an adapter, dashed without.

    Raises:
        InputError: no run has this metric, or the picture cannot be written.
    """
    from matplotlib.figure import Figure

    shown = [point for point in points if metric in point.metrics]
    if not shown:
        known = sorted({name for point in points for name in point.metrics})
        raise InputError(f"--metric: no run has {metric!r}; they have {', '.join(known)}.")
    figure = Figure(figsize=(8, 4.6), layout="constrained")
    axis = figure.subplots()
    dense = [point.metrics[metric] for point in shown if point.method == "none"]
    if dense:
        axis.axhline(max(dense), color="grey", linewidth=1, linestyle=":", label=f"dense, {max(dense):.1f}")
    methods = list(dict.fromkeys(point.method for point in shown if point.method != "none"))
    for colour, method in zip(_COLOURS * 2, methods, strict=False):
        for adapter in sorted({point.adapter for point in shown if point.method == method}):
            line = sorted((p.remaining, p.metrics[metric]) for p in shown if (p.method, p.adapter) == (method, adapter))
            label = f"{NAMES[method]}, {'plain' if adapter == 'none' else adapter}"
            style: dict[str, Any] = {"color": colour, "linestyle": "--" if adapter == "none" else "-"}
            axis.plot(*zip(*line, strict=True), marker="o" if adapter == "none" else "s", label=label, **style)
    axis.set_xlabel("remaining encoder weights, %")
    axis.set_ylabel(metric)
    axis.set_title(title)
    axis.grid(alpha=0.3)
    axis.legend(fontsize=8, loc="center left", bbox_to_anchor=(1.0, 0.5))
    with replacing(path) as beside:
        figure.savefig(beside, format="png", dpi=130)


def _point(result: dict[str, Any]) -> Point:
    return Point(
        exp_id=str(result["exp_id"]),
        method=result["method"],
        adapter=result["adapter"],
        metrics=dict(result["metrics"]),
        remaining=float(result["remaining_weights_percent"]),
        learned=float(result["learned_weights_percent"]),
        stored_bytes=int(result["adapter_bytes"]),
        seconds=float(result["seconds"]),
    )
