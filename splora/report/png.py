"""The page's charts as PNG files, drawn by matplotlib from the same data."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from splora.files import replacing
from splora.report.charts import LOOKS, Chart
from splora.report.heatmap import HeatMap
from splora.report.looks import LIGHT

_MARKERS = ("o", "s", "^", "D", "v", "P", "*", "X")


def save_chart(chart: Chart, folder: Path) -> Path:
    """Draw a chart into `folder`; returns the file.

    Raises:
        InputError: the folder cannot be written to.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7.2, 4.4), layout="constrained")
    axis = figure.subplots()
    for series in sorted(chart.series, key=lambda one: not one.faint):
        colour = LIGHT[series.look % LOOKS]
        kind: dict[str, Any] = {"color": colour, "alpha": 0.4 if series.faint else 1.0}
        label = series.label if series.named else None
        if series.line:
            line: dict[str, Any] = {"linestyle": "--" if series.dashed else "-", "linewidth": 1.4}
            axis.plot(*zip(*series.line, strict=True), label=None if series.points else label, **line, **kind)
        if series.points:
            kind |= {"marker": _MARKERS[series.look % LOOKS], "markersize": 6, "linestyle": ""}
            kind |= {"markerfacecolor": colour if series.filled else "white"}
            axis.plot(*zip(*series.points, strict=True), label=label, **kind)
    for label, value in chart.levels:
        axis.axhline(value, color="grey", linewidth=1, linestyle=":", label=label)
    axis.set_xscale("log" if chart.x.logarithmic else "linear")
    axis.set_yscale("log" if chart.y.logarithmic else "linear")
    axis.set_xlabel(chart.x.label)
    axis.set_ylabel(chart.y.label)
    axis.set_title(chart.title, fontsize=10, wrap=True)
    axis.grid(alpha=0.3)
    if axis.get_legend_handles_labels()[0]:
        figure.legend(fontsize=8, loc="outside right center")
    return _save(figure, folder / f"{chart.name}.png", chart.description)


def save_map(found: HeatMap, name: str, title: str, folder: Path) -> Path:
    """Draw a heat map into `folder`; returns the file.

    Raises:
        InputError: the folder cannot be written to.
    """
    from matplotlib.figure import Figure

    layers, columns = found.shares.shape
    figure = Figure(figsize=(1.5 + 0.36 * columns, 1.2 + 0.3 * layers), layout="constrained")
    axis = figure.subplots()
    image = axis.imshow(found.shares, cmap="Blues", vmin=0, vmax=1, aspect="auto", interpolation="nearest")
    axis.set_xticks(range(columns), [column.removeprefix("head ") for column in found.columns], fontsize=7, rotation=90)
    axis.set_yticks(range(layers), [str(layer) for layer in range(layers)], fontsize=7)
    axis.set_xticks([column + 0.5 for column in range(columns - 1)], minor=True)
    axis.grid(which="minor", axis="x", color="white", linewidth=1)
    if found.heads:
        axis.axvline(found.heads - 0.5, color="#d1495b", linewidth=2)
    axis.set_ylabel("layer")
    axis.set_title(title, fontsize=9)
    figure.colorbar(image, ax=axis)
    return _save(figure, folder / f"{name}.png", title)


def _save(figure: Any, path: Path, description: str) -> Path:
    with replacing(path) as beside:
        figure.savefig(beside, format="png", dpi=110, metadata={"Description": description})
    return path
