"""Heat maps of what is left of each layer: by head and by matrix, and block by block with the heads' boundaries."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from markupsafe import Markup
from numpy.typing import NDArray

from splora.report.bitmap import data_uri
from splora.report.markup import element, join
from splora.report.masks import Masks, Matrix, head_densities

#: Short names of the matrices, over their columns.
SHORT = {
    "query": "Q",
    "key": "K",
    "value": "V",
    "attention_output": "O",
    "ffn_in": "in",
    "ffn_out": "out",
}
#: Column of the neurons of a pruning after training.
NEURONS = "FFN"
_MARGIN, _TOP, _WIDTH = 22, 30, 440


@dataclass(frozen=True)
class HeatMap:
    """Densities in rows of layers.

    Attributes:
        shares: 0 to 1, shape (layers, columns).
        columns: what each column is; the first `heads` of them are heads.
    """

    shares: NDArray[np.float64]
    columns: tuple[str, ...]
    heads: int


def density_map(masks: Masks) -> HeatMap:
    """Densities of each layer's heads, where their size is known, and of its matrices."""
    rows, heads = [], 0
    columns: tuple[str, ...] = ()
    for matrices in masks.by_layer:
        of_heads = list(head_densities(matrices, masks.head_size)) if masks.head_size else []
        heads = len(of_heads)
        rows.append([*of_heads, *(matrix.density for matrix in matrices)])
        columns = (*(f"head {number}" for number in range(heads)), *(SHORT[matrix.role] for matrix in matrices))
    return HeatMap(np.array(rows), columns, heads)


def plan_map(heads: Sequence[Sequence[bool]], neurons: Sequence[float]) -> HeatMap:
    """What a pruning after training keeps: each head whole or not at all, and the share of each layer's neurons."""
    shares = np.array([[*map(float, kept), share] for kept, share in zip(heads, neurons, strict=True)])
    names = (*(f"head {number}" for number in range(len(heads[0]))), NEURONS)
    return HeatMap(shares, names, len(heads[0]))


def describe(found: HeatMap) -> str:
    """A heat map in a sentence, for those who do not see it."""
    layers = found.shares[:, found.heads :].mean(axis=1)
    low, high = int(layers.argmin()), int(layers.argmax())
    what = " of its neurons" if found.columns[found.heads :] == (NEURONS,) else ""
    told = f"{len(layers)} layers; layer {low} keeps least{what} ({_percent(layers[low])}), layer {high} most "
    told += f"({_percent(layers[high])})"
    if _percent(layers[low]) == _percent(layers[high]):
        told = f"each of {len(layers)} layers keeps {_percent(layers[low])}{what}"
    if found.heads:
        gone = int((found.shares[:, : found.heads] == 0).sum())
        told += f"; {gone} of {found.shares[:, : found.heads].size} heads are gone entirely"
    return told + "."


def _percent(share: float) -> str:
    return f"{100 * share:.0f} %"


def draw_map(found: HeatMap, name: str, title: str, with_numbers: bool) -> Markup:
    """A row per layer, a column per head and per matrix; the darker, the more is left."""
    layers, columns = found.shares.shape
    gap = 0.5 if found.heads else 0.0
    unit = (_WIDTH - _MARGIN) / (columns + gap)
    places = [column + gap * (column >= found.heads) for column in range(columns)]
    lefts = [_MARGIN + unit * place for place in places]
    height = min(unit, 24.0)
    levels: dict[int, list[str]] = {}
    for layer, row in enumerate(found.shares):
        for place, share in zip(places, row, strict=True):
            # A short stroke as wide as a row is high: the shortest way to write a cell down.
            levels.setdefault(round(10 * share), []).append(f"M{place:g} {layer}h.96")
    frames = [
        element("rect", x=start, y=-0.5, width=size - 0.04, height=layers, class_="frame")
        for start, size in ((0, found.heads), (found.heads + gap, columns - found.heads))
        if size
    ]
    grid = element(
        "g",
        *frames,
        *(element("path", d="".join(cells), class_=f"k k{level}") for level, cells in sorted(levels.items())),
        transform=f"translate({_MARGIN} {_TOP + height / 2:g})scale({unit:.3f} {height:.3f})",
    )
    numbers: list[Markup] = []
    if with_numbers:
        numbers = [
            element(
                "text",
                f"{100 * share:.0f}",
                x=f"{left + unit / 2 - 0.4:.1f}",
                y=f"{_TOP + (layer + 0.5) * height + 3:.1f}",
                class_=_number_class(share),
            )
            for layer, row in enumerate(found.shares)
            for left, share in zip(lefts, row, strict=True)
        ]
    tops = [
        element("text", _top(column, found.heads), x=f"{left + unit / 2:.1f}", y=_TOP - 5, class_="m")
        for left, column in zip(lefts, found.columns, strict=True)
    ]
    groups = [("heads", lefts[: found.heads]), ("matrices", lefts[found.heads :])] if found.heads else []
    tops += [
        element("text", told, x=f"{(some[0] + some[-1] + unit) / 2:.1f}", y=11, class_="m n")
        for told, some in groups
        if len(some) > 1
    ]
    sides = [
        element("text", str(layer), x=_MARGIN - 5, y=f"{_TOP + (layer + 0.5) * height + 3:.1f}", class_="e")
        for layer in range(layers)
    ]
    return element(
        "svg",
        element("title", title, id=f"{name}-t"),
        element("desc", describe(found), id=f"{name}-d"),
        grid,
        *numbers,
        *tops,
        *sides,
        viewBox=f"0 0 {_WIDTH} {_TOP + layers * height + 2:.0f}",
        role="img",
        aria_labelledby=f"{name}-t {name}-d",
        class_="heat",
    )


