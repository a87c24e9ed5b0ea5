"""The report as one HTML page that needs nothing else: no network, no other file."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

from splora import __version__
from splora.report import svg, tables
from splora.report.charts import Chart
from splora.report.curve_charts import CurveGroup
from splora.report.looks import adapter_name, grouped
from splora.report.markup import Markup, element, join
from splora.report.runs import STATES, Collection, Environment, Pruned, Run, method_name
from splora.report.seeds import HEADINGS as SEED_HEADINGS
from splora.report.seeds import seed_rows
from splora.report.style import SCRIPT, STYLE

#: Groups of curves and of masks that are open when the page is.
OPEN = 3
#: The page may load nothing, whatever a run's name says.
_POLICY = "default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'; img-src data:"


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
    anchors = _anchors(content.collection)
    sections = [
        ("what", "What was run", _what(content.collection)),
        ("table", "Results", _results(content.collection, anchors)),
        ("scores", "Scores against weights", _scores(content)),
        ("pruned", "Pruned after training", _pruned(content, anchors)),
        ("curves", "Curves", _curves(content.curves)),
        ("masks", "What is left of each layer", _masks(content)),
        ("runs", "Each run, and how to repeat it", _details(content.collection, anchors)),
    ]
    shown = [(name, heading, body) for name, heading, body in sections if body]
    head = element(
        "head",
        element("meta", charset="utf-8"),
        element("meta", name="viewport", content="width=device-width, initial-scale=1"),
        element("meta", http_equiv="Content-Security-Policy", content=_POLICY),
        element("meta", name="color-scheme", content="light dark"),
        element("title", content.title),
        element("style", Markup(STYLE)),
    )
    body = element(
        "body",
        svg.symbols(),
        element("header", element("h1", content.title), _summary(content)),
        element("nav", *(element("a", heading, href=f"#{name}") for name, heading, _ in shown), aria_label="Sections"),
        element(
            "main",
            *(element("section", element("h2", heading), body, id=name) for name, heading, body in shown),
        ),
        element("script", Markup(SCRIPT)),
    )
    return "<!doctype html>\n" + element("html", head, "\n", body, lang="en") + "\n"


def _anchors(collection: Collection) -> dict[str, str]:
    names = [*(run.name for run in collection.runs), *(one.name for one in collection.pruned)]
    return {name: f"run-{number}" for number, name in enumerate(names, 1)}


def _summary(content: Content) -> Markup:
    collection = content.collection
    counts = {state: sum(run.state == state for run in collection.runs) for state in STATES}
    tiles = [(f"{count}", state) for state, count in reversed(counts.items()) if count]
    if collection.pruned:
        tiles.append((str(len(collection.pruned)), "pruned after training"))
    everything: list[Run | Pruned] = [*collection.runs, *collection.pruned]
    seconds = sum(one.seconds or 0.0 for one in everything)
    tiles.append((f"{seconds / 3600:.1f} h" if seconds >= 3600 else f"{seconds / 60:.0f} min", "of computing"))
    notices = element("ul", *(element("li", notice) for notice in collection.notices), class_="notices")
    return join(
        element(
            "p",
            f"{collection.root}, read {content.made:%Y-%m-%d %H:%M} by splora {__version__}.",
            class_="dim",
        ),
        element("ul", *(_tile(count, label) for count, label in tiles), class_="tiles"),
        notices if collection.notices else None,
    )


def _tile(count: str, label: str) -> Markup:
    return element("li", element("b", count), label, class_="alarm" if label in ("failed", "unreadable") else None)


def _what(collection: Collection) -> Markup:
    everything: list[Run | Pruned] = [*collection.runs, *collection.pruned]
    environments = grouped((one for one in everything if one.environment.versions), lambda one: one.environment)
    rows = [
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
    data = grouped(collection.runs, lambda run: (run.task, run.data))
    data_rows = [
        (told(run.label for run in some), task, start, train or "the hub's", predict or "the hub's")
        for (task, (start, train, predict)), some in data.items()
    ]
    after = grouped(collection.pruned, lambda one: (one.task, one.model))
    data_rows += [(told(one.label for one in some), task, model, "", "") for (task, model), some in after.items()]
    return join(
        tables.plain(("runs", "task", "starts from", "training data", "evaluation data"), data_rows),
        tables.plain(("runs", "versions", "precision", "devices", "threads", "seeds"), rows) if rows else None,
    )


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


def _results(collection: Collection, anchors: dict[str, str]) -> Markup | None:
    if not collection.runs:
        return None
    reported = any(run.reported for run in collection.runs)
    return join(
        element("p", "A heading sorts by its column. ", _shortfall() if reported else None),
        _filter("results", len(collection.runs)),
        tables.draw(collection.runs, tables.run_columns(collection.runs, anchors), "results"),
        _of_seeds(collection.runs),
    )


def _of_seeds(runs: Sequence[Run]) -> Markup | None:
    rows = seed_rows(runs)
    reading = "Several seeds of one row: mean ± standard deviation over its finished runs."
    return join(element("p", reading), tables.plain(SEED_HEADINGS, rows)) if rows else None


def _shortfall() -> Markup:
    return Markup(
        "A measured score below the reported one is set in colour and says by how much: paler below "
        f"{tables.MUCH:g} point, stronger from there on."
    )


def _filter(table: str, rows: int) -> Markup | None:
    if rows < 20:
        return None
    return element(
        "p", element("input", type="search", placeholder="filter rows", aria_label="Filter rows", data_table=table)
    )


def _scores(content: Content) -> Markup | None:
    if not content.scores:
        return None
    reading = "Filled markers and solid lines: with an adapter; outlined and dashed: without. A line joins the runs of "
    reading += "its kind that no other one beats with fewer weights."
    if content.behind:
        reading += " The pale points behind are the published ones of the workbook."
    return join(element("p", reading), _gallery(content.scores))


def _pruned(content: Content, anchors: dict[str, str]) -> Markup | None:
    pruned = content.collection.pruned
    if not pruned:
        return None
    return join(
        element("p", "The line is the front of the best: what no other pruning beats at as little cost."),
        _gallery(content.prunings) if content.prunings else None,
        _filter("prunings", len(pruned)),
        tables.draw(pruned, tables.pruned_columns(anchors), "prunings"),
    )


def _curves(groups: Sequence[CurveGroup]) -> Markup | None:
    if not groups:
        return None
    blocks = (
        element(
            "details",
            element("summary", element("b", group.title)),
            element("p", " ".join(group.remarks), class_="dim") if group.remarks else None,
            _gallery(group.charts, "charts close") if group.charts else None,
            open=number < OPEN,
        )
        for number, group in enumerate(groups)
    )
    return join(
        element(
            "p", "Long logs are thinned: every stretch keeps its smallest and its largest value, and both ends stay."
        ),
        *blocks,
    )


def _masks(content: Content) -> Markup | None:
    everything: list[Run | Pruned] = [*content.collection.runs, *content.collection.pruned]
    shown = [one for one in everything if one.name in content.masks]
    if not shown:
        return None
    reading = (
        "Share of the weights that stay, a row for each layer: of each head (its rows of Q, K and V and its columns "
    )
    reading += "of O), then of each matrix (in and out: those of the feed-forward part)."
    if content.without_blocks:
        reading += " Pictures block by block are left out of a report of so many; that of one run's folder has them."
    groups = grouped(shown, lambda one: (one.sheet if isinstance(one, Run) else one.task, one.method))
    return join(
        element("p", reading),
        element("ul", *(_step(level) for level in range(0, 11, 2)), class_="legend", aria_label="Shades"),
        *(
            element(
                "details",
                element(
                    "summary", element("b", f"{method_name(method)} ({where}): {told((one.label for one in some), 4)}")
                ),
                element("div", *(content.masks[one.name] for one in some), class_="charts"),
                open=number < OPEN,
            )
            for number, ((where, method), some) in enumerate(groups.items())
        ),
    )


def _step(level: int) -> Markup:
    frame = element("rect", x=0.02, y=0.02, width=1.96, height=0.96, class_="frame")
    cell = element("path", d="M.02 .5h1.96", class_=f"k k{level}")
    return element("li", element("svg", frame, cell, viewBox="0 0 2 1", aria_hidden="true"), f"{10 * level} %")


def _details(collection: Collection, anchors: dict[str, str]) -> Markup:
    return join(
        *(_run(run, anchors[run.name]) for run in collection.runs),
        *(_pruning(one, anchors[one.name]) for one in collection.pruned),
    )


def _run(run: Run, anchor: str) -> Markup:
    lines = [("state", f"{run.state}{f': {run.reason}' if run.reason else ''}")]
    if run.heartbeat:
        lines.append(("last sign of life", run.heartbeat))
    if run.seconds_left is not None:
        lines.append(("time left", f"{run.seconds_left / 60:.0f} min"))
    if run.log_file:
        lines.append(("log", run.log_file))
    lines.append(("folder", str(run.folder)))
    kind = ", ".join(part for part in (method_name(run.method), adapter_name(run.adapter), run.task) if part)
    settings = " ".join(f"{name}={value}" for name, value in run.settings.items())
    lines += [("seed", run.seed), ("ran on", _ran_on(run.environment))]
    return element(
        "details",
        element("summary", element("b", run.label), f" {run.title or kind}"),
        _facts([*lines, ("settings other than the default", settings)]),
        _command(run.command, run.derived),
        class_="run",
        id=anchor,
    )


def _pruning(one: Pruned, anchor: str) -> Markup:
    stages = ", ".join(f"{name} {value:.2f}" for name, value in one.stages.items())
    lines = [("folder", str(one.folder)), ("stages", stages), ("seed", one.seed), ("latency", one.latency_of)]
    lines.append(("ran on", _ran_on(one.environment)))
    return element(
        "details",
        element("summary", element("b", one.label), f" {method_name(one.method)} of {one.model}, {one.task}"),
        _facts(lines),
        _command(one.command, one.derived),
        class_="run",
        id=anchor,
    )


def _ran_on(found: Environment) -> str:
    parts = [_device(found), f"{found.threads} threads" if found.threads else "", found.precision]
    return ", ".join(part for part in (*parts, *(f"{name} {version}" for name, version in found.versions)) if part)


def _facts(lines: Sequence[tuple[str, str]]) -> Markup:
    return element(
        "p", *(join(element("span", f"{name}: ", class_="dim"), text, Markup("<br>")) for name, text in lines if text)
    )


def _command(command: str, derived: bool) -> Markup | None:
    if not command:
        return None
    told = "To repeat it, as its saved settings say:" if derived else "To repeat it:"
    return join(element("span", told, class_="dim"), element("pre", command))


def _gallery(charts: Sequence[Chart], class_: str = "charts") -> Markup:
    return element("div", *(_figure(chart) for chart in charts), class_=class_)


def _figure(chart: Chart) -> Markup:
    return element("figure", element("figcaption", chart.caption or chart.title), svg.draw(chart), svg.legend(chart))
