"""Runs many rows through a launcher: starts what is ready, records what is finished, lets no row stop another."""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import FrameType

from splora.errors import InputError
from splora.files import is_full
from splora.hparams.results import Run, record_all
from splora.json_values import one_line
from splora.launch.prepare import NEEDS, Sorted, prepare
from splora.launch.progress import Show
from splora.launch.run_row import UNRECORDED, summary
from splora.launch.work import FULL, STOPPED, Launcher, Running, Work
from splora.locks import DRIVER_LOCK, holding
from splora.training.result_file import RESULT, read_result
from splora.training.state import (
    FAILED,
    FINISHED,
    INTERRUPTED,
    LOG,
    QUEUED,
    RUNNING,
    RunState,
    changed,
    initial,
    read_state,
    write_state,
)

#: Signals by which somebody, or the system, ends a process that has done nothing wrong.
_ENDED = (signal.SIGKILL, signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
#: Seconds between two looks at the processes, and between two looks at the states of runs.
_POLL, _LOOK = 0.1, 1.0
#: Bytes at the end of a log among which its last line is looked for.
_TAIL = 2**16


@contextmanager
def only_driver(root: Path, shared: bool = False) -> Iterator[None]:
    """Rows of an output folder are launched by one command at a time; commands that run rows themselves share it.

    Raises:
        InputError: another command is at work, or the folder cannot be written to.
    """
    with holding(root / DRIVER_LOCK, f"{root}: another command runs rows here", shared=shared, wait=1.0):
        yield


class Driver:
    """One command's rows.

    Args:
        works: rows, needed ones first.
        results: folder of ``results.csv`` and ``results.xlsx``.
    """

    def __init__(self, works: Sequence[Work], launcher: Launcher, show: Show, results: str = "runs") -> None:
        self._works = list(works)
        self._launcher = launcher
        self._show = show
        self._results = results
        self._sorted = Sorted()
        self._running: dict[str, tuple[Work, Running]] = {}
        #: Finished rows whose line is not written yet.
        self._unrecorded: list[Work] = []
        self._warnings: dict[str, None] = {}
        self._asked = self._passed_on = 0

    @property
    def states(self) -> dict[str, RunState]:
        """Every row's state, by EXP ID."""
        return self._sorted.states

    def run(self, force: bool = False, retry_failed: bool = False) -> int:
        """Run what is left; returns the exit status: 0, 1 where rows failed or were cut short, 130 where stopped.

        Raises:
            InputError: folders that cannot be used.
        """
        self._sorted = prepare(self._works, force, retry_failed)
        self._record(self._sorted.finished)
        if self._sorted.finished:
            self._show.tell(f"{_rows(len(self._sorted.finished))} finished before.")
        for work in self._sorted.left_alone:
            self._show.tell(f"EXP ID {work.name}: failed before, --retry-failed tries again: {self._reason(work)}")
        with self._listening(), self._show:
            looked = 0.0
            while self._sorted.waiting or self._running:
                self._pass_on()
                self._start_ready()
                if not self._running:
                    break
                if time.monotonic() - looked >= _LOOK:
                    self._look()
                    looked = time.monotonic()
                time.sleep(_POLL)
                self._collect()
            self._look()
        self._launcher.close()
        self._record([])
        return self._tell_end()

    def _start_ready(self) -> None:
        """Start rows whose needed rows are finished, as far as there is room; fail those that can never start."""
        for work in list(self._sorted.waiting):
            needed = [(name, self.states[name].state) for name in work.needs]
            broken = next((name for name, state in needed if state == FAILED), None)
            if broken is not None:
                self._sorted.waiting.remove(work)
                self._set(work, FAILED, f"{NEEDS} {broken}, which failed")
                self._show.tell(f"EXP ID {work.name}: not run, {NEEDS} {broken}, which failed")
            elif all(state == FINISHED for _, state in needed) and not self._asked:
                if len(self._running) >= self._launcher.slots:
                    continue
                self._sorted.waiting.remove(work)
                self._start(work)

    def _start(self, work: Work) -> None:
        shows = work.job.spec.model or work.job.spec.pruning_method
        try:
            running = self._launcher.start(work)
        except (OSError, InputError) as error:  # no memory for a process, or its log cannot be opened
            state = INTERRUPTED if is_full(error) else FAILED
            self._set(work, state, f"could not be started ({getattr(error, 'strerror', None) or error})")
            self._show.tell(f"EXP ID {work.name}: {state}: {self._reason(work)}")
            return
        self._running[work.name] = (work, running)
        self._show.tell(f"EXP ID {work.name}: {shows} into {work.folder}")

    def _collect(self) -> None:
        for name, (work, running) in list(self._running.items()):
            status = running.outcome()
            if status is None:
                continue
            del self._running[name]
            self._conclude(work, status)

    def _conclude(self, work: Work, status: int) -> None:
        """Say on disk and on the screen how a row ended, whatever its process managed to say itself."""
        said = read_state(work.folder)
        if (work.folder / RESULT).exists():
            try:
                outcome = summary(read_result(work.folder))
                self._set(work, FINISHED)
                self._record([work])
            except InputError as error:
                self._set(work, FAILED, " ".join(error.problems))
                outcome = f"{FAILED}: {self._reason(work)}"
        else:
            state = INTERRUPTED if status in (STOPPED, FULL) or -status in _ENDED else FAILED
            own = said is not None and said.state == state
            self._set(work, state, said.reason if own and said is not None else _why(status, work.folder))
            outcome = f"{state}: {self._reason(work)}"
        self._show.tell(f"EXP ID {work.name}: {outcome}")

    def _record(self, finished: Sequence[Work]) -> None:
        """Write the lines of finished rows; what cannot be written now is tried again with the next."""
        self._unrecorded += finished
        if not self._unrecorded:
            return
        runs: list[Run] = []
        problems: list[str] = []
        for work in list(self._unrecorded):
            try:
                runs.append((work.job.spec, read_result(work.folder), work.folder))
            except InputError as error:  # damaged since; the others are recorded
                self._unrecorded.remove(work)
                problems += error.problems
        try:
            problems += record_all(runs, self._results)
            self._unrecorded = []
        except InputError as error:
            problems += [f"{problem} {UNRECORDED}" for problem in error.problems]
        for problem in problems:
            if problem not in self._warnings:
                self._warnings[problem] = None
                print(f"warning: {problem}", file=sys.stderr, flush=True)

    def _set(self, work: Work, state: str, reason: str | None = None) -> None:
        before = read_state(work.folder) or initial(state, work.job.spec, work.command, folder=work.folder)
        log = LOG if (work.folder / LOG).is_file() else None
        if before.state != state or before.reason != reason:
            before = changed(before, state, reason)
        self.states[work.name] = RunState(**{**vars(before), "log": log})
        write_state(work.folder, self.states[work.name])

    def _look(self) -> None:
        for name, (work, _) in self._running.items():
            self.states[name] = read_state(work.folder) or self.states[name]
        self._show.update([self.states[work.name] for work in self._works])

    @contextmanager
    def _listening(self) -> Iterator[None]:
        """Ctrl-C, and the end of a session, are passed on to the runs."""
        kinds = [signal.SIGINT, signal.SIGTERM]
        if signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN:  # nohup ignores it on purpose
            kinds.append(signal.SIGHUP)
        before = {kind: signal.signal(kind, self._ask) for kind in kinds}
        try:
            yield
        except BaseException:
            for _, running in self._running.values():
                running.kill()
            raise
        finally:
            for kind, handler in before.items():
                signal.signal(kind, handler)

    def _ask(self, kind: int, frame: FrameType | None) -> None:
        self._asked += 1

    def _pass_on(self) -> None:
        if self._asked == self._passed_on:
            return
        self._passed_on = self._asked
        if self._asked == 1:
            self._show.tell(f"stopping {_rows(len(self._running))} with a checkpoint; Ctrl-C once more stops now")
        for _, running in self._running.values():
            running.interrupt() if self._asked == 1 else running.kill()

    def _reason(self, work: Work) -> str:
        state = self.states[work.name]
        reason = state.reason or "no reason is known"
        return f"{reason}{f' (log: {work.folder / state.log})' if state.log and state.state == FAILED else ''}"

    def _tell_end(self) -> int:
        """The last lines: what failed and why, and how many of each."""
        counts = {FINISHED: 0, FAILED: 0, INTERRUPTED: 0, QUEUED: 0}
        for work in self._works:
            state = self.states[work.name].state
            counts[INTERRUPTED if state == RUNNING else state] += 1
        for work in self._works:
            if self.states[work.name].state == FAILED:
                self._show.tell(f"EXP ID {work.name} failed: {self._reason(work)}")
        words = {FINISHED: "finished", FAILED: "failed", INTERRUPTED: "interrupted", QUEUED: "not started"}
        states = ", ".join(
            f"{number} {words[state]}" for state, number in counts.items() if number or state in (FINISHED, FAILED)
        )
        hint = "; the same command goes on" if counts[INTERRUPTED] or counts[QUEUED] else ""
        hint += "; --retry-failed runs failed rows again" if counts[FAILED] else ""
        self._show.tell(f"{_rows(len(self._works))}: {states}{hint}.")
        if self._asked:
            return STOPPED
        return int(counts[FINISHED] < len(self._works))


def _why(status: int, folder: Path) -> str:
    """The reason of an end that the run itself could not give."""
    if status < 0:
        name = signal.Signals(-status).name if -status in signal.valid_signals() else str(-status)
        return f"its process was ended by {name}{', perhaps for want of memory' * (name == 'SIGKILL')}"
    try:
        with (folder / LOG).open("rb") as log:
            log.seek(max(0, os.fstat(log.fileno()).st_size - _TAIL))
            lines = log.read().decode("utf-8", "replace").strip().splitlines()
    except OSError:
        lines = []
    silent = "the disk is full" if status == FULL else f"its process ended with status {status}"
    return one_line(lines[-1].removeprefix("error: "), 500) if lines else silent


def _rows(number: int) -> str:
    return f"{number} row{'s' * (number != 1)}"
