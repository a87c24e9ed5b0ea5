"""Charts as inline SVG: colours are the page's own, so that one drawing is read in light and in dark."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

from markupsafe import Markup

from splora.report.charts import LOOKS, Chart, Point, Scale, Series, scale_of, tick_label
from splora.report.markup import element, join

WIDTH, HEIGHT = 440, 290
LEFT, RIGHT, TOP, BOTTOM = 50, 12, 10, 42

#: Marker shapes around the origin, in the order of a series' look.
MARKERS = (
    "M-4 0a4 4 0 1 0 8 0a4 4 0 1 0-8 0z",
    "M-3.6-3.6h7.2v7.2h-7.2z",
    "M0-4.8L4.5 3.4h-9z",
    "M0-5L5 0L0 5L-5 0z",
    "M0 4.8L4.5-3.4h-9z",
    "M-1.6-4.6h3.2v3h3v3.2h-3v3h-3.2v-3h-3v-3.2h3z",
    "M0-5.4L1.5-1.8L5.3-1.5L2.4 1L3.3 4.7L0 2.7L-3.3 4.7L-2.4 1L-5.3-1.5L-1.5-1.8z",
    "M-2.4-4.7L0-2.3L2.4-4.7L4.7-2.4L2.3 0L4.7 2.4L2.4 4.7L0 2.3L-2.4 4.7L-4.7 2.4L-2.3 0L-4.7-2.4z",
)


def symbols() -> Markup:
    """The marker shapes that all charts of a page use; once per page."""
    shapes = (element("path", id=f"m{number}", d=shape) for number, shape in enumerate(MARKERS))
    return element("svg", element("defs", *shapes), width=0, height=0, class_="symbols", aria_hidden="true")


def draw(chart: Chart, height: int = HEIGHT) -> Markup:
    """A chart with its title and description as text alternatives."""
    xs = [x for series in chart.series for x, _ in (*series.points, *series.line)]
    ys = [y for series in chart.series for _, y in (*series.points, *series.line)]
    across = scale_of(xs, chart.x)
    up = scale_of([*ys, *(value for _, value in chart.levels)], chart.y)
    plane = _Plane(across, up, height)
    ordered = sorted(chart.series, key=lambda series: not series.faint)
    return element(
        "svg",
        element("title", chart.title, id=f"{chart.name}-t"),
        element("desc", chart.description, id=f"{chart.name}-d"),
        _axes(chart, plane),
        *(_series(plane, series) for series in ordered),
        *(_level(plane, label, value) for label, value in chart.levels),
        viewBox=f"0 0 {WIDTH} {height}",
        role="img",
        aria_labelledby=f"{chart.name}-t {chart.name}-d",
    )


def legend(chart: Chart) -> Markup | None:
    """The series by marker and name, as a list below the chart; None where nothing needs a name."""
    entries = [element("li", sample(series), series.label) for series in chart.series if series.named]
    return element("ul", *entries, class_="legend") if entries else None


def sample(series: Series) -> Markup:
    """A series' line and marker beside its name."""
    line = element("path", d="M0 7h30", class_="l" + " d" * series.dashed) if series.line else None
    marker = element("use", href=f"#m{series.look % LOOKS}", x=15, y=7) if series.points else None
    group = element("g", line, marker, class_=_classes(series.look, series.filled))
    return element("svg", group, viewBox="0 0 30 14", width=30, height=14, aria_hidden="true")


class _Plane:
    """From values to places in the drawing."""

    def __init__(self, across: Scale, up: Scale, height: int) -> None:
        self.across, self.up = across, up
        self.right, self.bottom = WIDTH - RIGHT, height - BOTTOM

    def x(self, value: float) -> float:
        return round(LEFT + self.across.position(value) * (self.right - LEFT), 1)

    def y(self, value: float) -> float:
        return round(self.bottom - self.up.position(value) * (self.bottom - TOP), 1)


def _axes(chart: Chart, plane: _Plane) -> Markup:
    lines = [f"M{LEFT} {plane.y(value):g}H{plane.right}" for value in plane.up.ticks]
    lines += [f"M{plane.x(value):g} {TOP}V{plane.bottom}" for value in plane.across.ticks]
    labels = [
        element("text", tick_label(value), x=f"{plane.x(value):g}", y=plane.bottom + 15, class_="m")
        for value in plane.across.ticks
    ]
    labels += [
        element("text", tick_label(value), x=LEFT - 5, y=f"{plane.y(value) + 4:g}", class_="e")
        for value in plane.up.ticks
    ]
    middle = (TOP + plane.bottom) / 2
    return join(
        element("path", d="".join(lines), class_="grid"),
        element("path", d=f"M{LEFT} {TOP}V{plane.bottom}H{plane.right}", class_="axis"),
        *labels,
        element("text", chart.x.label, x=f"{(LEFT + plane.right) / 2:g}", y=plane.bottom + 35, class_="m n"),
        element("text", chart.y.label, transform=f"translate(12 {middle:g})rotate(-90)", class_="m n"),
    )


def _level(plane: _Plane, label: str, value: float) -> Markup:
    y = plane.y(value)
    # Above the line where there is room, else below it.
    beside = y - 4 if y > TOP + 14 else y + 13
    return join(
        element("path", d=f"M{LEFT} {y:g}H{plane.right}", class_="level"),
        element("text", label, x=LEFT + 5, y=f"{beside:g}", class_="v"),
    )


def _series(plane: _Plane, series: Series) -> Markup:
    line = None
    if len(series.line) > 1:
        places = [(plane.x(x), plane.y(y)) for x, y in series.line]
        line = element("path", d=path(places), class_="l" + " d" * series.dashed)
    texts: Sequence[str | None] = series.texts or [None] * len(series.points)
    marks = [
        element(
            "use",
            *([element("title", text)] if text else []),
            href=f"#m{series.look % LOOKS}",
            x=f"{plane.x(x):g}",
            y=f"{plane.y(y):g}",
        )
        for (x, y), text in zip(series.points, texts, strict=True)
    ]
    return element("g", line, *marks, class_=_classes(series.look, series.filled) + " b" * series.faint)


def path(places: Sequence[Point]) -> str:
    """A polyline of places with one decimal, written with relative moves; runs of a horizontal are one move."""
    kept = [
        place
        for number, place in enumerate(places)
        if number in (0, len(places) - 1) or not places[number - 1][1] == place[1] == places[number + 1][1]
    ]
    words = [f"M{_short(kept[0][0])} {_short(kept[0][1])}l"]
    for (x0, y0), (x1, y1) in itertools.pairwise(kept):
        across, down = _short(x1 - x0), _short(y1 - y0)
        words.append(f"{across}{'' if down.startswith('-') else ' '}{down}")
    return " ".join(words).replace("l ", "l").replace(" -", "-")


def _short(value: float) -> str:
    found = f"{value:.1f}".removesuffix(".0")
    return "0" if found in ("-0", "0") else found.replace("0.", ".", 1) if found.lstrip("-").startswith("0.") else found


def _classes(look: int, filled: bool) -> str:
    return f"s{look % LOOKS} {'f' if filled else 'h'}"
