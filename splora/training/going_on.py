"""What comes after a checkpoint at the end of a step, and would be lost to a kill between them: a row, an evaluation.

Lightning writes the checkpoint of a step first, then logs the step, then evaluates where that is due; and a run that
goes on from the checkpoint does neither any more. So the checkpoint says what is still to come.
"""

from __future__ import annotations

from typing import Any

from lightning import Trainer

from splora.training.csv_logger import ResumableCSVLogger

#: Key of a checkpoint.
STILL_TO_COME = "splora_still_to_come"


def still_to_come(trainer: Trainer) -> dict[str, Any] | None:
    """What follows the step that is just ending; None: no step is.

    That is `step` and `epoch`, their numbers; `row`, what will be logged of the step (None: nothing); `evaluation`,
    whether one is due.
    """
    loop, connector = trainer.fit_loop, trainer._logger_connector
    if not trainer.training or connector._first_loop_iter is None:
        return None
    steps = loop.epoch_loop
    row: dict[str, float] = {}
    if connector.should_update_logs and not loop._should_accumulate():
        row = {name: float(value) for name, value in connector.metrics["log"].items()}
    return {
        "step": int(steps._batches_that_stepped),
        "epoch": int(trainer.current_epoch),
        "row": {**row, "epoch": float(trainer.current_epoch)} if row else None,
        "evaluation": loop._data_fetcher is not None and steps._should_check_val_fx(loop._data_fetcher),
    }


def log_row(trainer: Trainer, coming: dict[str, Any]) -> None:
    """Let `metrics.csv` go on from the checkpoint's step."""
    for logger in trainer.loggers:
        if isinstance(logger, ResumableCSVLogger):
            logger.go_on(coming["step"], coming["row"])


def evaluate(trainer: Trainer, coming: dict[str, Any]) -> None:
    """The evaluation that was due, as the loop of its epoch would have run it."""
    loop = trainer.fit_loop
    progress = loop.epoch_progress.current
    epoch, progress.completed = progress.completed, coming["epoch"]  # a run that goes on may be in the next one already
    trainer.validating = True
    try:
        loop.epoch_loop.val_loop.run()
    finally:
        progress.completed = epoch
    trainer.training = True
