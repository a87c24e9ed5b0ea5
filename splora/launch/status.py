"""``--status``: where every run of a folder stands, read from its `state.json`. Imports no torch."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

from splora.errors import InputError
from splora.files import inside
from splora.json_values import number, numbers, one_line, read_object, text
from splora.locks import DRIVER_LOCK, RUN_LOCK, is_alive, is_held
from splora.training.result_file import RESULT, read_result
from splora.training.run import SPECIFICATION
from splora.training.state import (
    FAILED,
    FINISHED,
    INTERRUPTED,
    QUEUED,
    RUNNING,
    STATE,
    RunState,
    now,
    read_state,
)

HEADINGS = ("EXP ID", "state", "step", "loss", "density", "time left", "")
#: Of `--status`, which also tells what finished runs serve.
_HEADINGS = (*HEADINGS[:5], "served", *HEADINGS[5:])
#: The state of a run whose result is damaged.
UNREADABLE = "unreadable"
_ORDER = (RUNNING, QUEUED, FINISHED, INTERRUPTED, FAILED, UNREADABLE)
#: A run on another machine without a sign of life for so long is taken for lost.
_LOST = timedelta(minutes=30)


def print_status(root: Path, sheet: str | None = None, method: str | None = None) -> None:
    """Print a line per run below `root`, and how many there are of each state.

    Args:
        sheet: only runs of this sheet.
        method: only runs that prune so.
    """
    chosen = [(folder, state) for folder, state in runs(root) if sheet in (None, state.sheet)]
    chosen = [(folder, state) for folder, state in chosen if method in (None, state.method)]
    if not chosen:
        print(f"{root}: no runs.")
        return
    lines = [
        _HEADINGS,
        *(_with_place(folder, state) for folder, state in sorted(chosen, key=lambda pair: _place(pair[1]))),
    ]
    widths = [max(len(line[column]) for line in lines) for column in range(len(_HEADINGS))]
    for line in lines:
        print("  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip())
    states = [state for _, state in chosen]
    waits = any(state.state == QUEUED for state in states) and not is_held(root / DRIVER_LOCK)
    hint = "; no command is at work on them now: the same command goes on" if waits else ""
    print(f"{counted(states)}{hint}.")


def runs(root: Path) -> Iterator[tuple[Path, RunState]]:
    """Folders of runs below `root` and their states, as they really are now."""
    for place, folders, files in os.walk(root):
        if SPECIFICATION not in files and STATE not in files:
            continue
        folders.clear()  # runs do not hold runs
        folder = Path(place)
        yield folder, now_true(folder, read_state(folder) or _of_specification(folder))


def now_true(folder: Path, state: RunState) -> RunState:
    """`state`, or what became of it since it was written by a process that could say no more."""
    if (folder / RESULT).exists():
        try:
            read_result(folder)
        except InputError as error:
            return replace(state, state=UNREADABLE, reason=" ".join(error.problems), seconds_left=None)
        return replace(state, state=FINISHED, reason=None)
    if state.state == RUNNING and not _lives(folder, state):
        return replace(state, state=INTERRUPTED, reason="its process is gone", seconds_left=None)
    return state


def served(folder: Path, state: RunState) -> str:
    """What a finished run serves: MACs and parameters that are left, and how many times as fast it is as dense."""
    if state.state != FINISHED:
        return ""
    try:
        result = read_result(folder)
    except InputError:
        return ""
    macs, parameters = number(result.get("macs_kept")), numbers(result.get("parameters"))
    times = numbers(result.get("latency_ms"))
    parts = [] if macs is None else [f"{100 * macs:.0f} % MACs"]
    if parameters.get("dense") and "kept" in parameters:
        parts.append(f"{100 * parameters['kept'] / parameters['dense']:.0f} % parameters")
    if times.get("dense") and times.get("pruned"):
        parts.append(f"{times['dense'] / times['pruned']:.2f} × as fast")
    return ", ".join(parts)


def cells(state: RunState) -> Sequence[str]:
    """A run's line, as `HEADINGS` name its columns."""
    step = "" if state.step is None else f"{state.step} of {state.steps}" if state.steps else str(state.step)
    loss = "" if state.loss is None else f"{state.loss:.4g}"
    density = "" if state.density is None else f"{100 * state.density:.1f} %"
    left = duration(state.seconds_left) if state.state == RUNNING and state.seconds_left is not None else ""
    return tuple(
        one_line(cell) for cell in (str(state.exp_id), state.state, step, loss, density, left, state.reason or "")
    )


def counted(states: Iterable[RunState]) -> str:
    """How many runs are in each state, as in ``2 running, 5 queued``."""
    names = [state.state for state in states]
    return ", ".join(f"{names.count(name)} {name}" for name in _ORDER if name in names)


def duration(seconds: float) -> str:
    """Seconds in words that a glance takes in: ``45 s``, ``12 min``, ``3 h 5 min``."""
    if seconds < 100:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 100 else f"{minutes // 60} h {minutes % 60} min"


def _lives(folder: Path, state: RunState) -> bool:
    if is_held(folder / RUN_LOCK):
        return True
    alive = is_alive(state.pid, state.host)
    if alive is not None:
        # The lock is free: whoever has that process id now is somebody else, where there are locks at all.
        return alive and not (folder / RUN_LOCK).exists()
    try:
        last = datetime.fromisoformat(state.heartbeat or state.since).astimezone()
        return datetime.fromisoformat(now()) - last < _LOST
    except (ValueError, OverflowError):
        return False


def _of_specification(folder: Path) -> RunState:
    """A run from before there were states, or whose state is damaged: all that is known is its row."""
    reason = "not finished"
    spec: dict[str, Any] = {}
    for file in (SPECIFICATION, STATE):
        try:
            content = read_object(folder / file) or {}
            spec = spec or content
            if file == STATE and (folder / STATE).exists():
                reason = f"{folder / STATE}: holds no state of a run"
        except ValueError as error:
            reason = f"{folder / file}: {error}"
    return RunState(
        state=INTERRUPTED,
        exp_id=text(spec.get("exp_id")) or folder.name,
        sheet=text(spec.get("sheet")),
        method=text(spec.get("pruning_method")),
        reason=reason,
    )


def _with_place(folder: Path, state: RunState) -> Sequence[str]:
    *values, left, reason = cells(state)
    values += [served(folder, state), left]
    path = inside(folder, state.log)
    log = f" (log: {one_line(str(path))})" if path is not None and state.state == FAILED else ""
    return *values, f"{reason}{log}" if reason else one_line(str(folder), 1000)


def _place(state: RunState) -> tuple[str, bool, int, str]:
    number = str(state.exp_id).isdecimal() and len(str(state.exp_id)) < 20
    return state.sheet, not number, int(state.exp_id) if number else 0, str(state.exp_id)
