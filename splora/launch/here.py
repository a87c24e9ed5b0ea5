"""Rows one after the other in this very process: the plain command, and every process of ``torchrun`` or SLURM."""

from __future__ import annotations

import sys
import traceback
from collections.abc import Sequence

from splora.errors import DiskFull, InputError
from splora.launch import run_row
from splora.launch.work import Work
from splora.machine import is_first_process


def run_here(works: Sequence[Work], force: bool) -> int:
    """Run every row; returns the exit status: 1 where one of several failed.

    Of several rows a failed one stops no other, except those that build on it, and a full disk stops all. With
    several processes it stops all: they could not agree on going on.

    Raises:
        InputError: the only row cannot run.
        Interrupted: somebody stopped it.
    """
    failed: dict[str, str] = {}
    for work in works:
        broken = next((name for name in work.needs if name in failed), None)
        if broken is not None:
            failed[work.name] = f"needs EXP ID {broken}, which failed"
            continue
        try:
            # A row that is only needed is not run again: --force speaks of the rows asked for.
            run_row.run(work.job.spec, work.folder, force and not work.job.needed_by, work.trainer, work.command)
        except DiskFull:
            raise
        except Exception as error:
            if len(works) == 1 or not _is_alone(work):
                raise
            if not isinstance(error, InputError):
                traceback.print_exc()
            failed[work.name] = run_row.reason_of(error)
            print(f"error: EXP ID {work.name}: {failed[work.name]}", file=sys.stderr, flush=True)
    if len(works) > 1 and is_first_process():
        for name, reason in failed.items():
            print(f"EXP ID {name} failed: {reason}")
        print(f"{len(works)} rows: {len(works) - len(failed)} finished, {len(failed)} failed.", flush=True)
    return int(bool(failed))


def _is_alone(work: Work) -> bool:
    return is_first_process() and work.is_one_process
