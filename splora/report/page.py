"""The report as one HTML page that needs nothing else: what it says; how it looks is in `templates/`."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

from markupsafe import Markup

from splora import __version__
from splora.report import svg, tables
from splora.report.charts import Chart
from splora.report.curve_charts import CurveGroup
from splora.report.looks import DARK, LIGHT, adapter_name, grouped
from splora.report.runs import STATES, Collection, Environment, Pruned, Run, method_name
from splora.report.seeds import HEADINGS, seed_rows

#: Groups of curves and of masks that are open when the page is.
OPEN = 3
Rows = list[tuple[str, ...]]


@dataclass(frozen=True)
class Content:
    """What the page shows.

    Attributes:
        masks: drawings of each run's masks, by the run's name.
        behind: whether published points stand behind the runs.
        without_blocks: whether drawings block by block were left out.
    """

    title: str
    made: datetime
    collection: Collection
    scores: Sequence[Chart]
    prunings: Sequence[Chart]
    curves: Sequence[CurveGroup]
    masks: Mapping[str, Markup]
    behind: bool = False
    without_blocks: bool = False


def page(content: Content) -> str:
    """The whole file."""
    import jinja2

    templates = jinja2.Environment(
        loader=jinja2.PackageLoader("splora.report"),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
        undefined=jinja2.StrictUndefined,
    )
    collection = content.collection
    everything: list[Run | Pruned] = [*collection.runs, *collection.pruned]
    anchors = {one.name: f"run-{number}" for number, one in enumerate(everything, 1)}
    masks = _mask_groups(everything, content.masks)
    sections = (
        ("what", "What was run", True),
        ("table", "Results", collection.runs),
        ("scores", "Scores against weights", content.scores),
        ("pruned", "Pruned after training", collection.pruned),
        ("curves", "Curves", content.curves),
        ("masks", "What is left of each layer", masks),
        ("runs", "Each run, and how to repeat it", True),
    )
    return templates.get_template("page.html.jinja").render(
        {name: getattr(content, name) for name in Content.__dataclass_fields__},
        svg=svg,
        light=LIGHT,
        dark=DARK,
        version=__version__,
        sections=[(name, heading) for name, heading, shown in sections if shown],
        tiles=_tiles(collection, everything),
        data_rows=_data_rows(collection),
        machine_rows=_machine_rows(everything),
        short=tables.SHORT,
        much=f"{tables.MUCH:g}",
        reported=any(run.reported for run in collection.runs),
        run_columns=tables.run_columns(collection.runs, anchors),
        pruned_columns=tables.pruned_columns(anchors),
        seed_headings=HEADINGS,
        seeds=seed_rows(collection.runs),
        mask_groups=masks,
        open=OPEN,
        entries=[(anchors[one.name], one.label, *_details(one), one.command, one.derived) for one in everything],
    )


def _tiles(collection: Collection, everything: Sequence[Run | Pruned]) -> list[tuple[str, str]]:
    counts = {state: sum(run.state == state for run in collection.runs) for state in STATES}
    tiles = [(str(count), state) for state, count in reversed(counts.items()) if count]
    if collection.pruned:
        tiles.append((str(len(collection.pruned)), "pruned after training"))
    seconds = sum(one.seconds or 0.0 for one in everything)
    return [*tiles, (f"{seconds / 3600:.1f} h" if seconds >= 3600 else f"{seconds / 60:.0f} min", "of computing")]


def _machine_rows(everything: Sequence[Run | Pruned]) -> Rows:
    environments = grouped((one for one in everything if one.environment.versions), lambda one: one.environment)
    return [
        (
            told(one.label for one in some),
            ", ".join(f"{name} {version}" for name, version in found.versions),
            found.precision,
            _device(found),
            found.threads,
            _seeds(some),
        )
        for found, some in environments.items()
    ]


def _data_rows(collection: Collection) -> Rows:
    data = grouped(collection.runs, lambda run: (run.task, run.data))
    rows: Rows = [
        (told(run.label for run in some), task, start, train or "the hub's", predict or "the hub's")
        for (task, (start, train, predict)), some in data.items()
    ]
    after = grouped(collection.pruned, lambda one: (one.task, one.model))
    return rows + [(told(one.label for one in some), task, model, "", "") for (task, model), some in after.items()]


def _device(found: Environment) -> str:
    return f"{found.devices} × {found.device}{f', {found.host}' if found.host else ''}" if found.device else ""


def _seeds(some: Iterable[Run | Pruned]) -> str:
    return ", ".join(sorted({one.seed for one in some} - {""}, key=lambda seed: (len(seed), seed)))


def told(labels: Iterable[str], most: int = 12) -> str:
    """A list of labels, numbers that follow each other as a range; a long one by its ends."""
    parts: list[tuple[str, str]] = []
    for label in dict.fromkeys(labels):
        last = parts[-1][1] if parts else ""
        if label.isdecimal() and last.isdecimal() and int(label) == int(last) + 1:
            parts[-1] = (parts[-1][0], label)
        else:
            parts.append((label, label))
    words = [first if first == last else f"{first}–{last}" for first, last in parts]
    return ", ".join(words) if len(words) <= most else f"{words[0]}, {words[1]} … {words[-1]} ({len(words)} in all)"


def _mask_groups(everything: Sequence[Run | Pruned], masks: Mapping[str, Markup]) -> list[tuple[str, list[Markup]]]:
    shown = [one for one in everything if one.name in masks]
    groups = grouped(shown, lambda one: (one.sheet if isinstance(one, Run) else one.task, one.method))
    return [
        (
            f"{method_name(method)} ({where}): {told((one.label for one in some), 4)}",
            [masks[one.name] for one in some],
        )
        for (where, method), some in groups.items()
    ]


def _details(one: Run | Pruned) -> tuple[str, list[tuple[str, str]]]:
    """What a run is, and what is known of it by name; what is not known is empty."""
    folder, ran_on = str(one.folder), _ran_on(one.environment)
    if isinstance(one, Pruned):
        stages = ", ".join(f"{name} {value:.2f}" for name, value in one.stages.items())
        facts = [("folder", folder), ("stages", stages), ("seed", one.seed), ("latency", one.latency_of)]
        return f"{method_name(one.method)} of {one.model}, {one.task}", [*facts, ("ran on", ran_on)]
    kind = ", ".join(part for part in (method_name(one.method), adapter_name(one.adapter), one.task) if part)
    return one.title or kind, [
        ("state", f"{one.state}{f': {one.reason}' if one.reason else ''}"),
        ("last sign of life", one.heartbeat or ""),
        ("time left", "" if one.seconds_left is None else f"{one.seconds_left / 60:.0f} min"),
        ("log", one.log_file or ""),
        ("folder", folder),
        ("seed", one.seed),
        ("ran on", ran_on),
        ("settings other than the default", " ".join(f"{name}={value}" for name, value in one.settings.items())),
    ]


def _ran_on(found: Environment) -> str:
    parts = [_device(found), f"{found.threads} threads" if found.threads else "", found.precision]
    return ", ".join(part for part in (*parts, *(f"{name} {version}" for name, version in found.versions)) if part)
