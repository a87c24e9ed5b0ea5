"""The report is one file that needs nothing else, holds every run, and says what it could not read."""

from __future__ import annotations

import re
import struct
from collections.abc import Iterator
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from splora.report.build import write_report
from splora.report.charts import Axis, Scale, scale_of, tick_label
from splora.report.collect import collect
from splora.report.curve_charts import TOGETHER, curve_groups
from splora.report.looks import DARK, LIGHT
from splora.report.markup import element
from splora.report.page import told
from splora.report.pruning_charts import pruning_charts
from splora.report.score_charts import Published, score_charts
from splora.report.svg import path
from splora.scripts.cli import main as splora
from splora.scripts.report import published_points
from tests.report.made_up import pruning, spec_of, training_run, write

_EMPTY = {"meta", "input", "br", "path", "use", "rect", "image"}


class Reader(HTMLParser):
    """Checks that elements nest; collects elements with their attributes, and texts."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.found: list[tuple[str, dict[str, str | None]]] = []
        self.texts: list[str] = []
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        assert len({name for name, _ in attrs}) == len(attrs)
        self.found.append((tag, dict(attrs)))
        self.open.append(tag)
        if tag in ("meta", "input", "br"):
            self.open.pop()

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        assert tag in _EMPTY
        self.found.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.texts.append(data)

    def all(self, tag: str) -> Iterator[dict[str, str | None]]:
        return (attributes for name, attributes in self.found if name == tag)


@pytest.fixture
def runs(tmp_path: Path) -> Path:
    """Runs of every kind: two methods with and without adapter, failed, broken, and prunings."""
    folder = tmp_path / "runs"
    training_run(folder / "SQuAD" / "1", 1, method="none", adapter="none", metrics={"f1": 75.0}, reported={})
    for number, (adapter, density, f1) in enumerate(
        [("splopa", 50.0, 70.0), ("splopa", 30.0, 60.0), ("none", 50.0, 72.0)]
    ):
        changes = {"adapter": adapter, "remaining_weights_percent": density, "metrics": {"f1": f1}}
        changes |= {"learned_weights_percent": 3.0 if adapter == "splopa" else 150.0}
        training_run(folder / "SQuAD" / str(number + 2), number + 2, **changes)
    write(folder / "SQuAD" / "8" / "spec.json", spec_of(8, model="<script>alert(1)</script> & \"quoted\" 'title'"))
    write(folder / "SQuAD" / "8" / "state.json", {"state": "failed", "reason": "no </style> memory", "log": "8.log"})
    training_run(folder / "SQuAD" / "9", 9)
    (folder / "SQuAD" / "9" / "result.json").write_text("{", encoding="utf-8")
    pruning(folder / "half", 0.5, 88.5, 62.5)
    pruning(folder / "third", 0.3, 84.0, 45.0)
    pruning(folder / "worse", 0.5, 80.0, 70.0, method="stat")
    return folder


@pytest.fixture
def report(runs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> str:
    output = tmp_path / "report.html"
    splora(["report", str(runs), "--output", str(output), "--title", "A sweep"])
    printed = capsys.readouterr()
    assert printed.out.startswith(f"{output}: 9 runs, ")
    assert printed.err.count("\n") == 1
    assert printed.err.startswith(f"warning: {runs / 'SQuAD' / '9' / 'result.json'}: is not JSON")
    return output.read_text(encoding="utf-8")


def test_the_page_is_whole_and_needs_nothing_else(report: str) -> None:
    page = Reader(report)
    assert report.startswith("<!doctype html>")
    assert "://" not in report
    assert not [tag for tag in ("link", "iframe", "object", "embed") if any(page.all(tag))]
    addresses = [
        value for tag, attributes in page.found for name, value in attributes.items() if name in ("href", "src")
    ]
    assert addresses
    assert all(address is not None and address.startswith(("#", "data:image/png;base64,")) for address in addresses)
    assert any((meta.get("content") or "").startswith("default-src 'none'") for meta in page.all("meta"))
    assert "prefers-color-scheme:dark" in report
    assert len(list(page.all("script"))) == 1


def test_names_are_unique_and_links_lead_somewhere(report: str) -> None:
    page = Reader(report)
    names = [name for _, attributes in page.found if (name := attributes.get("id")) is not None]
    assert len(names) == len(set(names))
    links = [href for link in page.all("a") if (href := link["href"]) is not None]
    assert {link.removeprefix("#") for link in links} <= set(names)
    shapes = {href for use in page.all("use") if (href := use["href"]) is not None}
    assert {shape.removeprefix("#") for shape in shapes} <= set(names)


def test_every_drawing_has_a_text_alternative(report: str) -> None:
    page = Reader(report)
    drawings = [svg for svg in page.all("svg") if svg.get("aria-hidden") != "true"]
    assert len(drawings) > 6
    for svg in drawings:
        assert svg["role"] == "img"
        title, description = (svg["aria-labelledby"] or "").split()
        assert re.search(rf'<title id="{title}">[^<]+</title><desc id="{description}">[^<]+</desc>', report)


def test_every_run_is_told_with_its_command_and_its_state(report: str, runs: Path) -> None:
    texts = "\n".join(Reader(report).texts)
    for label in ("1", "2", "3", "4", "8", "9", "half mac=0.5", "third mac=0.3"):
        assert re.search(rf">{label}</a></th>", report)
    for number in (1, 2, 3, 4, 8, 9):
        assert f"--exp-id {number} --output-dir {runs / 'SQuAD' / str(number)}" in texts
    assert f"--output {runs / 'half'}" in texts
    assert "failed: no </style> memory" in texts
    assert "8.log" in texts
    assert "✗ unreadable" in texts
    assert "python 3.11.7, splora 0.1.0, torch 2.13.0" in texts
    assert "result.json: is not JSON" in texts
    assert report.count("<script>") == 1
    assert "&lt;script&gt;alert(1)" in report


def test_measured_below_reported_is_coloured_and_said(report: str) -> None:
    assert '<td class="num much">70.00 <small>−1.50</small></td>' in report
    assert '<td class="num">72.00</td>' in report
    assert "F1, reported" in report


def test_published_points_stand_behind(runs: Path) -> None:
    collection = collect(runs)
    published = [point for point in published_points() if point.task == "squad"]
    assert len(published) > 30
    (density, learned) = score_charts(collection.runs, published)
    faint = [series for series in density.series if series.faint]
    assert sum(len(series.points) for series in faint) == len([point for point in published if "f1" in point.metrics])
    assert not any(series.faint for series in learned.series)
    assert learned.x.logarithmic
    kinds = {(series.label, series.look, series.filled, series.dashed) for series in density.series if not series.faint}
    assert kinds == {
        ("dense, plain", 0, False, True),
        ("movement, SPLoPA", 2, True, False),
        ("movement, plain", 2, False, True),
    }
    # Another data set under the same task's name is not compared with what was published.
    embedded = Published("squad", "x", "topK", "none", 50.0, {"f1": 80.0}, 32)
    moved = [run for run in collection.runs if run.label == "2"]
    (alone, _) = score_charts([replace(moved[0], data=("embedded", "embedded", "embedded"))], [embedded])
    assert not any(series.faint for series in alone.series)


def test_the_front_of_the_best_of_prunings(runs: Path) -> None:
    macs, latency = pruning_charts(collect(runs).pruned)
    assert macs.series[0].line == ((30.0, 84.0), (50.0, 88.5))
    assert latency.series[0].line == ((45.0, 84.0), (62.5, 88.5))
    assert {series.label for series in macs.series} == {"front of the best", "Fisher", "STAT", "dense"}
    assert len({series.look for series in macs.series if series.points}) == 3


def test_long_logs_are_thinned_and_not_cut(tmp_path: Path) -> None:
    training_run(tmp_path / "1", 1, points=20_000)
    log = (tmp_path / "1" / "metrics.csv").read_text(encoding="utf-8").splitlines()
    log[7_001] = "70009,0.9,0.0,123.0,0.9,"
    (tmp_path / "1" / "metrics.csv").write_text("\n".join(log) + "\n", encoding="utf-8")
    (group,) = curve_groups(collect(tmp_path).runs)
    loss = group.charts[0].series[0]
    assert len(loss.line) <= 400
    assert (loss.line[0][0], loss.line[-1][0]) == (9, 199_999)
    assert (70_009.0, 123.0) in loss.line
    assert group.remarks == ("λ: 0 throughout.",)
    written = write_report(tmp_path, tmp_path / "report.html")
    assert written.size < 100_000


def test_many_runs_are_drawn_a_few_together(tmp_path: Path) -> None:
    for number in range(20):
        training_run(tmp_path / str(number), number, points=3)
    groups = curve_groups(collect(tmp_path).runs)
    assert [len(group.runs) for group in groups] == [TOGETHER, TOGETHER, 4]
    for group in groups:
        for chart in group.charts:
            assert len({series.look for series in chart.series}) == len(chart.series)


def test_every_chart_is_also_a_picture(runs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    splora(["report", str(runs), "--output", str(tmp_path / "r.html"), "--png", str(tmp_path / "png")])
    page = Reader((tmp_path / "r.html").read_text(encoding="utf-8"))
    drawn = {(svg["aria-labelledby"] or "").split("-t ")[0] for svg in page.all("svg") if svg.get("role") == "img"}
    assert {picture.stem for picture in (tmp_path / "png").iterdir()} == drawn
    for picture in (tmp_path / "png").iterdir():
        content = picture.read_bytes()
        assert content.startswith(b"\x89PNG")
        assert min(struct.unpack(">II", content[16:24])) > 100
    assert f"{len(drawn)} pictures" in capsys.readouterr().out


def test_a_page_that_cannot_be_written_is_one_sentence(runs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        splora(["report", str(runs), "--output", str(runs / "half" / "plan.json" / "report.html")])
    assert ended.value.code == 2
    assert "cannot be written" in capsys.readouterr().err


@given(st.lists(st.floats(-1e12, 1e12), min_size=1, max_size=20), st.booleans())
def test_scales_hold_their_values(values: list[float], logarithmic: bool) -> None:
    shown = [abs(value) + 1e-6 for value in values] if logarithmic else values
    scale: Scale = scale_of(shown, Axis("x", logarithmic))
    assert all(-1e-6 <= scale.position(value) <= 1 + 1e-6 for value in shown)
    assert list(scale.ticks) == sorted(set(scale.ticks))
    assert 1 <= len(scale.ticks) <= 60
    assert all(len(tick_label(tick)) <= 14 for tick in scale.ticks)


def test_a_percentage_ends_at_0_and_100() -> None:
    scale = scale_of([1.0, 100.0], Axis("remaining, %"))
    assert (scale.low, scale.high, scale.ticks) == (0.0, 100.0, (0.0, 20.0, 40.0, 60.0, 80.0, 100.0))


def test_paths_are_short_and_lose_no_corner() -> None:
    assert path([(1, 2), (3, 2), (5, 2), (7, 0.5), (8, 3.2)]) == "M1 2l4 0 2-1.5 1 2.7"


@given(st.lists(st.tuples(st.integers(0, 4400), st.integers(0, 2900)), min_size=2, max_size=40))
def test_paths_lead_where_the_points_are(tenths: list[tuple[int, int]]) -> None:
    places = [(x / 10, y / 10) for x, y in tenths]
    start, _, moves = path(places).partition("l")
    numbers = [float(word) for word in re.findall(r"-?(?:\d+\.?\d*|\.\d+)", start + " " + moves)]
    x, y = numbers[:2]
    reached = [(x, y)]
    for across, down in zip(numbers[2::2], numbers[3::2], strict=True):
        x, y = x + across, y + down
        reached.append((x, y))
    assert reached[-1] == pytest.approx(places[-1], abs=1e-6)
    corners = [places[i] for i in range(1, len(places) - 1) if not places[i - 1][1] == places[i][1] == places[i + 1][1]]
    assert len(reached) == len(corners) + 2
    assert [round(v, 1) for p in reached[1:-1] for v in p] == [v for p in corners for v in p]


def test_lists_of_runs_are_told_as_ranges() -> None:
    assert told(["1", "2", "3", "7", "x", "9", "10"]) == "1–3, 7, x, 9–10"
    assert told([f"run {n}" for n in range(20)]) == "run 0, run 1 … run 19 (20 in all)"


def test_markup_is_escaped_once() -> None:
    assert element("td", "a < b & c", title='"x"') == '<td title="&#34;x&#34;">a &lt; b &amp; c</td>'
    assert element("b", element("i", "<")) == "<b><i>&lt;</i></b>"


@pytest.mark.parametrize(("colours", "background"), [(LIGHT, "#f7f9fb"), (DARK, "#171c22")])
def test_colours_stand_out_from_the_background(colours: tuple[str, ...], background: str) -> None:
    """WCAG 2.2, 1.4.11: graphics have a contrast of 3 at least."""

    def luminance(colour: str) -> float:
        parts = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
        linear = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
        return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]

    for colour in colours:
        one, other = sorted((luminance(colour), luminance(background)))
        assert (other + 0.05) / (one + 0.05) >= 3, colour
