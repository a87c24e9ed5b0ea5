"""Several seeds of one row: a folder each, one base for all, and their mean and deviation in every table."""

from __future__ import annotations

import csv
import statistics
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from openpyxl import load_workbook

from splora.errors import InputError
from splora.hparams.results import record
from splora.hparams.seeds import parse_seeds
from splora.launch import run_row
from splora.report.runs import Run
from splora.report.seeds import seed_rows
from splora.scripts.run_from_sheet import main
from splora.training.specification import RunSpecification


@given(st.lists(st.integers(0, 50), min_size=1, max_size=8))
def test_every_way_to_write_seeds_names_each_once(seeds: list[int]) -> None:
    wanted = tuple(dict.fromkeys(seeds))
    assert parse_seeds(",".join(map(str, seeds))) == wanted
    assert parse_seeds(" , ".join(f"{seed}-{seed}" for seed in seeds)) == wanted
    assert parse_seeds(f"0-{max(seeds)}") == tuple(range(max(seeds) + 1))


@pytest.mark.parametrize("text", ["", "a", "5-1", "1-", "-1", "1,,2", "1.5", "4294967296", "0-99999", "9" * 5000])
def test_what_is_no_list_of_seeds_is_one_sentence(text: str) -> None:
    with pytest.raises(InputError, match="--seeds: ") as caught:
        parse_seeds(text)
    assert len(caught.value.problems) == 1


@pytest.fixture
def started(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> list[Any]:
    """What would run: name, seed, folder, start, and the command that repeats it."""
    runs: list[Any] = []
    monkeypatch.chdir(tmp_path)

    def note(spec: RunSpecification, folder: Path, force: bool, trainer: Any, command: str) -> None:
        runs.append((spec.exp_id, spec.seed, str(folder), spec.model_name_or_path, command))

    monkeypatch.setattr(run_row, "run", note)
    return runs


def test_each_seed_has_a_folder_and_rows_needed_run_once(started: list[Any]) -> None:
    main(["--exp-id", "4", "--seeds", "1-2,7"])
    assert [run[:4] for run in started] == [
        (1, 92, "runs/Demo/1", "embedded"),
        *((4, seed, f"runs/Demo/4-seed-{seed}", "runs/Demo/1/model") for seed in (1, 2, 7)),
    ]
    started.clear()
    main(["--exp-id", "1", "4", "--seeds", "1,2", "--output-dir", "out"])
    assert [run[:4] for run in started] == [
        run
        for seed in (1, 2)
        for run in (
            (1, seed, f"out/1-seed-{seed}", "embedded"),
            (4, seed, f"out/4-seed-{seed}", f"out/1-seed-{seed}/model"),
        )
    ]


@pytest.mark.parametrize(
    "words", [["--exp-id", "4", "--seeds", "1-2"], ["--exp-id", "1", "4", "--seeds", "3,5", "--output-dir", "out"]]
)
def test_the_command_of_each_run_repeats_it(started: list[Any], words: list[str]) -> None:
    main(words)
    for run in list(started):
        started.clear()
        main(run[4].split()[2:])
        assert run in started


def test_seeds_twice_are_refused(started: list[Any], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["--exp-id", "1", "--seeds", "1-2", "--set", "seed=3"])
    assert "--seeds: seed is given a second time, by --set seed" in capsys.readouterr().err
    assert started == []


def test_results_hold_mean_and_deviation_of_the_seeds(tmp_path: Path) -> None:
    spec = RunSpecification(exp_id=12, sheet="SQuAD", reported_f1=80.0)
    scores = {1: 70.0, 2: 71.5, 3: 74.0}
    plain = {"remaining_weights_percent": 50.0, "seconds": 2.0}
    record(spec, {"metrics": {"f1": 60.0}, **plain, "seed": 92}, "runs/SQuAD/12", tmp_path)
    for seed, f1 in scores.items():
        measured = {"metrics": {"f1": f1, "loss": f1 / 10}, **plain, "seed": seed}
        assert record(replace(spec, seed=seed), measured, f"runs/SQuAD/12-seed-{seed}", tmp_path) == []
    with (tmp_path / "results.csv").open(newline="", encoding="utf-8") as file:
        lines = list(csv.DictReader(file))
    assert [line["run"].removeprefix("runs/SQuAD/12") for line in lines] == [
        *("", "-seed-1", "-seed-2", "-seed-3", "-seed-*"),
    ]
    mean = lines[-1]
    assert mean["seed"] == "mean of 3"
    assert float(mean["f1"]) == pytest.approx(statistics.mean(scores.values()))
    assert float(mean["f1_deviation"]) == pytest.approx(statistics.stdev(scores.values()))
    assert float(mean["loss_deviation"]) == pytest.approx(statistics.stdev(scores.values()) / 10)
    assert (mean["exact_match"], mean["reported_f1"], mean["remaining_weights_percent"]) == ("", "80.0", "50.0")
    assert lines[0]["f1_deviation"] == ""
    sheet = load_workbook(tmp_path / "results.xlsx")["Results"]
    names = [cell.value for cell in sheet[1]]
    rows = {row[names.index("run")]: row for row in sheet.values}
    assert rows["runs/SQuAD/12-seed-*"][names.index("f1_deviation")] == pytest.approx(statistics.stdev(scores.values()))
    assert len(rows) == 6


def test_the_report_tells_mean_and_deviation() -> None:
    runs = [
        Run(
            Path(f"runs/12-seed-{seed}"),
            f"12-seed-{seed}",
            "12",
            "finished",
            metrics={"f1": f1},
            density=50.0,
            seed=seed,
        )
        for seed, f1 in (("1", 70.0), ("2", 72.0))
    ]
    other = Run(Path("runs/12"), "12", "12", "finished", metrics={"f1": 1.0})
    running = Run(Path("runs/12-seed-3"), "12-seed-3", "12", "running")
    (line,) = seed_rows([*runs, other, running])
    assert line == ("12", "12-seed-*", "1, 2", "F1 71.00 ± 1.41", "50.00 ± 0.00")
    assert seed_rows([runs[0], other]) == []
