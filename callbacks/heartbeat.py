"""Tells how far a run is: its `state.json` gets step, loss, density and the time left, every few seconds."""

from __future__ import annotations

import math
import time
from typing import Any

from lightning import Callback, LightningModule, Trainer

from splora.training.state import StateKeeper


class Heartbeat(Callback):
    """Writes signs of life of a run while it trains and while it is evaluated.

    Args:
        keeper: the run's state.
        seconds: the least time between two signs.
    """

    def __init__(self, keeper: StateKeeper, seconds: float = 5.0) -> None:
        self._keeper = keeper
        self._seconds = seconds
        self._last = -math.inf
        self._first_step = 0
        #: Seconds spent on training steps since the first one of this process.
        self._trained = 0.0
        self._step_started = 0.0

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """The number of steps is known now."""
        self._first_step = trainer.global_step
        self._beat(trainer)

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        """Start the clock of a batch; evaluations are not counted."""
        self._step_started = time.monotonic()

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Tell how far training is, if it is time."""
        self._trained += time.monotonic() - self._step_started
        if self._is_time():
            self._beat(trainer)

    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Say that no training is to be expected for a while."""
        self._beat(trainer, "evaluating")

    def on_validation_batch_end(self, trainer: Trainer, *rest: Any) -> None:
        """Tell how far a long evaluation is, if it is time."""
        if self._is_time():
            _, _, _, number, *_ = rest  # module, outputs, batch, its number
            self._beat(trainer, f"evaluating, batch {number + 1} of {sum(map(int, trainer.num_val_batches))}")

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Training goes on."""
        self._beat(trainer)

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Tell the last step."""
        self._beat(trainer)

    def _is_time(self) -> bool:
        return time.monotonic() - self._last >= self._seconds

    def _beat(self, trainer: Trainer, doing: str | None = None) -> None:
        if not trainer.is_global_zero:
            return
        self._last = time.monotonic()
        step, steps = trainer.global_step, int(trainer.estimated_stepping_batches)
        done = step - self._first_step
        values = {name: _finite(trainer.callback_metrics.get(name)) for name in ("loss", "density")}
        told = {name: value for name, value in values.items() if value is not None}
        left = round(self._trained / done * (steps - step), 1) if done else None
        self._keeper.beat(step=step, steps=steps, seconds_left=left, reason=doing, **told)


def _finite(value: Any) -> float | None:
    number = math.nan if value is None else float(value)
    return number if math.isfinite(number) else None
