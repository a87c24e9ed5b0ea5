"""The progress bar of a run: loss, density, λ and threshold in a terminal, plain lines elsewhere."""

from __future__ import annotations

import sys
import time
from typing import Any

from lightning import LightningModule, Trainer
from lightning.pytorch.callbacks import RichProgressBar


class RunProgressBar(RichProgressBar):
    """Lightning's Rich bar; where output is no terminal, a line now and then instead.

    Args:
        refresh_rate: batches between two updates.
        lines: plain lines over a whole run, besides those of evaluations.
        seconds: the least time between two plain lines of an evaluation, besides its first.
    """

    def __init__(self, refresh_rate: int = 1, lines: int = 10, seconds: float = 20.0) -> None:
        super().__init__(refresh_rate=refresh_rate)
        self._lines = lines
        self._told = -1
        self._seconds = seconds
        self._last_line = 0.0
        if not sys.stderr.isatty() and not sys.stdout.isatty():
            self.disable()

    def disable(self) -> None:
        """Draw no bar, print lines."""
        self._enabled = False

    @property
    def is_disabled(self) -> bool:
        """Whether lines are printed instead of a bar."""
        return not self._enabled

    def get_metrics(self, trainer: Trainer, pl_module: LightningModule) -> dict[str, Any]:
        """What the bar shows: all but the logger's version number."""
        shown: dict[str, Any] = super().get_metrics(trainer, pl_module)
        shown.pop("v_num", None)
        return shown

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Say where a resumed run goes on."""
        super().on_train_start(trainer, pl_module)
        if trainer.global_step and trainer.is_global_zero:
            print(f"going on from step {trainer.global_step} of {int(trainer.estimated_stepping_batches)}", flush=True)

    def on_validation_batch_start(self, trainer: Trainer, pl_module: LightningModule, *rest: Any) -> None:
        """Where there is no bar, say now and then how far the evaluation is."""
        super().on_validation_batch_start(trainer, pl_module, *rest)
        self._tell_evaluation(trainer, rest[1], trainer.num_val_batches)

    def on_test_batch_start(self, trainer: Trainer, pl_module: LightningModule, *rest: Any) -> None:
        """As for validation."""
        super().on_test_batch_start(trainer, pl_module, *rest)
        self._tell_evaluation(trainer, rest[1], trainer.num_test_batches)

    def on_predict_batch_start(self, trainer: Trainer, pl_module: LightningModule, *rest: Any) -> None:
        """As for validation."""
        super().on_predict_batch_start(trainer, pl_module, *rest)
        self._tell_evaluation(trainer, rest[1], trainer.num_predict_batches)

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Advance the bar, or print a line when the next tenth of the run is done."""
        super().on_train_batch_end(trainer, pl_module, outputs, batch, batch_idx)
        tenth = self._lines * trainer.global_step // max(1, int(trainer.estimated_stepping_batches))
        if self.is_disabled and tenth > self._told:
            self._told = tenth
            self.tell(trainer)

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Print the scores where there is no bar."""
        super().on_validation_end(trainer, pl_module)
        if self.is_disabled:
            self.tell(trainer)

    def _tell_evaluation(self, trainer: Trainer, batch: int, batches: Any) -> None:
        now = time.monotonic()
        if not self.is_disabled or not trainer.is_global_zero or (batch and now - self._last_line < self._seconds):
            return
        self._last_line = now
        after = f" after step {trainer.global_step}" if trainer.global_step else ""
        print(f"evaluation{after}: batch {batch + 1} of {sum(map(int, batches))}", flush=True)

    def tell(self, trainer: Trainer) -> None:
        """Print the step and the latest values."""
        if not trainer.is_global_zero or not trainer.training:
            return
        values = {name: float(value) for name, value in trainer.progress_bar_metrics.items()}
        told = "  ".join(f"{name} {value:.4g}" for name, value in values.items())
        print(f"step {trainer.global_step} of {int(trainer.estimated_stepping_batches)}  {told}", flush=True)
