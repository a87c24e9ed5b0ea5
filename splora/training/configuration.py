"""A run specification as a Lightning configuration: what `--dry-run` prints and ``lightning fit --config`` takes.

Both ways to start a run go through this one dictionary, so that they give the same numbers. Imports no torch.
"""

from __future__ import annotations

import math
from typing import Any

from splora import precision
from splora.tasks.registry import REGISTRY
from splora.training import logger_choice
from splora.training.run_folder import FOLDER
from splora.training.specification import DIVERGENCE, RunSpecification


def lightning_config(spec: RunSpecification, output_dir: str) -> dict[str, Any]:
    """The sections seed_everything, trainer, model and data of a LightningCLI configuration, as plain values.

    The folder stands in it once, as `trainer.default_root_dir`; `run_folder.follow` carries it to the rest.
    """
    return {
        "seed_everything": spec.seed,
        "trainer": _trainer(spec, output_dir),
        "model": _model(spec),
        "data": data_config(spec),
    }


def _trainer(spec: RunSpecification, output_dir: str) -> dict[str, Any]:
    whole_epochs = math.ceil(spec.num_train_epochs)
    trainer: dict[str, Any] = {
        "default_root_dir": output_dir,
        "accelerator": "auto",
        "devices": 1,
        "precision": precision.resolve(spec.precision),
        "max_epochs": whole_epochs if spec.max_steps is None else -1,
        "max_steps": spec.max_steps if spec.max_steps is not None else -1,
        "accumulate_grad_batches": spec.gradient_accumulation_steps,
        "gradient_clip_val": spec.max_grad_norm or None,
        "log_every_n_steps": 10,
        "num_sanity_val_steps": 0,
        "use_distributed_sampler": False,
        "enable_model_summary": False,
    }
    trainer["plugins"] = plugins()
    if spec.num_train_epochs < 1 and spec.max_steps is None:
        trainer["limit_train_batches"] = spec.num_train_epochs
    if spec.evaluate_every_n_steps is not None:
        trainer["val_check_interval"] = spec.evaluate_every_n_steps * spec.gradient_accumulation_steps
        trainer["check_val_every_n_epoch"] = None  # counted over all epochs
    elif spec.val_check_per_epoch > 1:
        trainer["val_check_interval"] = 1.0 / spec.val_check_per_epoch
    run_name = f"{spec.sheet} {spec.exp_id} seed {spec.seed}".strip()
    extra = [logger_choice.entry(name, run_name) for name in logger_choice.chosen(spec.logger)]
    trainer["logger"] = [*loggers(), *extra]
    trainer["callbacks"] = _callbacks(spec)
    return trainer


def plugins() -> list[dict[str, Any]]:
    """What every run has: checkpoints that a kill leaves whole."""
    return [{"class_path": "splora.training.checkpoint_io.ReplacingCheckpointIO"}]


def loggers() -> list[dict[str, Any]]:
    """What every run logs to: `metrics.csv`, which resumed runs continue, and TensorBoard."""
    return [
        {"class_path": "splora.training.csv_logger.ResumableCSVLogger", "init_args": {"save_dir": FOLDER}},
        {
            "class_path": "lightning.pytorch.loggers.TensorBoardLogger",
            "init_args": {"save_dir": FOLDER, "name": "", "version": "tensorboard"},
        },
    ]


def checkpoints(every_n_steps: int) -> dict[str, Any]:
    """What a run goes on from."""
    return {
        "class_path": "lightning.pytorch.callbacks.ModelCheckpoint",
        "init_args": {
            "dirpath": f"{FOLDER}/checkpoints",
            "filename": "last",
            "every_n_train_steps": every_n_steps,
            "save_on_train_epoch_end": False,
            "enable_version_counter": False,
        },
    }


def _callbacks(spec: RunSpecification) -> list[dict[str, Any]]:
    schedule = {
        name: getattr(spec, name)
        for name in ("initial_threshold", "final_threshold", "initial_warmup", "final_warmup", "final_lambda")
    }
    prunes = spec.pruning_method != "none"
    return [
        *([_callback("SparsitySchedule", **schedule)] if prunes else []),
        _callback("WeightCount"),
        *([_callback("MaskPictures")] if prunes else []),
        _callback("RunResult"),
        checkpoints(spec.checkpoint_every_n_steps),
        *_judges(spec),
        _callback("RunProgressBar"),
    ]


