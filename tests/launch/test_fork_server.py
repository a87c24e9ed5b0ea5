"""Forked workers are children of the launcher, in sessions of their own; they outlive the process they came from."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, replace

import pytest

from splora.launch.devices import Slot
from splora.launch.local import LocalLauncher, LocalRun, _can_fork
from splora.launch.work import Work
from splora.locks import RUN_LOCK, holding
from tests.forks import Program

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="workers are forked on Linux only")


@pytest.fixture
def launcher() -> Iterator[LocalLauncher]:
    """Room for two rows on the CPU."""
    launcher = LocalLauncher([Slot(None, 1), Slot(None, 1)])
    yield launcher
    launcher.close()


@pytest.fixture
def done(work: Callable[..., Work]) -> Work:
    """A row that is finished: its worker has nothing to do but to wait for the lock of its folder."""
    work = work(1)
    work.folder.mkdir(parents=True)
    (work.folder / "spec.json").write_text(json.dumps(asdict(work.job.spec)), encoding="utf-8")
    (work.folder / "result.json").write_text("{}", encoding="utf-8")
    return work


def outcome(run: LocalRun) -> int:
    deadline = time.monotonic() + 60
    while (status := run.outcome()) is None:
        assert time.monotonic() < deadline
        time.sleep(0.02)
    return status


@pytest.mark.slow
def test_a_worker_outlives_the_server_and_later_ones_do_without(
    launcher: LocalLauncher, done: Work, work: Callable[..., Work]
) -> None:
    with holding(done.folder / RUN_LOCK, "this test"):
        first = launcher.start(done)
        assert launcher._server is not None
        pid = first._process.pid
        assert os.getsid(pid) == pid
        broken = work(2)
        broken.folder.mkdir(parents=True)
        assert outcome(launcher.start(broken)) == 2
        assert "spec.json" in (broken.folder / "log.txt").read_text(encoding="utf-8")
        launcher._server._process.kill()
        launcher._server._process.wait()
        assert first.outcome() is None
    assert outcome(first) == 0
    assert outcome(launcher.start(done)) == 0


@pytest.mark.slow
@pytest.mark.usefixtures("heard_signals")
def test_a_killed_worker_is_told_from_a_failed_one(
    launcher: LocalLauncher, done: Work, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(subprocess, "Popen", Program)
    with holding(done.folder / RUN_LOCK, "this test"):
        run = launcher.start(done)
        run.kill()
        assert outcome(run) == -signal.SIGKILL
        run = launcher.start(done)
        while not (done.folder / "log.txt").is_file():
            time.sleep(0.02)
        run.interrupt()
        # Before it listens for signals, it ends like any program of Python.
        assert outcome(run) in (130, -signal.SIGINT)


@pytest.mark.parametrize(
    ("slot", "trainer", "can"),
    [
        (Slot(None, 1), {}, True),
        (Slot("", 1), {"accelerator": "cpu", "devices": 1}, True),
        (Slot("0", 1), {}, False),
        (Slot(None, 1), {"devices": 2}, False),
        (Slot(None, 1), {"strategy": "ddp"}, False),
    ],
)
def test_what_uses_cuda_or_several_processes_starts_anew(
    work: Callable[..., Work], slot: Slot, trainer: dict[str, object], can: bool
) -> None:
    assert _can_fork(slot, replace(work(1), trainer=trainer)) is can
