"""What is on disk about a run, and what ``--status`` makes of it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from splora.callbacks import Heartbeat
from splora.errors import InputError
from splora.launch.status import cells, duration, now_true, print_status
from splora.locks import RUN_LOCK, holding, is_held
from splora.training import state as states
from splora.training.specification import RunSpecification
from splora.training.state import RunState, StateKeeper, initial, read_state, write_state

SPEC = RunSpecification(exp_id=12, sheet="SQuAD", pruning_method="topK")
FIELDS = {
    *("state", "exp_id", "sheet", "method", "since", "heartbeat", "step", "steps", "loss", "density"),
    *("seconds_left", "reason", "log", "pid", "host", "command"),
}


def test_the_file_says_all_there_is_to_say(tmp_path: Path) -> None:
    keeper = StateKeeper(tmp_path, initial("running", SPEC, "python scripts/run_from_sheet.py --exp-id 12", "log.txt"))
    keeper.beat(step=3, steps=10, loss=0.5)
    found = json.loads((tmp_path / "state.json").read_text(encoding="utf-8"))
    assert found.keys() == FIELDS
    assert (found["state"], found["exp_id"], found["method"], found["pid"]) == ("running", 12, "topK", os.getpid())
    assert (found["step"], found["heartbeat"] is not None) == (3, True)
    keeper.end("failed", "why")
    assert read_state(tmp_path) == keeper.state
    assert (keeper.state.step, keeper.state.reason) == (3, "why")


def test_news_that_cannot_be_written_end_no_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: Any) -> None:
        raise InputError("the disk is full")

    keeper = StateKeeper(tmp_path, initial("running", SPEC))
    monkeypatch.setattr(states, "write_json", full)
    keeper.beat(step=3)
    assert not write_state(tmp_path, keeper.state)
    found = read_state(tmp_path)
    assert found is not None
    assert found.step is None


@pytest.mark.parametrize("text", ["", "{", "[]", '{"exp_id": 1}'])
def test_a_file_that_is_no_state_is_none(tmp_path: Path, text: str) -> None:
    (tmp_path / "state.json").write_text(text, encoding="utf-8")
    assert read_state(tmp_path) is None


def test_heartbeats_tell_step_loss_density_and_the_time_left(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    clock = iter(range(1000))
    monkeypatch.setattr("splora.callbacks.heartbeat.time.monotonic", lambda: float(next(clock)))
    keeper = StateKeeper(tmp_path, initial("running", SPEC))
    beat = Heartbeat(keeper, seconds=0.0)
    values: dict[str, float] = {}
    trainer: Any = SimpleNamespace(
        global_step=100, estimated_stepping_batches=110, is_global_zero=True, callback_metrics=values
    )
    beat.on_train_start(trainer, None)  # type: ignore[arg-type]
    assert (keeper.state.step, keeper.state.steps, keeper.state.seconds_left) == (100, 110, None)
    values |= {"loss": float("nan"), "density": 0.5}
    for step in (101, 102):
        beat.on_train_batch_start(trainer, None, None, 0)  # type: ignore[arg-type]
        trainer.global_step = step
        beat.on_train_batch_end(trainer, None, None, None, 0)  # type: ignore[arg-type]
    # A clock that ticks at every look: one second a step, eight steps are left.
    assert (keeper.state.step, keeper.state.seconds_left) == (102, 8.0)
    assert (keeper.state.loss, keeper.state.density) == (None, 0.5)
    before = keeper.state
    trainer.is_global_zero = False
    beat.on_train_end(trainer, None)  # type: ignore[arg-type]
    assert keeper.state == before


def test_heartbeats_keep_their_distance(tmp_path: Path) -> None:
    keeper = StateKeeper(tmp_path, initial("running", SPEC))
    beat = Heartbeat(keeper, seconds=1000.0)
    trainer: Any = SimpleNamespace(
        global_step=0, estimated_stepping_batches=10, is_global_zero=True, callback_metrics={}
    )
    beat.on_train_start(trainer, None)  # type: ignore[arg-type]
    trainer.global_step = 5
    beat.on_train_batch_end(trainer, None, None, None, 0)  # type: ignore[arg-type]
    beat.on_validation_batch_end(trainer)
    assert keeper.state.step == 0


def test_a_run_whose_process_is_gone_is_interrupted(tmp_path: Path) -> None:
    gone = subprocess.Popen([sys.executable, "-c", ""])
    gone.wait()
    running = initial("running", SPEC)
    assert now_true(tmp_path, running).state == "running"
    assert now_true(tmp_path, replace(running, pid=gone.pid)).state == "interrupted"
    with holding(tmp_path / RUN_LOCK, "it"):
        assert is_held(tmp_path / RUN_LOCK)
        assert now_true(tmp_path, replace(running, pid=gone.pid)).state == "running"
    # The lock is free: whoever has its process id now is somebody else.
    assert now_true(tmp_path, running).state == "interrupted"
    (tmp_path / "result.json").write_text('{"metrics": {}}', encoding="utf-8")
    assert now_true(tmp_path, running).state == "finished"


def test_a_run_on_another_machine_is_believed_for_a_while(tmp_path: Path) -> None:
    running = replace(initial("running", SPEC), host="another")
    assert now_true(tmp_path, running).state == "running"
    assert now_true(tmp_path, replace(running, heartbeat="2020-01-01T00:00:00+00:00")).state == "interrupted"


def test_the_status_of_a_folder(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    print_status(tmp_path)
    assert capsys.readouterr().out == f"{tmp_path}: no runs.\n"
    for number, state in ((9, "running"), (10, "failed"), (11, "queued")):
        folder = tmp_path / "SQuAD" / str(number)
        known = replace(initial(state, SPEC, log="log.txt"), exp_id=number, step=5, steps=10, loss=0.25)
        write_state(folder, replace(known, seconds_left=400.0, reason="no memory" if state == "failed" else None))
    older = tmp_path / "MNLI" / "2"
    older.mkdir(parents=True)
    (older / "spec.json").write_text('{"exp_id": 2, "sheet": "MNLI", "pruning_method": "l0"}', encoding="utf-8")
    (older / "result.json").write_text('{"metrics": {}}', encoding="utf-8")
    print_status(tmp_path)
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[:2] for line in lines[1:-1]] == [
        ["2", "finished"],
        ["9", "running"],
        ["10", "failed"],
        ["11", "queued"],
    ]
    assert "5 of 10  0.25" in lines[2]
    assert "7 min" in lines[2]
    assert lines[3].endswith(f"no memory (log: {tmp_path / 'SQuAD' / '10' / 'log.txt'})")
    assert lines[-1].startswith("1 running, 1 queued, 1 finished, 1 failed; no command is at work on them now")
    print_status(tmp_path, method="l0")
    assert capsys.readouterr().out.splitlines()[-1] == "1 finished."


def test_times_are_told_as_people_tell_them() -> None:
    assert [duration(seconds) for seconds in (5, 99, 100, 5999, 6000, 90000)] == [
        "5 s",
        "99 s",
        "2 min",
        "1 h 40 min",
        "1 h 40 min",
        "25 h 0 min",
    ]
    assert cells(RunState("queued", exp_id=3)) == ("3", "queued", "", "", "", "", "")


@pytest.mark.slow
def test_status_imports_nothing_slow(root: Path, tmp_path: Path) -> None:
    code = (
        "import sys; from splora.scripts.run_from_sheet import main; main(['--status', '--output-dir', sys.argv[1]]); "
        "heavy = {'torch', 'lightning', 'transformers', 'pandas', 'ray'}; print(sorted(heavy & {*sys.modules}))"
    )
    words = [sys.executable, "-c", code, str(tmp_path)]
    done = subprocess.run(words, cwd=root, capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "[]"
