"""`state.json` of a run: where it stands and since when, for people who look at many runs. Imports no torch.

Whoever is responsible for a run writes it: the launcher while the run waits, the run's own first process while it
trains, and the launcher again where that process ended without a word.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Callable
from contextlib import suppress
from dataclasses import asdict, dataclass, fields, replace
from datetime import datetime
from pathlib import Path
from typing import Any

from splora.errors import InputError
from splora.files import write_json
from splora.json_values import number, read_object, text, whole
from splora.run_files import LOG as LOG
from splora.run_files import STATE as STATE
from splora.training.seeds import seed_folder
from splora.training.specification import RunSpecification

QUEUED, RUNNING, FINISHED, FAILED, INTERRUPTED = "queued", "running", "finished", "failed", "interrupted"
STATES = (QUEUED, RUNNING, FINISHED, FAILED, INTERRUPTED)


@dataclass(frozen=True)
class RunState:
    """Where a run stands. Times are ISO 8601 with their zone; `log` is relative to the run's folder."""

    state: str
    exp_id: int | str = ""
    sheet: str = ""
    method: str = ""
    since: str = ""
    heartbeat: str | None = None
    step: int | None = None
    steps: int | None = None
    loss: float | None = None
    #: Fraction of the masked weights that is kept.
    density: float | None = None
    seconds_left: float | None = None
    #: Why it ended so; of a running one, what it does besides training.
    reason: str | None = None
    log: str | None = None
    pid: int | None = None
    host: str | None = None
    #: What repeats the run, typed in the project's folder.
    command: str = ""


#: How a value of each of the types above is read from JSON.
_READERS: dict[str, Callable[[object], Any]] = {
    "str": text,
    "str | None": lambda value: text(value) or None,
    "int | str": lambda value: value if isinstance(value, int) and not isinstance(value, bool) else text(value),
    "int | None": whole,
    "float | None": number,
}


def now() -> str:
    """This moment, to the second."""
    return datetime.now().astimezone().isoformat(timespec="seconds")


def label(spec: RunSpecification, folder: Path) -> int | str:
    """What a run is called: its EXP ID, or of several seeds of a row its folder's name."""
    return folder.name if folder.name.endswith(seed_folder("", spec.seed)) else spec.exp_id


def initial(
    state: str, spec: RunSpecification, command: str = "", log: str | None = None, folder: Path | None = None
) -> RunState:
    """The state of a run that this process answers for, from now on."""
    return RunState(
        state=state,
        exp_id=spec.exp_id if folder is None else label(spec, folder),
        sheet=spec.sheet,
        method=spec.pruning_method,
        since=now(),
        log=log,
        pid=os.getpid(),
        host=socket.gethostname(),
        command=command,
    )


def changed(before: RunState, state: str, reason: str | None = None) -> RunState:
    """`before`, in another state since now; how far it got is kept."""
    return replace(before, state=state, since=now(), reason=reason, seconds_left=None)


def read_state(folder: Path) -> RunState | None:
    """The state in a run's folder; None where there is none, or none that can be read.

    Values of other types than theirs, as a later version or another hand may have written, are left out.
    """
    try:
        found = read_object(folder / STATE) or {}
    except ValueError:
        return None
    if found.get("state") not in STATES:
        return None
    values = {field.name: _READERS[str(field.type)](found.get(field.name)) for field in fields(RunState)}
    return RunState(**values)


def write_state(folder: Path, state: RunState) -> bool:
    """Write it beside and rename; returns whether it could be written.

    A state is news about a run, not its result: a full disk must not end a run because its news cannot be told.
    """
    with suppress(InputError, OSError):
        write_json(folder / STATE, asdict(state))
        return True
    return False


class StateKeeper:
    """The state of one run as its own process knows it: told of progress, it keeps the file up to date."""

    def __init__(self, folder: Path, state: RunState) -> None:
        self.folder = folder
        self.state = state
        write_state(folder, state)

    def beat(self, **progress: Any) -> None:
        """A sign of life, with what changed of step, steps, loss, density and seconds_left."""
        self.state = replace(self.state, heartbeat=now(), **progress)
        write_state(self.folder, self.state)

    def end(self, state: str, reason: str | None = None) -> None:
        """The run is over, one way or another."""
        self.state = changed(self.state, state, reason)
        write_state(self.folder, self.state)