def draw_blocks(masks: Masks, name: str, title: str) -> Markup | None:
    """Every block of every matrix, layers below each other, FFN in turned so that its neurons run across.

    Returns:
        The picture; None where layers differ in shape.
    """
    panels = [[_upright(matrix) for matrix in matrices] for matrices in masks.by_layer]
    if any([p.shape for p in row] != [p.shape for p in panels[0]] for row in panels):
        return None
    sides = [_sides(matrix) for matrix in masks.by_layer[0]]
    high = max(height for height, _ in sides)
    gap = sum(width for _, width in sides) / 80
    unit = 1000 / (sum(width for _, width in sides) + gap * (len(sides) - 1))
    left, top = 16.0, 14.0
    pieces: list[Markup] = []
    for column, (matrix, (height, width)) in enumerate(zip(masks.by_layer[0], sides, strict=True)):
        stacked = np.concatenate([row[column] for row in panels])
        pieces.append(
            element(
                "image",
                href=data_uri(stacked),
                x=f"{left:.1f}",
                y=top,
                width=f"{width * unit:.1f}",
                height=f"{high * unit * len(panels):.1f}",
                preserveAspectRatio="none",
            )
        )
        pieces.append(element("text", SHORT[matrix.role], x=f"{left + width * unit / 2:.1f}", y=10, class_="m"))
        if masks.head_size:
            size = masks.head_size * unit
            lines = _head_lines(matrix.role, left, top, width * unit, height * unit, size, len(panels))
            pieces.append(element("path", d=lines, class_="heads") if lines else Markup())
        left += (width + gap) * unit
    ends = "".join(f"M16 {top + number * high * unit:.1f}H1016" for number in range(1, len(panels)))
    labels = [
        element("text", str(number), x=12, y=f"{top + (number + 0.5) * high * unit + 4:.1f}", class_="e")
        for number in range(len(panels))
    ]
    return element(
        "svg",
        element("title", title, id=f"{name}-t"),
        element("desc", describe(density_map(masks)), id=f"{name}-d"),
        join(*pieces),
        element("path", d=ends, class_="ends"),
        *labels,
        viewBox=f"0 0 1018 {top + high * unit * len(panels) + 2:.0f}",
        role="img",
        aria_labelledby=f"{name}-t {name}-d",
        class_="blocks",
    )


def _number_class(share: float) -> str:
    """Of a cell's number, so that it is read on its cell's shade in light and in dark."""
    level = round(10 * share)
    return "m o" if level <= 5 else "m j" if level == 6 else "m i"


def _top(column: str, heads: int) -> str:
    return column.removeprefix("head ") if heads else column


def _upright(matrix: Matrix) -> NDArray[np.float32]:
    return matrix.kept.T if matrix.role == "ffn_in" else matrix.kept


def _sides(matrix: Matrix) -> tuple[int, int]:
    """Channels down and across of a matrix as it is drawn."""
    (rows, cols), (p, q) = matrix.kept.shape, matrix.cell
    return (cols * q, rows * p) if matrix.role == "ffn_in" else (rows * p, cols * q)


def _head_lines(role: str, left: float, top: float, width: float, height: float, size: float, layers: int) -> str:
    """Rows of query, key and value and columns of the attention output belong to heads."""
    if role in ("query", "key", "value"):
        within = range(1, round(height / size))
        places = [top + layer * height + number * size for layer in range(layers) for number in within]
        return "".join(f"M{left:.1f} {place:.1f}h{width:.1f}" for place in places)
    if role == "attention_output":
        places = [left + number * size for number in range(1, round(width / size))]
        return "".join(f"M{place:.1f} {top}v{height * layers:.1f}" for place in places)
    return ""
