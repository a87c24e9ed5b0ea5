"""The progress bar of a run: loss, density, λ and threshold in a terminal, plain lines elsewhere."""

from __future__ import annotations

import sys
from typing import Any

from lightning import LightningModule, Trainer
from lightning.pytorch.callbacks import RichProgressBar


class RunProgressBar(RichProgressBar):
    """Lightning's Rich bar; where output is no terminal, one line per validation instead.

    Args:
        refresh_rate: batches between two updates.
    """

    def __init__(self, refresh_rate: int = 1) -> None:
        super().__init__(refresh_rate=refresh_rate)
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

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Print the measured values where there is no bar."""
        super().on_validation_end(trainer, pl_module)
        if self.is_disabled and trainer.is_global_zero and trainer.training:
            values = {name: float(value) for name, value in trainer.progress_bar_metrics.items()}
            told = "  ".join(f"{name} {value:.4g}" for name, value in values.items())
            print(f"step {trainer.global_step} of {int(trainer.estimated_stepping_batches)}  {told}", flush=True)
