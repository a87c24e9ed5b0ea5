"""The main picture: all that serves, trained or not, by score and measured latency; and where else it is told."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

import pytest

from splora.hparams.results import record
from splora.launch.status import print_status
from splora.report.build import write_report
from splora.report.collect import collect
from splora.report.speed_charts import speed_charts
from splora.training.specification import RunSpecification
from tests.report.made_up import pruning, training_run

SERVED: dict[str, Any] = {
    "macs_kept": 0.5,
    "parameters": {"dense": 400, "kept": 300},
    "latency_ms": {"dense": 90.0, "pruned": 45.0, "batch_size": 32, "tokens": 128, "threads": 2},
    "model_bytes": 1234,
}


def test_trained_and_untrained_share_one_chart(tmp_path: Path) -> None:
    training_run(tmp_path / "runs" / "1", 1, **SERVED)
    training_run(tmp_path / "runs" / "2", 2)  # of before: it tells no latency
    pruning(tmp_path / "half", 0.5, 68.0, 55.0, task="squad", metric="f1", method="stat")
    pruning(tmp_path / "healed", 0.5, 71.0, 55.0, task="squad", metric="f1", method="heal")
    pruning(tmp_path / "other", 0.5, 88.0, 55.0)
    collection = collect(tmp_path)
    (chart,) = speed_charts(collection.runs, collection.pruned)
    assert chart.title == "F1 against measured latency: squad"
    points = {series.label: (series.points, series.filled) for series in chart.series if series.points}
    assert points == {
        "movement, SPLoPA, trained": (((50.0, 70.125),), True),
        "STAT, not trained": (((pytest.approx(55.0), 68.0),), False),
        "healed": (((pytest.approx(55.0), 71.0),), True),
    }
    written = write_report(tmp_path, tmp_path / "report.html")
    page = written.page.read_text(encoding="utf-8")
    # The main picture stands before the others.
    assert page.index("F1 against measured latency: squad") < page.index("F1 against remaining weights")
    assert "times as fast" in page


def test_nothing_that_is_faster_makes_no_chart(tmp_path: Path) -> None:
    same = {**SERVED, "latency_ms": {**SERVED["latency_ms"], "pruned": 90.5}}
    for number in (1, 2):
        training_run(tmp_path / str(number), number, **same)
    assert not speed_charts(collect(tmp_path).runs, ())


def test_results_and_status_tell_what_is_served(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = training_run(tmp_path / "SQuAD" / "1", 1, **SERVED)
    spec = RunSpecification(exp_id=1, sheet="SQuAD")
    record(spec, {**SERVED, "metrics": {"f1": 70.0}}, folder, tmp_path)
    with (tmp_path / "results.csv").open(encoding="utf-8", newline="") as file:
        (row,) = csv.DictReader(file)
    wanted = {"macs_kept": "0.5", "parameters_kept": "300", "latency_ms": "45.0", "dense_latency_ms": "90.0"}
    assert {name: row[name] for name in wanted} == wanted
    assert row["model_bytes"] == "1234"
    print_status(tmp_path)
    assert "50 % MACs, 75 % parameters, 2.00 × as fast" in capsys.readouterr().out
