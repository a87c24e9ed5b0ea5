"""`validate`, `test` and `predict` of a finished run: it is named, its data fit, and nothing is written into it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from splora.errors import InputError
from splora.run_files import MARKS
from splora.training.run_folder import class_name, entries

#: Callbacks that write into a run's folder, or schedule a training.
_OF_TRAINING = (
    *("RunResult", "MaskPictures", "ModelCheckpoint", "SparsitySchedule"),
    *("EarlyStopping", "EarlyStop", "BestWeights"),
)
PREDICTIONS = "predictions.json"


def prepare(command: str, config: Any) -> None:
    """Check the parsed configuration of an evaluation, and take out of it, in place, what writes into the run.

    Raises:
        InputError: no trained run is named, or the predictions' folder is not free.
    """
    trainer = config.trainer
    if config.get("ckpt_path") is not None:
        raise InputError(
            f"{command}: ckpt_path is {config.ckpt_path}; a checkpoint is what training goes on from: give a "
            "finished run instead, as in --model.trained_run runs/mine."
        )
    if config.model.trained_run is None:
        given = trainer.default_root_dir
        hint = given if given is not None and (Path(given) / MARKS[0]).is_file() else "runs/mine"
        raise InputError(
            f"{command}: model.trained_run is empty, so an untrained model would be used; give the folder of a "
            f"finished run, as in --model.trained_run {hint}."
        )
    trainer.callbacks = [each for each in _listed(trainer.callbacks) if class_name(each) not in _OF_TRAINING]
    # The loggers of a configuration are those of its training: they would replace its metrics.csv.
    trainer.logger = False
    if command == "predict":
        trainer.default_root_dir = str(_folder_of_predictions(trainer.default_root_dir, Path(config.model.trained_run)))


def _listed(section: Any) -> list[Any]:
    return list(entries(section))


def _folder_of_predictions(given: Any, trained_run: Path) -> Path:
    """The folder given, unless it is a run's or none: then a free one beside the run."""
    folder = Path(given) if given is not None else trained_run
    if given is not None and not any((folder / mark).is_file() for mark in MARKS):
        if (folder / PREDICTIONS).exists():
            raise InputError(
                f"trainer.default_root_dir: {folder / PREDICTIONS} is there already; choose another folder, or none."
            )
        return folder
    beside = trained_run.resolve()
    number = 1
    while True:
        free = beside.with_name(f"{beside.name}-predict{f'-{number}' if number > 1 else ''}")
        if not free.exists():
            return free
        number += 1
