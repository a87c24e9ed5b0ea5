"""Finds runs below a folder and reads what they left, whatever state they are in and whichever version wrote them."""

from __future__ import annotations

import itertools
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from splora.errors import InputError
from splora.json_values import impossible, one_line, read_object, table, text
from splora.report.log import Log, read_log
from splora.report.read_pruned import is_post_training, read_pruned
from splora.report.read_run import RESULT, SPECIFICATION, read_run
from splora.report.runs import Collection, Pruned, Run
from splora.run_files import FOLDERS, METRICS
from splora.training.state import STATE

#: Method of a result that changed nothing: a model's score as it is.
EVALUATION = "evaluate"
#: Folders of a run that hold no other run.
_PARTS = {*FOLDERS, "lightning_logs"}
#: Points of all curves together, so that a report of many runs stays small, and of one curve at least and at most.
POINTS, FEWEST, MOST = 200_000, 60, 400


def collect(root: str | Path) -> Collection:
    """All runs below a folder, by sheet and EXP ID.

    Raises:
        InputError: there is no such folder, or no run is below it.
    """
    base = Path(root)
    if not base.is_dir():
        found = "is a file; give the folder that holds runs" if base.exists() else "there is no such folder"
        raise InputError(f"{root}: {found}.")
    notices: list[str] = []
    folders = sorted(_folders(base, notices))
    points = min(MOST, max(FEWEST, POINTS // (4 * max(1, len(folders)))))
    runs: list[Run] = []
    pruned: list[Pruned] = []
    for folder in folders:
        try:
            found_there = _read(folder, base, points, notices)
        except Exception as error:  # whatever else somebody may have written there keeps no other run from the report
            notices.append(f"{folder}: cannot be read ({one_line(f'{type(error).__name__}: {error}')}).")
            continue
        if isinstance(found_there, Run):
            runs.append(found_there)
        elif found_there is not None:
            pruned.append(found_there)
    if not runs and not pruned:
        told = f" ({'; '.join(notices)})" if notices else ""
        raise InputError(
            f"{root}: no run is below this folder; a run's folder holds {SPECIFICATION}, {STATE} or {RESULT}{told}."
        )
    runs.sort(key=lambda run: (run.sheet, len(run.label), run.label, run.name))
    return Collection(base, tuple(runs), tuple(pruned), tuple(notices))


def _folders(root: Path, notices: list[str]) -> Iterator[Path]:
    def unreadable(error: OSError) -> None:
        notices.append(f"{error.filename}: cannot be read ({error.strerror or error}).")

    for name, inner, files in os.walk(root, onerror=unreadable):
        is_run = bool({RESULT, SPECIFICATION, STATE} & {*files, *inner})
        # A sheet or a row may be called as a part of a run is.
        parts = _PARTS if is_run else set()
        inner[:] = [folder for folder in inner if folder not in parts and not folder.startswith(".")]
        if is_run:
            yield Path(name)


def _read(folder: Path, root: Path, points: int, notices: list[str]) -> Run | Pruned | None:
    contents: dict[str, dict[str, Any]] = {}
    broken = ""
    for file in (RESULT, SPECIFICATION, STATE):
        try:
            contents[file] = read_object(folder / file) or {}
            if strange := list(itertools.islice(impossible(contents[file]), 4)):
                more = ", …" if len(strange) > 3 else ""
                notices.append(f"{folder / file}: {', '.join(strange[:3])}{more}; such numbers are left out.")
        except ValueError as error:
            notices.append(f"{folder / file}: {error}; the rest of the run is shown.")
            contents[file] = {}
            broken = broken or file
    result, spec, state = contents[RESULT], contents[SPECIFICATION], contents[STATE]
    if result and not isinstance(result.get("method"), str):
        writer = text(table(result.get("versions")).get("splora"))
        named = f" of splora {writer}" if writer else ""
        notices.append(f"{folder / RESULT}: is not the result of a run{named}: it names no method.")
        if not spec and not state:
            return None
        result, broken = {}, RESULT
    if result.get("method") == EVALUATION:
        return None
    name = folder.relative_to(root).as_posix()
    if is_post_training(result.get("method")):
        return read_pruned(folder, folder.name if name == "." else name, result, notices)
    if broken and not result and not spec and not state and not (folder / METRICS).is_file():
        return None if broken != RESULT else Run(folder, name, folder.name, "unreadable", reason=f"{RESULT} is damaged")
    try:
        log = read_log(folder / METRICS, points)
    except OSError as error:
        notices.append(f"{folder / METRICS}: cannot be read ({error.strerror or error}).")
        log = Log({})
    if log.bad_lines:
        notices.append(f"{folder / METRICS}: {log.bad_lines} lines could not be read and are left out.")
    return read_run(folder, name, result, spec, state, log, broken == RESULT)
