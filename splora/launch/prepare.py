"""Before rows are launched: their folders are claimed, and what is finished or failed before is found out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from splora.errors import InputError
from splora.launch.work import Work
from splora.training.run import claim_folder, is_finished
from splora.training.state import FAILED, FINISHED, QUEUED, RunState, changed, initial, read_state, write_state

#: How the reason of a row begins that failed only because another one did.
NEEDS = "needs EXP ID"


@dataclass
class Sorted:
    """Rows by what is to be done with them; `states` has them all."""

    waiting: list[Work] = field(default_factory=list)
    finished: list[Work] = field(default_factory=list)
    #: Failed in an earlier command, and left alone by this one.
    left_alone: list[Work] = field(default_factory=list)
    states: dict[str, RunState] = field(default_factory=dict)


def prepare(works: Sequence[Work], force: bool, retry_failed: bool) -> Sorted:
    """Claim the folders of rows that are to run, and say so on disk.

    Args:
        force: run again what is finished or failed, except rows that are only needed.
        retry_failed: run again what failed, from its last checkpoint.

    Raises:
        InputError: folders that cannot be used, all of them at once; then nothing was written.
    """
    rows = Sorted()
    problems = []
    for work in works:
        try:
            done = is_finished(work.job.spec, work.folder, _again(work, force))
        except InputError as error:
            problems += error.problems
        else:
            (rows.finished if done else rows.waiting).append(work)
    if problems:
        raise InputError(problems)
    for work in rows.finished:
        before = read_state(work.folder)
        if before is None or before.state != FINISHED:
            # Killed between its result and the news of it, or run before there was such news.
            before = changed(before or initial(FINISHED, work.job.spec, work.command, folder=work.folder), FINISHED)
            write_state(work.folder, before)
        rows.states[work.name] = before
    for work in list(rows.waiting):
        before = read_state(work.folder)
        if before is not None and _stays_failed(before, _again(work, force) or retry_failed):
            rows.waiting.remove(work)
            rows.left_alone.append(work)
            rows.states[work.name] = before
        else:
            claim_folder(work.job.spec, work.folder, _again(work, force))
            rows.states[work.name] = initial(QUEUED, work.job.spec, work.command, folder=work.folder)
            write_state(work.folder, rows.states[work.name])
    return rows


def _again(work: Work, force: bool) -> bool:
    # A row that is only needed is not run again: --force speaks of the rows asked for.
    return force and not work.job.needed_by


def _stays_failed(before: RunState, retry: bool) -> bool:
    return before.state == FAILED and not retry and not (before.reason or "").startswith(NEEDS)
