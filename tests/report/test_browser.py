"""The report in a real browser: it opens without a complaint, sorts, filters, and fits a phone."""

from __future__ import annotations

import html
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from splora.report.build import write_report
from tests.report.made_up import pruning, training_run

BROWSER = next(
    (found for name in ("chromium", "chromium-browser", "google-chrome") if (found := shutil.which(name))), None
)
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(BROWSER is None, reason="no Chromium: the report is not opened in a browser"),
]


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("report")
    scores = {1: 70.5, 2: 9.25, 10: 81.0, 11: 70.25}
    for number, f1 in scores.items():
        training_run(folder / "runs" / str(number), number, metrics={"f1": f1}, reported={"f1": 71.0})
    for number in range(20, 40):
        training_run(folder / "runs" / str(number), number, metrics={}, reported={"f1": 71.0}, method="l0")
    pruning(folder / "runs" / "half", 0.5, 88.5, 62.5)
    write_report(folder / "runs", folder / "report.html")
    return folder / "report.html"


def _browse(page: Path, *options: str) -> subprocess.CompletedProcess[str]:
    assert BROWSER is not None
    profile = page.parent / "profile"
    fixed = ["--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars", f"--user-data-dir={profile}"]
    fixed += ["--enable-logging=stderr", "--log-level=0", "--virtual-time-budget=3000", "--disable-dev-shm-usage"]
    command = [BROWSER, *fixed, *options, page.as_uri()]
    return subprocess.run(command, capture_output=True, text=True, check=True, timeout=120)


def _after(report: Path, script: str) -> str:
    """The page after a script of the test ran in it, and no complaint on the console."""
    page = report.with_name("tried.html")
    text = report.read_text(encoding="utf-8")
    page.write_text(text.replace("</body>", f"<script>{script}</script></body>"), encoding="utf-8")
    done = _browse(page, "--dump-dom", "--window-size=390,800")
    assert "CONSOLE" not in done.stderr, [line for line in done.stderr.splitlines() if "CONSOLE" in line]
    return done.stdout


def _order(dom: str) -> list[str]:
    table = dom[dom.index('id="results"') :]
    rows = re.findall(r"<tr([^>]*)><th scope=\"row\"><a href=\"#run-\d+\">(\d+)</a>", table[: table.index("</table>")])
    return [label for attributes, label in rows if "hidden" not in attributes]


CLICK = "[...document.querySelectorAll('#results th button')].find(b => b.textContent == '{}').click();"


def _framed(report: Path, width: int, script: str = "") -> Path:
    """A page that shows the report in so many pixels of width; a window of the browser is never below 500.

    `script` runs when the report is there; it finds it as `page`.
    """
    around = report.with_name(f"framed_{width}.html")
    text = html.escape(report.read_text(encoding="utf-8"))
    around.write_text(
        '<!doctype html><meta charset="utf-8"><style>body { margin: 0 } iframe { border: 0 }</style>'
        f'<iframe width="{width}" height="1600" srcdoc="{text}"></iframe>'
        "<script>document.querySelector('iframe').onload = event => {"
        f"const page = event.target.contentDocument; {script} }};</script>",
        encoding="utf-8",
    )
    return around


@pytest.mark.parametrize("width", [1280, 390])
def test_at_either_width_it_opens_without_a_complaint_fits_and_sorts(report: Path, width: int) -> None:
    script = (
        CLICK.format("F1").replace("document.", "page.") + "const rows = [...page.querySelectorAll('#results th a')];"
        "document.title = [page.documentElement.scrollWidth, ...rows.map(row => row.textContent)].join(' ');"
    )
    done = _browse(_framed(report, width, script), "--dump-dom", "--window-size=1280,1600")
    assert "CONSOLE" not in done.stderr, [line for line in done.stderr.splitlines() if "CONSOLE" in line]
    found = re.search(r"<title>([\d ]+)</title>", done.stdout)
    assert found is not None
    taken, *order = found[1].split()
    assert int(taken) <= width
    assert order[:4] == ["2", "11", "1", "10"]


def test_numbers_sort_as_numbers_and_what_is_missing_comes_last(report: Path) -> None:
    assert _order(_after(report, ""))[:4] == ["1", "2", "10", "11"]
    up = _order(_after(report, CLICK.format("F1")))
    assert up[:4] == ["2", "11", "1", "10"]
    assert len(up) == 24
    down = _after(report, 2 * CLICK.format("F1"))
    assert _order(down)[:4] == ["10", "1", "11", "2"]
    assert 'aria-sort="descending"' in down


def test_texts_sort_and_rows_are_filtered(report: Path) -> None:
    assert _order(_after(report, CLICK.format("method")))[:2] == ["20", "21"]
    dom = _after(
        report,
        "const field = document.querySelector('input[data-table=results]'); field.value = 'move 70.2';"
        "field.dispatchEvent(new Event('input'));",
    )
    assert _order(dom) == ["11"]


def test_a_link_opens_the_run_that_it_leads_to(report: Path) -> None:
    dom = _after(report, "location.hash = '#run-2';")
    assert re.search(r'<details class="run" id="run-2" open=""|<details[^>]*id="run-2"[^>]*open', dom)


@pytest.mark.parametrize("width", [1280, 390])
def test_a_screenshot_shows_something(report: Path, width: int) -> None:
    from matplotlib.image import imread

    picture = report.with_name(f"{width}.png")
    _browse(_framed(report, width), "--window-size=1280,1600", f"--screenshot={picture}")
    pixels = imread(picture)[:, :width]
    assert pixels[..., :3].std() > 0.05
