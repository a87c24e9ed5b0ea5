"""Heat maps of what is left of each layer: by head and by matrix, and block by block with the heads' boundaries."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from splora.report.bitmap import data_uri
from splora.report.markup import Markup, element, join
from splora.report.masks import Masks, Matrix, head_densities

#: Short names of the matrices, over their columns.
SHORT = {
    "query": "Q",
    "key": "K",
    "value": "V",
    "attention_output": "O",
    "ffn_in": "FFN in",
    "ffn_out": "FFN out",
}
_MARGIN, _WIDTH = 22, 440


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
    names = (*(f"head {number}" for number in range(len(heads[0]))), "neurons")
    return HeatMap(shares, names, len(heads[0]))


def describe(found: HeatMap) -> str:
    """A heat map in a sentence, for those who do not see it."""
    layers = found.shares[:, found.heads :].mean(axis=1)
    low, high = int(layers.argmin()), int(layers.argmax())
    told = f"{len(layers)} layers; layer {low} keeps least ({layers[low]:.0%}), layer {high} most ({layers[high]:.0%})"
    if found.heads:
        gone = int((found.shares[:, : found.heads] == 0).sum())
        told += f"; {gone} of {found.shares[:, : found.heads].size} heads are gone entirely"
    return told + "."


def draw_map(found: HeatMap, name: str, title: str, with_numbers: bool) -> Markup:
    """A row per layer, a column per head and per matrix; the darker, the more is left."""
    layers, columns = found.shares.shape
    gap = 0.35 if found.heads else 0.0
    unit = (_WIDTH - _MARGIN) / (columns + gap)
    lefts = [_MARGIN + unit * (column + gap * (column >= found.heads)) for column in range(columns)]
    height = min(unit, 24.0)
    levels: dict[int, list[str]] = {}
    for layer, row in enumerate(found.shares):
        for left, share in zip(lefts, row, strict=True):
            cell = f"M{left:.1f} {16 + layer * height:.1f}h{unit - 0.8:.1f}v{height - 0.8:.1f}h-{unit - 0.8:.1f}z"
            levels.setdefault(round(10 * share), []).append(cell)
    numbers: list[Markup] = []
    if with_numbers:
        numbers = [
            element(
                "text",
                f"{100 * share:.0f}",
                x=f"{left + unit / 2 - 0.4:.1f}",
                y=f"{16 + layer * height + height / 2 + 3:.1f}",
                class_="m i" if share >= 0.55 else "m",
            )
            for layer, row in enumerate(found.shares)
            for left, share in zip(lefts, row, strict=True)
        ]
    tops = [
        element("text", _top(column, found.heads), x=f"{left + unit / 2:.1f}", y=11, class_="m")
        for left, column in zip(lefts, found.columns, strict=True)
    ]
    sides = [
        element("text", str(layer), x=_MARGIN - 5, y=f"{16 + layer * height + height / 2 + 3:.1f}", class_="e")
        for layer in range(layers)
    ]
    return element(
        "svg",
        element("title", title, id=f"{name}-t"),
        element("desc", describe(found), id=f"{name}-d"),
        *(element("path", d="".join(cells), class_=f"q q{level}") for level, cells in sorted(levels.items())),
        *numbers,
        *tops,
        *sides,
        viewBox=f"0 0 {_WIDTH} {16 + layers * height + 2:.0f}",
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
            pieces.append(element("path", d=lines, class_="heads"))
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
