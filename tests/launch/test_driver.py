"""The driver: order, room, failures, signals and what it leaves on disk; its workers only pretend to train."""

from __future__ import annotations

import csv
import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from splora.errors import InputError
from splora.files import write_json
from splora.launch.devices import Slot
from splora.launch.driver import Driver, only_driver
from splora.launch.local import LocalLauncher
from splora.launch.progress import Show
from splora.launch.work import Work
from splora.training.state import StateKeeper, initial, read_state

Make = Callable[..., Work]


class Listener(Show):
    """Keeps what is told."""

    def __init__(self) -> None:
        super().__init__()
        self.heard: list[str] = []

    def tell(self, line: str) -> None:
        """Keep it."""
        self.heard.append(line)


@pytest.fixture
def drive(pretended: Any, tmp_path: Path) -> Callable[..., Any]:
    """Runs rows; returns the exit status, the launcher and what was told."""

    def run(works: list[Work], launcher: Any = None, **choices: bool) -> tuple[int, Any, list[str]]:
        launcher, show = launcher or pretended(), Listener()
        status = Driver(works, launcher, show, str(tmp_path / "results")).run(**choices)
        return status, launcher, show.heard

    return run


def state_of(work: Work) -> tuple[str, str | None]:
    found = read_state(work.folder)
    assert found is not None
    return found.state, found.reason


def recorded(tmp_path: Path) -> list[str]:
    with (tmp_path / "results" / "results.csv").open(newline="", encoding="utf-8") as file:
        return [line["exp_id"] for line in csv.DictReader(file)]


def test_rows_run_once_in_order_and_no_more_at_once_than_fit(
    work: Make, drive: Any, pretended: Any, tmp_path: Path
) -> None:
    works = [work(1), work(2, 1), work(3, 1), work(4), work(5)]
    status, launcher, told = drive(works, pretended(slots=2))
    assert status == 0
    assert sorted(launcher.started) == ["1", "2", "3", "4", "5"]
    assert launcher.started.index("1") < min(launcher.started.index("2"), launcher.started.index("3"))
    assert launcher.at_once == 2
    assert told[-1] == "5 rows: 5 finished, 0 failed."
    assert {state_of(each)[0] for each in works} == {"finished"}
    assert sorted(recorded(tmp_path)) == ["1", "2", "3", "4", "5"]
    status, launcher, told = drive(works)
    assert (status, launcher.started) == (0, [])
    assert told == ["5 rows finished before.", "5 rows: 5 finished, 0 failed."]


def test_a_failed_row_stops_only_those_that_need_it(work: Make, drive: Any, pretended: Any, tmp_path: Path) -> None:
    works = [work(1), work(2, 1), work(3, 2), work(4)]
    status, launcher, told = drive(works, pretended(row1=1))
    assert status == 1
    assert sorted(launcher.started) == ["1", "4"]
    assert state_of(works[1]) == ("failed", "needs EXP ID 1, which failed")
    assert state_of(works[2]) == ("failed", "needs EXP ID 2, which failed")
    assert told[-1] == "4 rows: 1 finished, 3 failed; --retry-failed runs failed rows again."
    assert recorded(tmp_path) == ["4"]
    # Again: what failed by itself is left alone, and said so.
    status, launcher, told = drive(works)
    assert (status, launcher.started) == (1, [])
    assert any(line.startswith("EXP ID 1: failed before, --retry-failed tries again") for line in told)
    status, launcher, _ = drive(works, retry_failed=True)
    assert (status, launcher.started) == (0, ["1", "2", "3"])


def test_a_row_whose_needed_row_has_recovered_runs_without_being_asked_to(
    work: Make, drive: Any, pretended: Any
) -> None:
    works = [work(1), work(2, 1)]
    drive(works, pretended(row1=1))
    drive(works[:1], retry_failed=True)
    status, launcher, _ = drive(works)
    assert (status, launcher.started) == (0, ["2"])


