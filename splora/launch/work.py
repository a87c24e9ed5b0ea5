"""What launchers and the driver tell each other: a row to run, and a row that runs."""

from __future__ import annotations

import argparse
import shlex
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from splora.hparams.lineage import references
from splora.launch.plan import Job, is_shared
from splora.training.state import label

#: Exit status of a worker whose run was stopped, and of one that found the disk full: neither has failed.
STOPPED, FULL = 130, 75


@dataclass(frozen=True)
class Work:
    """A row to run in a process of its own."""

    job: Job
    #: EXP IDs of the rows that must be finished first.
    needs: tuple[str, ...] = ()
    #: What repeats the run, typed in the project's folder.
    command: str = ""
    trainer: dict[str, Any] = field(default_factory=dict)

    @property
    def name(self) -> str:
        """The row's EXP ID, and its seed where it runs with several."""
        return str(label(self.job.spec, self.folder))

    @property
    def folder(self) -> Path:
        """The run's folder."""
        return self.job.folder

    @property
    def is_one_process(self) -> bool:
        """Whether the row runs on one device, so that Lightning starts no other process for it."""
        several = self.trainer.get("devices", 1) != 1 or self.trainer.get("num_nodes", 1) != 1
        return not several and not self.trainer.get("strategy")


class Running(Protocol):
    """A row that a launcher has started."""

    def outcome(self) -> int | None:
        """Exit status of its process, negative for the signal that killed it; None while it runs."""

    def interrupt(self) -> None:
        """Ask it to write a checkpoint and stop."""

    def kill(self) -> None:
        """Stop it now."""


class Launcher(Protocol):
    """Starts rows in processes of their own, somewhere."""

    #: Rows that it takes at once.
    slots: int

    def start(self, work: Work) -> Running:
        """Start a row whose folder is claimed."""

    def close(self) -> None:
        """Give back what it holds."""


def works(jobs: Sequence[Job], options: argparse.Namespace) -> list[Work]:
    """The jobs with what they need, and the command that repeats each of them."""
    return [Work(job, job.needs, command(job, len(jobs), options), machine(options)) for job in jobs]


def machine(options: argparse.Namespace) -> dict[str, Any]:
    """Settings of Lightning's Trainer that are the machine's, not the row's."""
    names = ("devices", "num_nodes", "strategy", "accelerator")
    given = {name: getattr(options, name) for name in names}
    return {name: value for name, value in given.items() if value is not None}


def command(job: Job, count: int, options: argparse.Namespace) -> str:
    """The command that runs this row alone, in the project's folder.

    Args:
        count: rows of the sweep that it is part of.
    """
    words = ["python", "scripts/run_from_sheet.py"]
    for option, value in (("--workbook", options.workbook), ("--sheet", job.row.sheet if options.sheet else None)):
        words += [] if value is None else [option, str(value)]
    needs = references(job.row.spec)
    # Rows in folders of one --output-dir find what they build on there only when they are named together.
    # So do rows that build on the same seed of another one.
    apart = job.needs == tuple(needs) if job.seed is not None else not (options.output_dir and count > 1)
    together = [job.row.spec.exp_id] if apart else [*needs, job.row.spec.exp_id]
    words += ["--exp-id", *map(str, together)]
    words += [] if job.seed is None else ["--seeds", str(job.seed)]
    for option, name in (
        ("--model", "model"),
        ("--start", "start"),
        ("--train-file", "train_file"),
        ("--predict-file", "predict_file"),
    ):
        value = getattr(options, name, None)
        if value is not None and not (name == "start" and job.needed_by):
            words += [option, value]
    for setting in options.settings:
        if not job.needed_by or is_shared(setting.partition("=")[0].strip(), "--set"):
            words += ["--set", setting]
    if options.output_dir:
        shares = len(together) > 1 or job.seed is not None
        words += ["--output-dir", str(job.folder.parent if shares else job.folder)]
    for option, value in machine(options).items():
        words += [f"--{option.replace('_', '-')}", str(value)]
    return shlex.join(words)
