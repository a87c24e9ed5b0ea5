"""Sweeps of tiny runs, and workers that only pretend to train."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from argparse import Namespace
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from splora.files import write_json
from splora.hparams.rows import Row
from splora.launch.plan import Job
from splora.launch.work import Work
from splora.training.specification import RunSpecification
from tests.forks import Program

#: Makes a row of the Demo sheet a run of seconds; 1 needs none, the others start from it.
SHORT = {
    "max_train_examples": 400,
    "per_gpu_train_batch_size": 4,
    "warmup_steps": 1,
    "checkpoint_every_n_steps": 10,
}
RESULT: dict[str, Any] = {
    "metrics": {"f1": 70.0},
    "remaining_weights_percent": 50.0,
    "learned_weights_percent": 2.0,
    "adapter_bytes": 10,
    "seconds": 1.0,
}


class Pretended:
    """A run that ends as it is told to: with an exit status, after so many looks."""

    def __init__(self, folder: Path, status: int, looks: int) -> None:
        self.folder, self.status, self.looks = folder, status, looks
        self.signals: list[str] = []

    def outcome(self) -> int | None:
        """The status, when it was looked at often enough."""
        self.looks -= 1
        if self.looks > 0:
            return None
        if self.status == 0:
            write_json(self.folder / "result.json", RESULT)
        return self.status

    def interrupt(self) -> None:
        """Stop at the next look, as a worker with a checkpoint does."""
        self.signals.append("interrupt")
        self.status, self.looks = 130, 1

    def kill(self) -> None:
        """Stop at the next look, as killed."""
        self.signals.append("kill")
        self.status, self.looks = -9, 1


class PretendedLauncher:
    """Runs that end with the statuses given by EXP ID, else with 0."""

    def __init__(self, slots: int = 2, looks: int = 2, **statuses: int) -> None:
        self.slots, self.looks = slots, looks
        self.statuses = statuses
        self.started: list[str] = []
        self.runs: list[Pretended] = []
        self.at_once = 0

    def start(self, work: Work) -> Pretended:
        """Start it."""
        self.started.append(work.name)
        self.runs.append(Pretended(work.folder, self.statuses.get(f"row{work.name}", 0), self.looks))
        self.at_once = max(self.at_once, sum(run.looks > 0 for run in self.runs))
        return self.runs[-1]

    def close(self) -> None:
        """Nothing is held."""


@pytest.fixture
def work(tmp_path: Path) -> Callable[..., Work]:
    """Makes a row to launch, by its EXP ID and those it needs."""

    def make(number: int, *needs: int, needed_by: str = "") -> Work:
        spec = RunSpecification(exp_id=number, sheet="Tiny", model=f"row {number}")
        job = Job(
            Row(path="", sheet="Tiny", number=number, spec=spec, cells={}),
            spec,
            tmp_path / "runs" / str(number),
            needed_by,
        )
        return Work(job, tuple(map(str, needs)), f"again {number}")

    return make


@pytest.fixture
def pretended() -> type[PretendedLauncher]:
    """The launcher above."""
    return PretendedLauncher


@pytest.fixture
def sweep(root: Path, tmp_path: Path) -> SimpleNamespace:
    """Starts the command in a folder of its own, on rows of the Demo sheet made short; tells what it left."""

    def command(*arguments: str, steps: int = 20) -> list[str]:
        changes = [f"--set={name}={value}" for name, value in (SHORT | {"max_steps": steps}).items()]
        settings = [word for change in changes for word in change.split("=", 1)]
        return [sys.executable, str(root / "scripts" / "run_from_sheet.py"), *arguments, *settings]

    def start(*arguments: str, steps: int = 20) -> subprocess.Popen[str]:
        # Ray has threads and processes of its own, which want a process that was started anew.
        kind = subprocess.Popen if "ray" in arguments else Program
        return kind(
            command(*arguments, steps=steps),
            cwd=tmp_path,
            env={**os.environ, "OMP_NUM_THREADS": "1"},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )

    def finish(*arguments: str, steps: int = 20) -> SimpleNamespace:
        process = start(*arguments, steps=steps)
        output, _ = process.communicate(timeout=300)
        lines = output.splitlines()
        told = next((at for at, line in enumerate(lines) if not line.startswith(("plan: ", "  "))), len(lines))
        return SimpleNamespace(status=process.returncode, plan=lines[:told], lines=lines[told:])

    def state(number: int) -> dict[str, Any]:
        return dict(json.loads((tmp_path / "runs" / "Demo" / str(number) / "state.json").read_text(encoding="utf-8")))

    return SimpleNamespace(
        command=command, start=start, finish=finish, state=state, folder=tmp_path / "runs" / "Demo", place=tmp_path
    )


@pytest.fixture
def options() -> Namespace:
    """What the command line gives where nothing is said."""
    row = ("workbook", "sheet", "model", "train_file", "predict_file", "output_dir")
    machine = ("devices", "num_nodes", "strategy", "accelerator")
    return Namespace(**dict.fromkeys(row + machine), settings=[], force=False, retry_failed=False)
