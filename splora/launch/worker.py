"""The process of one row that a launcher starts: ``python -m splora.launch.worker FOLDER``.

It runs what the folder's ``spec.json`` says, so that a workbook edited during a long sweep changes nothing of it.
"""

from __future__ import annotations

import argparse
import ctypes
import json
import os
import signal
import sys
import threading
import time
import traceback
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from splora.errors import EXIT_CODE, DiskFull, InputError, Interrupted
from splora.files import is_full
from splora.json_values import read_object
from splora.launch.run_row import alone, summary, train
from splora.launch.work import FULL, STOPPED
from splora.machine import is_first_process, wait_passively
from splora.training.checkpoint_files import is_begun
from splora.training.result_file import RESULT, read_result
from splora.training.run import SPECIFICATION
from splora.training.specification import RunSpecification
from splora.training.state import LOG, label

_PR_SET_PDEATHSIG = 1


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the row; returns the exit status.

    That is 0, 2 for what the user got wrong, 130 for stopped, 75 for a full disk, and 1 for what nobody foresaw.
    """
    wait_passively()
    parser = argparse.ArgumentParser(prog="worker", description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--trainer", type=json.loads, default={}, help="settings of the Trainer, as JSON")
    parser.add_argument("--command", default="", help="what repeats the run")
    parser.add_argument("--parent", type=int, help="end when this process does")
    parser.add_argument("--threads", type=int, help="threads of the CPU")
    options = parser.parse_args(arguments)
    try:
        return _guarded(options)
    except Exception as error:
        with suppress(OSError):  # the disk of the log may be what is full
            traceback.print_exc()
        return FULL if is_full(error) else 1


def _guarded(options: argparse.Namespace) -> int:
    # Ray's tasks run with SIGINT blocked, and processes inherit that.
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT, signal.SIGTERM})
    if options.parent is not None:
        # The other processes of a run over several devices are children of its first.
        die_with(options.parent if is_first_process() else os.getppid())
    try:
        return _run(options)
    except (Interrupted, KeyboardInterrupt):
        print("stopped; the same command goes on from the last checkpoint", flush=True)
        return STOPPED
    except InputError as error:
        for problem in error.problems:
            print(f"error: {problem}", file=sys.stderr)
        return FULL if isinstance(error, DiskFull) else EXIT_CODE


def _run(options: argparse.Namespace) -> int:
    folder: Path = options.folder
    spec = _specification(folder / SPECIFICATION)
    name = label(spec, folder)
    with alone(folder):
        if (folder / RESULT).is_file():  # by a process that ended since this one was started
            return 0
        begun = "going on from the last checkpoint" if is_begun(folder) else "starting"
        print(f"EXP ID {name}: {begun}", flush=True)
        if options.threads is not None:
            import torch

            torch.set_num_threads(options.threads)
        train(spec, folder, options.trainer, options.command, LOG)
    print(f"EXP ID {name}: {summary(read_result(folder))}", flush=True)
    return 0


def _specification(path: Path) -> RunSpecification:
    """The row, as the driver has just written it.

    Raises:
        InputError: it is gone or empty, or something else has become of it since.
    """
    try:
        content = read_object(path)
        if not content:  # the defaults are some row, but not this one
            raise InputError(f"{path}: {'is missing' if content is None else 'is empty'}; it says what the run is.")
        return RunSpecification(**content)
    except InputError:
        raise
    except (ValueError, TypeError) as error:
        raise InputError(f"{path}: is not the specification of a run ({error}).") from error


def die_with(parent: int) -> None:
    """End this process, without delay, when its parent ends: the next command must find no run still going on."""
    if sys.platform == "linux":
        ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    else:
        threading.Thread(target=_watch, args=(parent,), daemon=True).start()
    if os.getppid() != parent:  # it ended before the system was asked
        os.kill(os.getpid(), signal.SIGKILL)


def _watch(parent: int) -> None:
    while os.getppid() == parent:
        time.sleep(1.0)
    os.kill(os.getpid(), signal.SIGKILL)


if __name__ == "__main__":
    sys.exit(main())
