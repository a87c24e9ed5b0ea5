"""Evaluations as judges of a run: it stops when they get no better, and keeps the weights of the best one.

While pruning is under way scores fall because weights go, and the best one would be the densest. So evaluations count
from where the schedule holds its final threshold.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

from lightning import Callback, LightningModule, Trainer
from lightning.pytorch.callbacks import EarlyStopping
from lightning.pytorch.trainer.states import TrainerFn

from splora.callbacks.sparsity_schedule import SparsitySchedule
from splora.errors import InputError
from splora.run_files import CHECKPOINTS
from splora.training.checkpoint_files import damage, previous
from splora.training.columns import DIVERGENCE
from splora.training.going_on import evaluate

#: The best weights, beside the checkpoint that a run goes on from.
BEST = f"{CHECKPOINTS}/best.ckpt"


def counts(trainer: Trainer, module: Any) -> bool:
    """Whether an evaluation is one of training, with nothing left to be pruned by the schedule."""
    if trainer.state.fn != TrainerFn.FITTING or trainer.sanity_checking:
        return False
    schedules = [callback for callback in trainer.callbacks if isinstance(callback, SparsitySchedule)]
    return all(schedule.is_over(trainer, module) for schedule in schedules)


def check_monitor(trainer: Trainer, module: Any, monitor: str) -> None:
    """Refuse to judge by scores that no evaluation while training gives.

    Raises:
        InputError: examples are held out and the score is of others, or the other way round.
    """
    data: Any = trainer.datamodule
    part, held_out = monitor.partition("/")[0], getattr(data, "held_out", 0)
    if part == "held" and held_out > 0:
        if not data.has_labels("held") and not less_is_better(monitor):
            raise InputError(f"monitor is {monitor!r}, but data.labelled is false: give held/{DIVERGENCE}.")
        if less_is_better(monitor) and module.distillation is None:
            raise InputError(f"monitor is {monitor!r}, but there is no teacher (model.distillation) to differ from.")
    wanted = "held" if held_out > 0 else "val"
    if part in ("held", "val") and part != wanted:
        raise InputError(
            f"monitor is {monitor!r}, but data.held_out is {held_out}: evaluations while training give {wanted}/… then."
        )


def less_is_better(monitor: str) -> bool:
    """Whether a score is a distance."""
    return monitor.rpartition("/")[2] == DIVERGENCE


class EarlyStop(EarlyStopping):
    """Ends training after `patience` evaluations without a better score.

    Args:
        monitor: name of the score, such as ``val/f1``; more is better, but of a divergence.
    """

    def __init__(self, monitor: str, patience: int) -> None:
        mode = "min" if less_is_better(monitor) else "max"
        super().__init__(monitor, patience=patience, mode=mode, check_on_train_epoch_end=False)

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Refuse a score that will not come."""
        check_monitor(trainer, pl_module, str(self.monitor))

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Judge, and say so where it was the last one."""
        if not counts(trainer, pl_module):
            return
        super().on_validation_end(trainer, pl_module)
        if trainer.should_stop and trainer.is_global_zero:
            told = f"{self.monitor} was {float(self.best_score):.2f} at best, {self.wait_count} evaluations ago"
            print(f"stopping early after step {trainer.global_step}: {told}", flush=True)


class BestWeights(Callback):
    """Keeps the weights of the best evaluation, and gives them back before the run is scored and saved.

    Args:
        monitor: name of the score, such as ``val/f1``; more is better, but of a divergence, and of equals the first is
            kept.
        counts_start: whether the model that training starts from is judged, too, and stays if nothing beats it; so are
            then the last weights. For scores on examples that are held out, which cost nothing of the evaluation data.
    """

    def __init__(self, monitor: str, counts_start: bool = False) -> None:
        self.monitor = monitor
        self.counts_start = counts_start
        self.best: float | None = None
        self.step: int | None = None
        #: Every score that counted, by its step.
        self.scores: dict[int, float] = {}

    def state_dict(self) -> dict[str, Any]:
        """The best score and its step."""
        return {"best": self.best, "step": self.step, "scores": dict(self.scores)}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on from an earlier start."""
        self.best, self.step = state_dict["best"], state_dict["step"]
        self.scores = dict(state_dict.get("scores", {}))

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Refuse a score that will not come."""
        check_monitor(trainer, pl_module, self.monitor)

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Judge the model as it comes."""
        if self.counts_start and trainer.global_step == 0 and counts(trainer, pl_module):
            evaluate(trainer, {"epoch": 0})

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Judge the last weights, if no evaluation fell on the last step."""
        if self.counts_start and trainer.global_step not in self.scores:
            evaluate(trainer, {"epoch": int(trainer.current_epoch)})

    def _judge_last(self, trainer: Trainer, module: Any) -> None:
        """Score the last weights on what was held out, outside of training."""
        data: Any = trainer.datamodule
        loggers, trainer.loggers = trainer.loggers, []
        with data.judging_held_out():
            trainer.validate(module, datamodule=data, verbose=False)
        trainer.loggers = loggers
        score = float(trainer.callback_metrics.get(self.monitor, float("nan")))
        self.scores[trainer.global_step] = score
        if self._beats(score):
            self.best, self.step = score, trainer.global_step

    def _beats(self, score: float) -> bool:
        """Whether a score, which may be no number, is better than the best so far."""
        if self.best is None:
            return score == score
        return score < self.best if less_is_better(self.monitor) else score > self.best

    def chosen(self) -> dict[str, Any]:
        """What the result says of the choice: score and step of the best, and all scores by step."""
        scores = {str(step): score for step, score in sorted(self.scores.items())}
        return {"monitor": self.monitor, "score": self.best, "step": self.step, "scores": scores}

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Save, if it is the best so far."""
        score = float(trainer.callback_metrics.get(self.monitor, float("nan")))
        if counts(trainer, pl_module):
            self.scores[trainer.global_step] = score
        if counts(trainer, pl_module) and self._beats(score):
            self.best, self.step = score, trainer.global_step
            trainer.save_checkpoint(Path(trainer.default_root_dir) / BEST, weights_only=True)

    def restore(self, trainer: Trainer, module: LightningModule) -> bool:
        """Put the best weights into the module; returns whether they are others than it has.

        Where their file is damaged, those of the best before it serve, or the run's last ones; a warning says so. A run
        that was killed after its last step goes on behind it: then its last weights are judged here.
        """
        if self.counts_start and trainer.global_step not in self.scores:
            self._judge_last(trainer, module)
        if self.step is None or self.step == trainer.global_step:
            return False
        last = Path(trainer.default_root_dir) / BEST
        path = None
        if trainer.is_global_zero:  # one process decides: others may see another state of a folder that they share
            path = next((path for path in (last, previous(last)) if path.is_file() and damage(path) is None), None)
        path = trainer.strategy.broadcast(path)
        if path != last and trainer.is_global_zero:
            kept = "the last weights are kept" if path is None else f"those of the best before it are kept ({path})"
            print(f"warning: {last}: is missing or damaged; {kept}", file=sys.stderr, flush=True)
        if path is None:
            return False
        state = trainer.strategy.checkpoint_io.load_checkpoint(path, weights_only=True)["state_dict"]
        module.load_state_dict(state, strict=False)  # what is frozen is not in it
        if trainer.is_global_zero and path == last:
            shape = ".4g" if less_is_better(self.monitor) else ".2f"
            told = f"was best after step {self.step}" if self.step else "was never better than at the start"
            print(f"{self.monitor} {told}: {self.best:{shape}}; these weights are kept", flush=True)
        return True