@pytest.mark.parametrize(
    ("ended", "state", "reason"),
    [
        (-9, "interrupted", "SIGKILL"),
        (75, "interrupted", "the disk is full"),
        (-11, "failed", "SIGSEGV"),
        (2, "failed", "no space for another word"),
    ],
)
def test_what_a_worker_could_not_say_the_driver_says(
    work: Make, drive: Any, pretended: Any, ended: int, state: str, reason: str
) -> None:
    only = work(1)
    if ended == 2:
        only.folder.mkdir(parents=True)
        (only.folder / "log.txt").write_text("one\nerror: no space for another word\n", encoding="utf-8")
    status, _, told = drive([only], pretended(row1=ended))
    assert status == 1
    assert state_of(only)[0] == state
    assert reason in str(state_of(only)[1])
    assert told[-1].startswith(f"1 row: 0 finished, {int(state == 'failed')} failed")
    status, launcher, _ = drive([only])
    assert launcher.started == ([] if state == "failed" else ["1"])


def test_the_worker_s_own_reason_is_kept(work: Make, drive: Any, pretended: Any) -> None:
    class Says(pretended):  # type: ignore[misc]
        def start(self, work: Work) -> Any:
            StateKeeper(work.folder, initial("running", work.job.spec)).end("failed", "the loss is nan")
            return super().start(work)

    only = work(1)
    drive([only], Says(row1=1))
    assert state_of(only) == ("failed", "the loss is nan")


def test_a_row_that_finished_unnoticed_is_recorded(work: Make, drive: Any, pretended: Any, tmp_path: Path) -> None:
    only = work(1)
    drive([only])
    (tmp_path / "results" / "results.csv").unlink()
    StateKeeper(only.folder, initial("running", only.job.spec))
    status, launcher, _ = drive([only])
    assert (status, launcher.started) == (0, [])
    assert state_of(only)[0] == "finished"
    assert recorded(tmp_path) == ["1"]


def test_force_runs_finished_and_failed_rows_again_but_not_needed_ones(work: Make, drive: Any, pretended: Any) -> None:
    works = [work(1, needed_by="2"), work(2, 1), work(3)]
    drive(works, pretended(row3=1))
    status, launcher, _ = drive(works, force=True)
    assert (status, sorted(launcher.started)) == (0, ["2", "3"])


def test_folders_that_cannot_be_used_are_all_refused_before_anything_is_written(
    work: Make, drive: Any, pretended: Any
) -> None:
    works = [work(1), work(2), work(3)]
    for foreign in works[:2]:
        foreign.folder.mkdir(parents=True)
        (foreign.folder / "my.txt").touch()
    with pytest.raises(InputError) as caught:
        drive(works, launcher := pretended())
    assert len(caught.value.problems) == 2
    assert launcher.started == []
    assert not works[2].folder.exists()


