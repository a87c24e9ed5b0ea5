"""Scores against density: a table and a picture of finished runs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from splora.errors import InputError
from splora.files import replacing
from splora.json_values import number, numbers, one_line, read_object, text
from splora.masks.criteria import label_of
from splora.run_files import BEFORE
from splora.training.result_file import RESULT

_NUMBERS = ("remaining_weights_percent", "learned_weights_percent", "adapter_bytes", "seconds")
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


def read_points(folder: str | Path, notices: list[str] | None = None) -> list[Point]:
    """All finished runs below a folder, by EXP ID.

    Args:
        notices: takes a sentence on each result that is left out, as it is damaged or of something else.

    Raises:
        InputError: no finished run is there.
    """
    left_out: list[str] = []
    points = []
    for path in sorted(Path(folder).glob(f"**/{RESULT}")):
        if BEFORE in path.relative_to(folder).parts[:-1]:  # a step on a run's way, no run of its own
            continue
        try:
            points.append(_point(read_object(path) or {}))
        except ValueError as error:
            left_out.append(f"{path}: {one_line(str(error))}.")
    if not points:
        raise InputError(left_out or f"{folder}: no finished run is below this folder.")
    if notices is not None:
        notices += left_out
    return sorted(points, key=lambda point: (len(point.exp_id), point.exp_id))


def table(points: Sequence[Point], metrics: Sequence[str]) -> str:
    """A Markdown table, a line per run."""
    headings = ["EXP ID", "method", "adapter", *metrics, "remaining %", "learned %", "stored", "minutes"]
    lines = ["| " + " | ".join(headings) + " |", "|" + "---|" * 3 + "---:|" * (len(headings) - 3)]
    for point in points:
        scores = [f"{point.metrics[name]:.2f}" if name in point.metrics else "–" for name in metrics]
        stored = f"{point.stored_bytes / 2**20:.2f} MiB"
        cells = [point.exp_id, label_of(point.method), point.adapter, *scores]
        cells += [f"{point.remaining:.1f}", f"{point.learned:.2f}", stored, f"{point.seconds / 60:.1f}"]
        lines.append("| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |")
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
            label = f"{label_of(method)}, {'plain' if adapter == 'none' else adapter}"
            style: dict[str, Any] = {"color": colour, "linestyle": "--" if adapter == "none" else "-"}
            axis.plot(*zip(*line, strict=True), marker="o" if adapter == "none" else "s", label=label, **style)
    axis.set_xlabel("remaining encoder weights, %")
    axis.set_ylabel(metric)
    axis.set_title(title)
    axis.grid(alpha=0.3)
    legend = axis.legend(fontsize=8, loc="center left", bbox_to_anchor=(1.0, 0.5))
    for shown_text in (*legend.get_texts(), axis.title, axis.yaxis.label):
        shown_text.set_parse_math(False)  # names come from files, and a $ in one is no formula
    with replacing(path) as beside:
        figure.savefig(beside, format="png", dpi=130)


def _point(result: dict[str, Any]) -> Point:
    """The run that a result tells.

    Raises:
        ValueError: it lacks what a run measures; the message says what.
    """
    lacking = [name for name in _NUMBERS if number(result.get(name)) is None]
    lacking += [name for name in ("method", "adapter") if not isinstance(result.get(name), str)]
    if lacking or not numbers(result.get("metrics")):
        raise ValueError(f"is not the result of a run (it lacks {', '.join(lacking or ['metrics'])})")
    remaining, learned, stored, seconds = (number(result[name]) or 0.0 for name in _NUMBERS)
    return Point(
        exp_id=one_line(text(result.get("exp_id")), 100),
        method=one_line(result["method"], 40),
        adapter=one_line(result["adapter"], 40),
        metrics=numbers(result["metrics"]),
        remaining=remaining,
        learned=learned,
        stored_bytes=int(stored),
        seconds=seconds,
    )
