"""One result, one file: `result.json` with the saved adapter or model and the files of the last evaluation."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import torch
from lightning import Callback, LightningModule, Trainer

from splora.callbacks.best_score import BestWeights
from splora.files import write_json
from splora.machine import peak_memory_bytes, versions
from splora.training.going_on import STILL_TO_COME, evaluate, log_row, still_to_come
from splora.training.saving import RESULT, save_trained
from splora.training.serving import describe, measure_latency, smaller


class RunResult(Callback):
    """Saves what a finished run leaves behind; its seconds add up over resumptions.

    Args:
        output_dir: folder of the run; None: the Trainer's `default_root_dir`.
        run: the row of a sheet that this run is: `exp_id`, `sheet` and `reported` scores. What else stands in it is not
            believed: method, adapter, task and seed are those of the module that ran.
    """

    def __init__(self, output_dir: str | None = None, run: dict[str, Any] | None = None) -> None:
        self.output_dir = output_dir
        self.run = dict(run or {})
        self._seconds_before = 0.0
        self._started = time.monotonic()
        self._scored_step = -1
        self._evaluates_first: dict[str, Any] | None = None
        self._metrics: dict[str, float] = {}

    def state_dict(self) -> dict[str, Any]:
        """Seconds of this run so far, over all its starts."""
        return {"seconds": self.seconds}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on counting from an earlier start."""
        self._seconds_before = float(state_dict["seconds"])

    def on_save_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        """Bring what is logged to the disk before the checkpoint: a run that goes on from there logs it no more.

        What is logged of this very step comes after it, so the checkpoint holds that itself.
        """
        for logger in trainer.loggers:
            logger.save()
        checkpoint[STILL_TO_COME] = still_to_come(trainer)

    def on_load_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        """Let `metrics.csv` go on from the checkpoint's step."""
        coming = checkpoint.get(STILL_TO_COME)
        if trainer.training and coming is not None:
            log_row(trainer, coming)
            self._evaluates_first = coming if coming["evaluation"] else None

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Make up for the evaluation that was due at the checkpoint."""
        if self._evaluates_first is not None:
            coming, self._evaluates_first = self._evaluates_first, None
            evaluate(trainer, coming)

    @property
    def seconds(self) -> float:
        """Wall-clock time of the run in seconds; what was lost to a kill is not counted."""
        return self._seconds_before + time.monotonic() - self._started

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Start the clock."""
        self._started = time.monotonic()

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Remember the scores and the step they belong to, unless they only judge the training."""
        if trainer.datamodule.judged == "held":
            return
        self._metrics = dict(pl_module.scores)
        self._scored_step = trainer.global_step

    def is_scored(self, trainer: Trainer) -> bool:
        """Whether the weights as they are now were evaluated."""
        return bool(self._metrics) and self._scored_step == trainer.global_step

    def write(self, trainer: Trainer, module: Any) -> dict[str, Any]:
        """Save weights, artifacts and `result.json` (last, so that it marks a finished run); returns the result."""
        counts = module.weight_counts()
        result: dict[str, Any] = {
            "exp_id": self.run.get("exp_id", ""),
            "sheet": self.run.get("sheet", ""),
            "method": module.pruning.method,
            "adapter": module.adapter.kind,
            "task": module.task,
            "reported": self.run.get("reported", {}),
            "metrics": self._metrics,
            "remaining_weights_percent": counts.remaining_percent,
            "learned_weights_percent": counts.learned_percent,
            "steps": trainer.global_step,
            "seconds": round(self.seconds, 3),
            "peak_memory_bytes": peak_memory_bytes(),
            "seed": module.seed,
            "versions": versions(),
            "settings": {
                "model": module.settings(),
                "data": trainer.datamodule.settings(),
                "trainer": _trainer_settings(trainer),
            },
        }
        for judge in trainer.callbacks:
            if isinstance(judge, BestWeights):
                result["chosen"] = judge.chosen()
        if trainer.is_global_zero:
            folder = Path(self.output_dir or trainer.default_root_dir)
            folder.mkdir(parents=True, exist_ok=True)
            served = smaller(module.network, cuts=module.pruning.units != "blocks")
            result |= describe(served, trainer.datamodule.mean_tokens)
            result["latency_ms"] = measure_latency(served.model.to(trainer.strategy.root_device))
            served.model.cpu()
            save_trained(module.network, trainer.datamodule.tokenizer, folder, result, served.model)
            result["artifacts"] = [f"{name}.json" for name in module.artifacts]
            for name, value in module.artifacts.items():
                write_json(folder / f"{name}.json", value)
            write_json(folder / RESULT, result)
        trainer.strategy.barrier("result")
        return result


def _trainer_settings(trainer: Trainer) -> dict[str, Any]:
    return {
        "accelerator": type(trainer.accelerator).__name__,
        "strategy": type(trainer.strategy).__name__,
        "devices": trainer.num_devices,
        "nodes": trainer.num_nodes,
        "precision": trainer.precision,
        "max_epochs": trainer.max_epochs,
        "max_steps": trainer.max_steps,
        "accumulate_grad_batches": trainer.accumulate_grad_batches,
        "gradient_clip_val": trainer.gradient_clip_val,
        "threads": torch.get_num_threads(),
    }