def test_results_that_cannot_be_written_now_are_written_with_the_next(
    work: Make, drive: Any, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    (tmp_path / "results").mkdir()
    (tmp_path / "results" / "results.csv").mkdir()
    status, _, _ = drive([work(1), work(2)])
    assert status == 0
    assert "results.csv: cannot be" in capsys.readouterr().err
    (tmp_path / "results" / "results.csv").rmdir()
    drive([work(1), work(2)])
    assert recorded(tmp_path) == ["1", "2"]


@pytest.mark.parametrize("times", [1, 2])
def test_ctrl_c_once_asks_and_twice_kills(work: Make, drive: Any, pretended: Any, times: int) -> None:
    class Impatient(pretended):  # type: ignore[misc]
        def start(self, work: Work) -> Any:
            started = super().start(work)
            if times == 2:
                started.interrupt = lambda: os.kill(os.getpid(), signal.SIGINT)  # has not stopped yet
            os.kill(os.getpid(), signal.SIGINT)
            return started

    works = [work(1), work(2)]
    before = signal.getsignal(signal.SIGINT)
    status, launcher, told = drive(works, launcher := Impatient(slots=1, looks=1000))
    assert status == 130
    assert launcher.runs[0].signals == ["interrupt" if times == 1 else "kill"]
    assert [state_of(each)[0] for each in works] == ["interrupted", "queued"]
    assert told[-1] == "2 rows: 0 finished, 0 failed, 1 interrupted, 1 not started; the same command goes on."
    assert signal.getsignal(signal.SIGINT) is before
    _, launcher, _ = drive(works)
    assert launcher.started == ["1", "2"]


def test_a_second_driver_is_refused_while_the_first_lives(tmp_path: Path) -> None:
    with (
        only_driver(tmp_path),
        pytest.raises(InputError, match=f"process {os.getpid()} on host"),
        only_driver(tmp_path),
    ):
        pass
    refused = pytest.raises(InputError, match="another command runs rows here")
    with only_driver(tmp_path, shared=True), only_driver(tmp_path, shared=True), refused, only_driver(tmp_path):
        pass
    with only_driver(tmp_path):
        pass
    (tmp_path / "file").touch()
    with pytest.raises(InputError, match="cannot be written to"), only_driver(tmp_path / "file" / "runs"):
        pass


def test_progress_is_told_in_lines_a_tenth_apart(work: Make) -> None:
    show = Listener()
    keeper = StateKeeper(work(1).folder, initial("running", work(1).job.spec))
    for step in range(0, 101, 5):
        keeper.beat(step=step, steps=100, loss=0.5, density=0.25, seconds_left=70.0)
        show.update([keeper.state])
    assert len(show.heard) == 10
    assert show.heard[0] == "EXP ID 1: step 10 of 100  loss 0.5  density 25.0 %  left 70 s"


def test_a_row_whose_log_is_a_link_takes_no_slot(work: Make, tmp_path: Path) -> None:
    launcher = LocalLauncher([Slot(None, 1)])
    only = work(1)
    only.folder.mkdir(parents=True)
    (only.folder / "log.txt").symlink_to(tmp_path / "thesis.tex")
    for _ in range(2):
        with pytest.raises(InputError, match="is a link"):
            launcher.start(only)


@pytest.mark.parametrize("content", [b"", b'{"metrics"', b"[]", b"{}", b'{"metrics": {}}', b'{"metrics": {"f1": "x"}}'])
def test_a_row_that_leaves_a_damaged_result_stops_no_other(
    work: Make, drive: Any, pretended: Any, tmp_path: Path, content: bytes
) -> None:
    class Damages(pretended):  # type: ignore[misc]
        def start(self, work: Work) -> Any:
            if work.name == "1":
                self.statuses["row1"] = 1
                (work.folder / "result.json").write_bytes(content)
            return super().start(work)

    works = [work(1), work(2)]
    status, _, told = drive(works, Damages())
    sound = b'{"metrics": {' in content
    assert status == int(not sound)
    assert [state_of(each)[0] for each in works] == ["finished" if sound else "failed", "finished"]
    assert recorded(tmp_path) == ["1", "2"][not sound :]
    if not sound:
        assert any(line.startswith(f"EXP ID 1: failed: {works[0].folder / 'result.json'}: ") for line in told)


def test_a_table_of_another_program_ends_no_sweep(
    work: Make, drive: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    drive([work(1)])
    path = tmp_path / "results" / "results.csv"
    path.write_bytes(path.read_bytes().replace(b"row 1", "größer".encode("cp1252")))
    (tmp_path / "results" / "results.xlsx").write_bytes(b"PK damaged")
    status, _, _ = drive([work(1), work(2)])
    assert status == 0
    assert recorded(tmp_path) == ["1", "2"]
    said = capsys.readouterr().err
    assert "was read as Windows-1252" in said
    assert "cannot be read as a workbook" in said


def test_results_of_another_version_are_no_obstacle(work: Make, drive: Any) -> None:
    only = work(1)
    drive([only])
    write_json(only.folder / "state.json", {"state": "running", "a field of tomorrow": 1})
    assert drive([only])[0] == 0
