"""From a folder of runs to the report: collect, choose charts, draw, write."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path

from markupsafe import Markup

from splora.files import write_text
from splora.json_values import one_line
from splora.report import png
from splora.report.charts import Chart
from splora.report.collect import collect
from splora.report.curve_charts import curve_groups
from splora.report.heatmap import HeatMap, density_map, describe, draw_blocks, draw_map, plan_map
from splora.report.looks import adapter_name
from splora.report.markup import element
from splora.report.masks import Masks, read_masks
from splora.report.page import Content, page
from splora.report.pruning_charts import pruning_charts
from splora.report.runs import Collection, Run, method_name
from splora.report.score_charts import Published, score_charts
from splora.report.speed_charts import speed_charts

#: Cells of all runs' masks together, up to which they are drawn block by block: about a megabyte of the file.
MOST_CELLS = 5_000_000
#: Heat maps up to which each cell says its number.
MOST_NUMBERED = 60


@dataclass(frozen=True)
class Written:
    """What was written: the page, its size in bytes, its runs, its pictures, and what could not be read."""

    page: Path
    size: int
    runs: int
    pictures: tuple[Path, ...]
    notices: tuple[str, ...]


def write_report(
    root: str | Path,
    output: str | Path,
    published: Sequence[Published] = (),
    pictures: str | Path | None = None,
    title: str = "",
) -> Written:
    """Write the report of all runs below `root` into the file `output`.

    Args:
        published: points of others, drawn behind the runs of the same task.
        pictures: folder for every chart as a PNG file; None: no such files.

    Raises:
        InputError: there are no runs, or a file cannot be written.
    """
    collection = collect(root)
    scores = [*speed_charts(collection.runs, collection.pruned), *score_charts(collection.runs, published)]
    prunings = pruning_charts(collection.pruned)
    curves = curve_groups(collection.runs)
    maps, collection, with_blocks = _maps(collection)
    content = Content(
        title=title or f"Pruning report: {Path(root).resolve().name}",
        made=datetime.now().astimezone(),
        collection=collection,
        scores=scores,
        prunings=prunings,
        curves=curves,
        masks={name: _drawn(found, len(maps) <= MOST_NUMBERED, with_blocks) for name, found in maps.items()},
        behind=any(series.faint for chart in scores for series in chart.series),
        without_blocks=not with_blocks,
    )
    # Names of folders need not be text.
    text = page(content).encode("utf-8", "replace").decode()
    write_text(output, text)
    saved: list[Path] = []
    if pictures is not None:
        charts: list[Chart] = [*scores, *prunings, *(chart for group in curves for chart in group.charts)]
        saved = [png.save_chart(chart, Path(pictures)) for chart in charts]
        saved += [png.save_map(found.map, found.name, found.title, Path(pictures)) for found in maps.values()]
    runs = len(collection.runs) + len(collection.pruned)
    return Written(Path(output), len(text.encode()), runs, tuple(saved), collection.notices)


@dataclass(frozen=True)
class _Map:
    name: str
    title: str
    map: HeatMap
    masks: Masks | None


def _maps(collection: Collection) -> tuple[dict[str, _Map], Collection, bool]:
    """Heat maps by the run's name, the collection with what could not be read, and whether blocks may be drawn."""
    maps: dict[str, _Map] = {}
    notices = list(collection.notices)
    for run in collection.runs:
        if not run.finished or run.method == "none":
            continue
        try:
            masks = read_masks(run.folder, run.blocks, run.data[0])
            if masks is not None:
                maps[run.name] = _Map(f"mask-{len(maps) + 1}", _title(run), density_map(masks), masks)
        except Exception as error:  # somebody may have written anything into those files
            told = str(error) if isinstance(error, ValueError) else f"{type(error).__name__}: {error}"
            notices.append(f"{run.folder}: its masks cannot be shown: {one_line(told)}.")
    for one in collection.pruned:
        if one.heads and one.heads[0] and len({len(kept) for kept in one.heads}) == 1:
            title = f"{one.label}: {method_name(one.method)}, {one.task}"
            maps[one.name] = _Map(f"mask-{len(maps) + 1}", title, plan_map(one.heads, one.neurons), None)
    cells = sum(matrix.kept.size for found in maps.values() if found.masks for matrix in found.masks.matrices)
    return maps, replace(collection, notices=tuple(notices)), cells <= MOST_CELLS


def _title(run: Run) -> str:
    density = f", {run.density:.1f} %" if run.density is not None else ""
    return f"{run.label}: {method_name(run.method)}, {adapter_name(run.adapter)}{density}"


def _drawn(found: _Map, with_numbers: bool, with_blocks: bool) -> Markup:
    blocks = None
    if with_blocks and found.masks is not None:
        picture = draw_blocks(found.masks, f"{found.name}-b", f"{found.title}, block by block")
        if picture is not None:
            # Kept out of the page's layout until it is opened: many large pictures would make it slow.
            caption = "Block by block; red lines part the heads." if found.masks.head_size else "Block by block."
            blocks = element("details", element("summary", caption), element("div", picture, class_="wide"))
    drawing = draw_map(found.map, found.name, found.title, with_numbers)
    caption = element("figcaption", found.title, element("small", describe(found.map)))
    return element("figure", caption, drawing, blocks)
