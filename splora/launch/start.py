"""From options to rows that run: here, in processes of this machine, or on a Ray cluster."""

from __future__ import annotations

import argparse
import os
from collections.abc import Sequence
from pathlib import Path

from splora.errors import InputError
from splora.launch.plan import Job
from splora.launch.work import Launcher, Work, works
from splora.machine import is_first_process

LAUNCHERS = ("local", "ray")
DEFAULT_ROOT = "runs"


def start(jobs: Sequence[Job], options: argparse.Namespace) -> int:
    """Run the jobs as the options say; returns the exit status.

    Raises:
        InputError: the options, the machine, the cluster or a folder do not fit.
        Interrupted: somebody stopped a run of this process.
    """
    from splora.launch.driver import Driver, only_driver
    from splora.launch.here import run_here
    from splora.launch.progress import show

    check(options)
    planned = works(jobs, options)
    root = Path(options.output_dir or DEFAULT_ROOT)
    if options.jobs is None and options.launcher == "local":
        if not is_first_process():
            return run_here(planned, options.force)
        with only_driver(root, shared=True):
            return run_here(planned, options.force)
    if not is_first_process() or "LOCAL_RANK" in os.environ:
        raise InputError("--jobs and --launcher start processes of their own; give them without torchrun.")
    with only_driver(root):
        return Driver(planned, _launcher(planned, root, options), show()).run(options.force, options.retry_failed)


def check(options: argparse.Namespace) -> None:
    """Options that do not go together.

    Raises:
        InputError: all of them at once.
    """
    problems = []
    if options.launcher not in LAUNCHERS:
        problems.append(f"--launcher: is {options.launcher!r}; allowed are {', '.join(LAUNCHERS)}.")
    given = {
        "--address": (options.address, None),
        "--gpus-per-run": (options.gpus_per_run, 0),
        "--cpus-per-run": (options.cpus_per_run, 1),
    }
    for name, (value, least) in given.items():
        if value is not None and options.launcher == "local":
            problems.append(f"{name}: needs --launcher ray.")
        elif isinstance(value, int | float) and least is not None and value < least:
            problems.append(f"{name}: is {value}; at least {least} is needed.")
    if problems:
        raise InputError(problems)


def _launcher(planned: Sequence[Work], root: Path, options: argparse.Namespace) -> Launcher:
    if options.launcher == "ray":
        from splora.launch.ray_launcher import RayLauncher

        return RayLauncher(
            root,
            address=options.address,
            gpus=options.gpus_per_run,
            cpus=options.cpus_per_run,
            jobs=options.jobs,
        )
    from splora.launch.devices import slots
    from splora.launch.local import LocalLauncher

    return LocalLauncher(slots(options.jobs, len(planned), options.devices or 1, options.accelerator))
