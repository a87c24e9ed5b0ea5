"""A sweep on a full disk: its rows say so, others end well, nothing is half-written, and with space it goes on."""

from __future__ import annotations

import csv
import os
import shutil
import subprocess
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from types import SimpleNamespace

import pytest

from splora.launch.driver import Driver
from splora.launch.progress import Show
from splora.launch.work import Work

SWEEP = ("--exp-id", "2", "4", "--jobs", "2", "--set", "model_name_or_path=embedded", "--set", "teacher_name_or_path=")
Mount = Callable[..., None]


@pytest.fixture
def mount() -> Iterator[Mount]:
    """Puts a disk of its own, in memory, where a folder is; `again` changes its size."""
    if os.geteuid() != 0 or shutil.which("mount") is None:
        pytest.skip("no small disk: to mount one takes root")
    mounted: list[Path] = []

    def make(folder: Path, size: str, again: bool = False) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        options = f"{'remount,' * again}size={size}"
        done = subprocess.run(
            ["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(folder)], capture_output=True, text=True, check=False
        )
        if "permission denied" in done.stderr.lower():  # a container's root without the right to mount
            pytest.skip(f"no small disk: {done.stderr.strip()}")
        assert done.returncode == 0, done.stderr
        mounted.extend([] if again else [folder])

    yield make
    for folder in reversed(mounted):
        subprocess.run(["umount", "--lazy", str(folder)], check=True)


def fill(disk: Path) -> None:
    """Leave not a byte."""
    with suppress(OSError), (disk / "ballast").open("wb", buffering=0) as file:
        while True:
            file.write(bytes(4096))


@pytest.mark.slow
def test_a_row_whose_disk_is_full_goes_on_when_there_is_space(sweep: SimpleNamespace, mount: Mount) -> None:
    # Room for a checkpoint of row 2 but not for two; row 4 has a disk of its own.
    runs, folder = sweep.place / "runs", sweep.folder / "2"
    mount(runs, "500k")
    mount(sweep.folder / "4", "20m")
    done = sweep.finish(*SWEEP)
    assert done.status == 1, done.lines
    assert done.lines[-1] == "2 rows: 1 finished, 0 failed, 1 interrupted; the same command goes on."
    assert [sweep.state(row)["state"] for row in (2, 4)] == ["interrupted", "finished"]
    assert "free some space" in sweep.state(2)["reason"]
    assert sweep.state(2)["reason"] in " ".join(done.lines)
    with (runs / "results.csv").open(newline="", encoding="utf-8") as file:
        assert [line["exp_id"] for line in csv.DictReader(file)] == ["4"]
    checkpoint = (folder / "checkpoints" / "last.ckpt").read_bytes()
    # Not even the command's own files find room: nothing is started, and nothing is lost.
    fill(runs)
    refused = sweep.finish(*SWEEP)
    assert refused.status == 2, refused.lines
    assert refused.lines == ["error: runs/Demo/2/spec.json: cannot be written (No space left on device)."]
    assert (folder / "checkpoints" / "last.ckpt").read_bytes() == checkpoint
    assert not list(runs.rglob(".*.tmp"))
    (runs / "ballast").unlink()
    mount(runs, "20m", again=True)
    done = sweep.finish(*SWEEP)
    assert done.status == 0, done.lines
    assert done.lines[0] == "1 row finished before."
    assert "going on from the last checkpoint" in (folder / "log.txt").read_text(encoding="utf-8")
    assert sweep.state(2)["state"] == "finished"
    assert not list(runs.rglob(".*.tmp"))


@pytest.mark.slow
def test_a_log_that_takes_no_line_fails_no_row(sweep: SimpleNamespace, mount: Mount) -> None:
    mount(sweep.folder / "2", "16k")
    sweep_of_one = [word for word in SWEEP if word != "4"]
    done = sweep.finish(*sweep_of_one)
    assert done.status == 1, done.lines
    assert done.lines[-1] == "1 row: 0 finished, 0 failed, 1 interrupted; the same command goes on."
    assert any(line.endswith("interrupted: the disk is full") for line in done.lines), done.lines


def test_a_row_that_finds_no_room_to_start_is_no_failure(
    work: Callable[..., Work], pretended: type, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    class Full(pretended):  # type: ignore[misc]
        def start(self, work: Work) -> None:
            raise OSError(28, "No space left on device")

    assert Driver([work(1)], Full(), Show(), str(tmp_path / "results")).run() == 1
    told = capsys.readouterr().out
    assert "EXP ID 1: interrupted: could not be started (No space left on device)" in told
    assert "1 interrupted; the same command goes on" in told
