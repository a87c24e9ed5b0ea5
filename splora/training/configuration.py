"""A run specification as a Lightning configuration: what `--dry-run` prints and ``lightning fit --config`` takes.

Both ways to start a run go through this one dictionary, so that they give the same numbers. Imports no torch.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from splora import precision
from splora.run_files import CHECKPOINTS, TENSORBOARD
from splora.tasks.registry import REGISTRY
from splora.training import logger_choice
from splora.training.options import model_columns, model_section
from splora.training.run_folder import FOLDER, class_name, entries
from splora.training.specification import DIVERGENCE, RunSpecification

#: Columns that are the arguments of `SparsitySchedule`.
SCHEDULE = ("initial_threshold", "final_threshold", "initial_warmup", "final_warmup", "final_lambda")


def lightning_config(spec: RunSpecification, output_dir: str) -> dict[str, Any]:
    """The sections seed_everything, trainer, model and data of a LightningCLI configuration, as plain values.

    The folder stands in it once, as `trainer.default_root_dir`; `run_folder.follow` carries it to the rest.
    """
    return {
        "seed_everything": spec.seed,
        "trainer": _trainer(spec, output_dir),
        "model": model_section(spec),
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
            "init_args": {"save_dir": FOLDER, "name": "", "version": TENSORBOARD},
        },
    ]


def checkpoints(every_n_steps: int) -> dict[str, Any]:
    """What a run goes on from."""
    return {
        "class_path": "lightning.pytorch.callbacks.ModelCheckpoint",
        "init_args": {
            "dirpath": f"{FOLDER}/{CHECKPOINTS}",
            "filename": "last",
            "every_n_train_steps": every_n_steps,
            "save_on_train_epoch_end": False,
            "enable_version_counter": False,
        },
    }


def _callbacks(spec: RunSpecification) -> list[dict[str, Any]]:
    schedule = {name: getattr(spec, name) for name in SCHEDULE}
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


#: Arguments of the data modules, and their columns.
_DATA = {
    **{name: name for name in ("model_name_or_path", "train_file", "predict_file", "max_seq_length")},
    "train_batch_size": "per_gpu_train_batch_size",
    "eval_batch_size": "per_gpu_eval_batch_size",
    **{name: name for name in ("seed", "max_train_examples", "held_out", "labelled")},
}


def data_config(spec: RunSpecification) -> dict[str, Any]:
    """The section `data` of a configuration."""
    shared = {name: getattr(spec, column) for name, column in _DATA.items()}
    task = REGISTRY[spec.task]
    windows = {"doc_stride": spec.doc_stride} if "doc_stride" in task.takes else {}
    return {"class_path": task.module, "init_args": {"task": spec.task, **shared, **windows}}


def specification_of(config: Mapping[str, Any]) -> RunSpecification:
    """The row that makes a configuration: the inverse of `lightning_config`.

    What a configuration does not hold has its column's default: settings of adapters, teachers and schedules that it
    does not use, and names, unless `identity` stands in it.
    """
    data = dict(config["data"]["init_args"])
    columns = {column: data[name] for name, column in _DATA.items() if name in data}
    columns |= {"doc_stride": data["doc_stride"]} if "doc_stride" in data else {}
    columns |= {"seed": config["seed_everything"], **_trainer_columns(config["trainer"])}
    return RunSpecification(**columns | model_columns(config["model"]))


def _trainer_columns(trainer: Mapping[str, Any]) -> dict[str, Any]:
    """The inverse of `_trainer`."""
    accumulated, interval = trainer["accumulate_grad_batches"], trainer.get("val_check_interval")
    columns: dict[str, Any] = {
        "precision": trainer["precision"],
        "gradient_accumulation_steps": accumulated,
        "max_grad_norm": trainer["gradient_clip_val"] or 0.0,
    }
    if trainer["max_steps"] != -1:
        columns["max_steps"] = trainer["max_steps"]
    else:
        columns["num_train_epochs"] = float(trainer.get("limit_train_batches", trainer["max_epochs"]))
    if interval is not None and trainer.get("check_val_every_n_epoch", 1) is None:
        columns["evaluate_every_n_steps"] = interval // accumulated
    elif interval is not None:
        columns["val_check_per_epoch"] = round(1 / interval)
    own = {class_name(entry) for entry in loggers()}
    others = [entry["class_path"] for entry in entries(trainer["logger"]) if class_name(entry) not in own]
    columns["logger"] = ",".join(others) or None
    for entry in entries(trainer["callbacks"]):
        columns |= _callback_columns(class_name(entry), entry.get("init_args") or {})
    return columns


def _callback_columns(name: str, arguments: Mapping[str, Any]) -> dict[str, Any]:
    """The inverse of `_callbacks`, of one of them."""
    if name == "SparsitySchedule":
        return {column: arguments[column] for column in SCHEDULE if column in arguments}
    if name == "ModelCheckpoint":
        return {"checkpoint_every_n_steps": arguments["every_n_train_steps"]}
    if name == "RunResult":
        run = arguments.get("run") or {}
        reported = {f"reported_{metric}": value for metric, value in run.get("reported", {}).items()}
        return reported | {column: run[column] for column in ("exp_id", "sheet") if column in run}
    if name not in ("BestWeights", "EarlyStop"):
        return {}
    columns = {"best_checkpoint": True} if name == "BestWeights" else {"early_stopping": arguments["patience"]}
    judged = {"judged_by": DIVERGENCE} if arguments["monitor"].endswith(f"/{DIVERGENCE}") else {}
    return {**columns, **judged}
