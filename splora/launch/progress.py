"""What a driver shows: a line per run that moves in a terminal, plain lines now and then elsewhere."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from contextlib import suppress
from types import TracebackType
from typing import Any

from splora.launch.status import HEADINGS, cells, counted
from splora.training.state import FINISHED, QUEUED, RUNNING, RunState

#: Lines that are left free of the terminal's height, for what is told above the table.
_FREE = 6


class Show:
    """Tells of events and progress in plain lines; a context manager.

    Args:
        lines: lines of progress over a whole run.
    """

    def __init__(self, lines: int = 10) -> None:
        self._lines = lines
        self._told: dict[str, int] = {}

    def __enter__(self) -> Show:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Nothing is left to do."""

    def tell(self, line: str) -> None:
        """Print an event; runs go on when nobody reads it any more (``| head``, a terminal that is gone)."""
        with suppress(OSError):
            print(line, flush=True)

    def update(self, states: Sequence[RunState]) -> None:
        """Print a line for each run that has come a tenth further."""
        for state in states:
            if state.state != RUNNING or not state.step or not state.steps:
                continue
            tenth = self._lines * state.step // state.steps
            if tenth > self._told.get(str(state.exp_id), 0):
                self._told[str(state.exp_id)] = tenth
                names = ("step", "loss", "density", "left")
                shown = "  ".join(f"{name} {cell}" for name, cell in zip(names, cells(state)[2:6], strict=True) if cell)
                self.tell(f"EXP ID {state.exp_id}: {shown}")


class Board(Show):
    """A table in a terminal, a line per run; where not all fit, finished and queued ones are only counted."""

    def __init__(self) -> None:
        super().__init__()
        self._live: Any = None

    def __enter__(self) -> Board:
        from rich.live import Live

        self._live = Live(refresh_per_second=2, transient=True)
        self._live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Take the table away; the lines told stay."""
        self._live.stop()
        self._live = None

    def tell(self, line: str) -> None:
        """Print an event above the table."""
        if self._live is None:
            print(line, flush=True)
        else:
            self._live.console.print(line, markup=False, highlight=False, soft_wrap=True)

    def update(self, states: Sequence[RunState]) -> None:
        """Draw the table anew."""
        from rich.table import Table

        table = Table(*HEADINGS, box=None, pad_edge=False)
        room = self._live.console.height - _FREE
        shown = list(states)
        if len(shown) > room:
            shown = [state for state in states if state.state not in (QUEUED, FINISHED)][: max(1, room)]
        for state in shown:
            table.add_row(*cells(state))
        table.caption = counted(states)
        self._live.update(table)


def show() -> Show:
    """The one that fits where output goes."""
    return Board() if sys.stdout.isatty() else Show()
