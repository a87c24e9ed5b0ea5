"""Progress of stages: a bar in a terminal, one line per finished stage elsewhere. Imports nothing slow."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from types import TracebackType
from typing import Any


class StageProgress:
    """Told of stages, what they work on and how much is done; a context manager.

    Its `report` fits `splora.posttraining.core.stages.Report`.
    """

    def __init__(self) -> None:
        self._stage = ""
        self._since = 0.0
        self._bar: Any = None
        self._task: Any = None

    def __enter__(self) -> StageProgress:
        if sys.stderr.isatty():
            from rich.console import Console
            from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

            columns = TextColumn("{task.fields[stage]:<20}"), BarColumn(), TextColumn("{task.fields[item]}")
            self._bar = Progress(*columns, TimeElapsedColumn(), console=Console(stderr=True), transient=True)
            self._bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._bar is not None:
            with suppress(OSError):  # a terminal that was closed
                self._bar.stop()

    def report(self, stage: str, item: str, done: float) -> None:
        """Show a step; `done` runs from 0 to 1 within a stage."""
        if stage != self._stage:
            self._stage, self._since = stage, time.perf_counter()
            if self._bar is not None:
                if self._task is not None:
                    self._bar.remove_task(self._task)
                self._task = self._bar.add_task("", total=1.0, stage=stage, item=item)
        if self._bar is not None:
            self._bar.update(self._task, completed=done, item=item)
        if done >= 1.0:
            print(f"{stage}: {time.perf_counter() - self._since:.1f} s", file=sys.stderr, flush=True)


@contextmanager
def shown_progress() -> Iterator[Callable[[str, str, float], None]]:
    """Show the stages of a command that works with models, whose libraries stay quiet; gives the report to tell."""
    from splora.quiet import quiet_libraries

    quiet_libraries()
    with StageProgress() as progress:
        yield progress.report
