"""Moves the threshold v and the penalty's weight λ along the cubic schedule."""

from __future__ import annotations

from typing import Any

from lightning import Callback, LightningModule, Trainer

from splora.errors import InputError
from splora.masks import lambda_at, threshold_at
from splora.training.configuration import SCHEDULE
from splora.training.options import model_columns
from splora.training.specification import RunSpecification, check, scale_steps


class SparsitySchedule(Callback):
    """Sets v and λ before every training batch and every evaluation, and logs both (DESIGN, schedule).

    The unit of both warm-ups is the run's `warmup_steps`, which the module's optimizer options hold.

    Args:
        initial_threshold: v at the start.
        final_threshold: v at the end.
        initial_warmup: v stays initial for so many times warmup_steps.
        final_warmup: v stays final for so many times warmup_steps at the end.
        final_lambda: λ at the end; before, ``λ(t) = final_lambda · v(t) / final_threshold``.
    """

    def __init__(
        self,
        initial_threshold: float = 1.0,
        final_threshold: float = 1.0,
        initial_warmup: float = 1.0,
        final_warmup: float = 1.0,
        final_lambda: float = 0.0,
    ) -> None:
        self.initial_threshold = initial_threshold
        self.final_threshold = final_threshold
        self.initial_warmup = initial_warmup
        self.final_warmup = final_warmup
        self.final_lambda = final_lambda

    def on_fit_start(self, trainer: Trainer, pl_module: Any) -> None:
        """Refuse a schedule that the method or the run's length does not allow; now all numbers are known.

        Raises:
            InputError: a threshold outside its range, or warm-ups longer than the run.
        """
        from splora.callbacks.best_score import BestWeights, EarlyStop  # which ask this schedule when to judge

        patience = [callback.patience for callback in trainer.callbacks if isinstance(callback, EarlyStop)]
        columns = model_columns(pl_module.settings()) | {name: getattr(self, name) for name in SCHEDULE}
        columns["early_stopping"] = patience[0] if patience else None
        columns["best_checkpoint"] = any(isinstance(callback, BestWeights) for callback in trainer.callbacks)
        spec = RunSpecification(**columns)
        problems = check(spec, int(trainer.estimated_stepping_batches))
        if problems:
            raise InputError(f"{problem.field} {problem.message}." for problem in problems)

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        """Set v and λ of this step."""
        threshold, weight = self._apply(trainer, pl_module)
        pl_module.log("threshold", threshold, prog_bar=True)
        pl_module.log("lambda", weight, prog_bar=True)

    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """An evaluation in the middle of training sees the masks that training has reached."""
        if trainer.training or trainer.fit_loop.epoch_loop.global_step > 0:
            self._apply(trainer, pl_module)

    def is_over(self, trainer: Trainer, pl_module: Any) -> bool:
        """Whether v has reached the stretch at the end where it stays final."""
        total, options = int(trainer.estimated_stepping_batches), pl_module.optimizer_options
        warmup = scale_steps(options.warmup_steps, options.schedule_total_steps, total)
        return bool(trainer.global_step >= total - self.final_warmup * warmup)

    def _apply(self, trainer: Trainer, pl_module: Any) -> tuple[float, float]:
        total = int(trainer.estimated_stepping_batches)
        options = pl_module.optimizer_options
        threshold = threshold_at(
            trainer.global_step,
            total,
            self.initial_threshold,
            self.final_threshold,
            scale_steps(options.warmup_steps, options.schedule_total_steps, total),
            self.initial_warmup,
            self.final_warmup,
        )
        weight = lambda_at(threshold, self.final_threshold, self.final_lambda)
        pl_module.set_threshold(threshold)
        if self.is_over(trainer, pl_module):
            pl_module.end_of_schedule()
        pl_module.penalty_weight = weight
        return threshold, weight