def _judges(spec: RunSpecification) -> list[dict[str, Any]]:
    """Callbacks that let evaluations decide when to stop and which weights to keep."""
    metric = REGISTRY[spec.task].metrics[0]
    if spec.held_out and (spec.judged_by == DIVERGENCE or not spec.labelled):
        metric = DIVERGENCE
    monitor = f"{'held' if spec.held_out else 'val'}/{metric}"
    start = {"counts_start": True} if spec.held_out else {}
    best = [_callback("BestWeights", monitor=monitor, **start)] if spec.best_checkpoint else []
    patience = spec.early_stopping
    return best if patience is None else [*best, _callback("EarlyStop", monitor=monitor, patience=patience)]


def _callback(name: str, **arguments: Any) -> dict[str, Any]:
    return {"class_path": f"splora.callbacks.{name}", "init_args": arguments}


def identity(spec: RunSpecification) -> dict[str, Any]:
    """What a result says of its row: its name and its reported scores; all else is told by what ran."""
    reported = {name: getattr(spec, name) for name in vars(spec) if name.startswith("reported_")}
    return {
        "exp_id": spec.exp_id,
        "sheet": spec.sheet,
        "reported": {name.removeprefix("reported_"): value for name, value in reported.items() if value is not None},
    }


def _model(spec: RunSpecification) -> dict[str, Any]:
    init_range = spec.splopa_init_range if spec.adapter == "splopa" else spec.splora_init_range
    model: dict[str, Any] = {
        "task": spec.task,
        "model_name_or_path": spec.model_name_or_path,
        "seed": spec.seed,
        "dropout": spec.dropout,
        "adapter": {
            "kind": spec.adapter,
            "num_prototypes": spec.num_splopa_prototypes,
            "prototype_rank": spec.splopa_prototype_rank,
            "init_range": init_range,
            "shared_prototypes": spec.splopa_shared_prototypes,
            "shared_position_weights": spec.splopa_shared_pos_weights,
            "rank": spec.splora_rank,
            "lora_rank": spec.lora_rank,
            "lora_alpha": spec.lora_alpha,
        },
        "pruning": {
            "method": spec.pruning_method,
            "units": spec.pruning_units,
            "threshold_of": spec.threshold_of,
            "mask_init": spec.mask_init,
            "mask_scale": spec.mask_scale,
            "attention_block": [spec.attention_block_rows, spec.attention_block_cols],
            "ffn_block": [spec.ffn_block_rows, spec.ffn_block_cols],
            "regularization": spec.regularization,
        },
        "prune_first": {
            "method": spec.prune_first,
            "budget": spec.budgets[-1] if spec.budgets else 0.5,
            "samples": spec.prune_first_samples,
        },
        "optimizer": {
            "learning_rate": spec.learning_rate,
            "mask_scores_learning_rate": spec.mask_scores_learning_rate,
            "position_weights_learning_rate": spec.position_weights_learning_rate,
            "adapter_learning_rate": spec.adapter_learning_rate,
            "weight_decay": spec.weight_decay,
            "warmup_steps": spec.warmup_steps,
            "schedule_total_steps": spec.schedule_total_steps,
        },
        "distillation": None,
    }
    if spec.teacher_name_or_path is not None:
        model["distillation"] = {
            "teacher_name_or_path": spec.teacher_name_or_path,
            "alpha_ce": spec.alpha_ce,
            "alpha_distil": spec.alpha_distil,
            "temperature": spec.temperature,
            "alpha_hidden": spec.alpha_hidden,
            "alpha_attention": spec.alpha_attention,
            "hidden_weights": spec.hidden_weights,
            "teacher_type": spec.teacher_type,
        }
    return model


def data_config(spec: RunSpecification) -> dict[str, Any]:
    """The section `data` of a configuration."""
    shared = {
        "model_name_or_path": spec.model_name_or_path,
        "train_file": spec.train_file,
        "predict_file": spec.predict_file,
        "max_seq_length": spec.max_seq_length,
        "train_batch_size": spec.per_gpu_train_batch_size,
        "eval_batch_size": spec.per_gpu_eval_batch_size,
        "seed": spec.seed,
        "max_train_examples": spec.max_train_examples,
        "held_out": spec.held_out,
        "labelled": spec.labelled,
    }
    task = REGISTRY[spec.task]
    windows = {"doc_stride": spec.doc_stride} if "doc_stride" in task.takes else {}
    return {"class_path": task.module, "init_args": {"task": spec.task, **shared, **windows}}
