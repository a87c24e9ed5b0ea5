"""The progress bar of a run: loss, density, λ and threshold in a terminal, plain lines elsewhere."""

from __future__ import annotations

import sys
from typing import Any

from lightning import LightningModule, Trainer
from lightning.pytorch.callbacks import RichProgressBar


class RunProgressBar(RichProgressBar):
    """Lightning's Rich bar; where output is no terminal, a line now and then instead.

    Args:
        refresh_rate: batches between two updates.
        lines: plain lines over a whole run, besides one per validation.
    """

    def __init__(self, refresh_rate: int = 1, lines: int = 10) -> None:
        super().__init__(refresh_rate=refresh_rate)
        self._lines = lines
        self._told = -1
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

    def tell(self, trainer: Trainer) -> None:
        """Print the step and the latest values."""
        if not trainer.is_global_zero or not trainer.training:
            return
        values = {name: float(value) for name, value in trainer.progress_bar_metrics.items()}
        told = "  ".join(f"{name} {value:.4g}" for name, value in values.items())
        print(f"step {trainer.global_step} of {int(trainer.estimated_stepping_batches)}  {told}", flush=True)
