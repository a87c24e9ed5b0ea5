"""Ctrl-C once: the run finishes its step, writes a checkpoint and stops. Twice: it stops now."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any

from lightning import Callback, LightningModule, Trainer
from lightning.pytorch.plugins.environments import SLURMEnvironment

from splora.errors import Interrupted
from splora.machine import is_first_process
from splora.training.checkpoint_files import CHECKPOINT


class GracefulStop(Callback):
    """Stops a run at the end of an optimizer step, where its checkpoint loses nothing.

    An evaluation under way ends first: half of it cannot be kept. Before training there is nothing to lose, and the
    run stops at once.

    Under SLURM the signal that the time is nearly up (SIGUSR1) means the same, and that the job is to be queued again.
    Lightning's own answer writes its checkpoint wherever the program happens to be, within a step if need be.

    Args:
        every: steps between two agreements of several processes on whether to stop; each costs a message.
    """

    def __init__(self, every: int = 10) -> None:
        self._every = every
        self._asked = False
        self._trains = False
        self._requeues = False
        self._saved = False
        self._step = 0

    @contextmanager
    def listening(self) -> Iterator[None]:
        """SIGINT and SIGTERM mean this run's stop while the block runs (in a main thread; elsewhere nothing can)."""
        kinds = (signal.SIGINT, signal.SIGTERM)
        try:
            before = {kind: signal.signal(kind, self.ask) for kind in kinds}
        except ValueError:
            before = {}
        try:
            yield
        finally:
            for kind, handler in before.items():
                signal.signal(kind, handler)

    def ask(self, kind: int, frame: FrameType | None) -> None:
        """A signal has come.

        Raises:
            Interrupted: it is the second one, or there is nothing to wait for.
        """
        if self._asked or not self._trains:
            raise Interrupted("stopped by the user")
        self._asked = True
        if is_first_process():
            told = "stopping after this step, with a checkpoint; once more stops now"
            print(told, file=sys.stderr, flush=True)

    def requeue(self, kind: int, frame: FrameType | None) -> None:
        """SLURM's time is nearly up."""
        self._asked = self._requeues = True

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """From here on there is something to save."""
        self._trains = True
        if signal.getsignal(signal.SIGINT) != self.ask:
            return
        if SLURMEnvironment.detect():
            signal.signal(signal.SIGUSR1, self.requeue)
        else:
            # Lightning's own answer to SIGTERM throws the last steps away; SLURM sends one before it kills.
            signal.signal(signal.SIGTERM, self.ask)

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        """Remember the step: with gradients accumulated over batches, not every batch ends one."""
        self._stop_if_saved()
        self._step = trainer.global_step

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Save, if somebody asked; what is to be logged of this step is logged before the run stops."""
        if trainer.global_step == self._step or not self._is_asked(trainer):
            return
        trainer.save_checkpoint(Path(trainer.default_root_dir) / CHECKPOINT)
        self._saved = True
        if self._requeues and trainer.is_global_zero:
            _queue_again()

    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """An epoch's last step was saved."""
        self._stop_if_saved()

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """An epoch's last step was saved, and nothing is evaluated after it."""
        self._stop_if_saved()

    def _stop_if_saved(self) -> None:
        """Stop.

        Raises:
            Interrupted: the run is saved.
        """
        if self._saved:
            told = "SLURM's time was up; the job is queued again" if self._requeues else "stopped by the user"
            raise Interrupted(told)

    def _is_asked(self, trainer: Trainer) -> bool:
        if trainer.world_size == 1:
            return self._asked
        if trainer.global_step % self._every:
            return False
        return bool(trainer.strategy.reduce_boolean_decision(self._asked, all=False))


def _queue_again() -> None:
    """Ask SLURM to start this job, or this task of its array, anew."""
    array = os.environ.get("SLURM_ARRAY_JOB_ID")
    job = os.environ["SLURM_JOB_ID"] if array is None else f"{array}_{os.environ['SLURM_ARRAY_TASK_ID']}"
    try:
        subprocess.run(["scontrol", "requeue", job], check=True)
    except (OSError, subprocess.SubprocessError) as error:
        print(f"warning: job {job} could not be queued again ({error}).", file=sys.stderr, flush=True)
