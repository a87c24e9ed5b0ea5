"""Rows on this machine: each in a process of its own, on devices and threads of its own."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Sequence
from contextlib import suppress

from splora.files import appending
from splora.launch.devices import Slot
from splora.launch.fork_server import ForkedProcess, ForkServer
from splora.launch.work import Work
from splora.training.state import LOG

WORKER = "splora.launch.worker"


class LocalRun:
    """A row that runs in a process of this machine."""

    def __init__(self, process: subprocess.Popen[bytes] | ForkedProcess, slot: int, free: list[int]) -> None:
        self._process = process
        self._slot = slot
        self._free = free
        self._over = False

    def outcome(self) -> int | None:
        """Exit status of its process, negative for the signal that killed it; None while it runs."""
        status = self._process.poll()
        if status is not None and not self._over:
            self._over = True
            self._signal_all(signal.SIGKILL)  # processes of a run over several devices that outlived the first
            self._free.append(self._slot)
        return status

    def interrupt(self) -> None:
        """Ask it to write a checkpoint and stop."""
        with suppress(ProcessLookupError):
            os.kill(self._process.pid, signal.SIGINT)

    def kill(self) -> None:
        """Stop it now."""
        self._signal_all(signal.SIGKILL)

    def _signal_all(self, kind: signal.Signals) -> None:
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(self._process.pid, kind)


class LocalLauncher:
    """Starts rows in processes of this machine, one per slot."""

    def __init__(self, slots: Sequence[Slot]) -> None:
        self._slots = list(slots)
        self._free = list(reversed(range(len(self._slots))))
        self.slots = len(self._slots)
        self._server: ForkServer | None = None

    def start(self, work: Work) -> LocalRun:
        """Start a row in a free slot; what it prints goes to the log in its folder."""
        number = self._free.pop()
        try:
            return self._start(work, number)
        except BaseException:
            self._free.append(number)
            raise

    def _start(self, work: Work, number: int) -> LocalRun:
        slot = self._slots[number]
        environment = {**os.environ, "PYTHONUNBUFFERED": "1", **threads_of(slot.threads)}
        if slot.gpus is not None:
            environment["CUDA_VISIBLE_DEVICES"] = slot.gpus
        with appending(work.folder / LOG) as log:
            command = [*worker_command(work, slot.threads), "--parent", str(os.getpid())]
            forked = self._forked(command, log.fileno(), environment) if _can_fork(slot, work) else None
            # A session of its own: Ctrl-C reaches the driver alone, which passes it on.
            process = forked or subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                env=environment,
                start_new_session=True,
            )
        return LocalRun(process, number, self._free)

    def close(self) -> None:
        """End the process that workers were forked from."""
        if self._server is not None:
            self._server.close()

    def _forked(self, command: list[str], log: int, environment: dict[str, str]) -> ForkedProcess | None:
        # Slots without GPUs are all alike, and so are the environments of their workers.
        self._server = self._server or ForkServer(environment)
        return self._server.start(command[command.index(WORKER) + 1 :], log)


def _can_fork(slot: Slot, work: Work) -> bool:
    """CUDA does not survive a fork, and Lightning starts the other processes of a row by its first one's command."""
    return sys.platform == "linux" and not slot.gpus and work.is_one_process


def worker_command(work: Work, threads: int) -> list[str]:
    """The command of a row's own process."""
    words = [sys.executable, "-m", WORKER, str(work.folder), "--threads", str(threads)]
    return [*words, "--trainer", json.dumps(work.trainer), "--command", work.command]


def threads_of(number: int) -> dict[str, str]:
    """The environment that gives a process so many threads."""
    return dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS"), str(number))
