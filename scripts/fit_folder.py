"""The folder of a run that was started from YAML: what makes it that run, who may write there."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from splora.errors import InputError
from splora.files import write_json
from splora.json_values import read_object
from splora.machine import is_first_process
from splora.run_files import ADAPTER, CHECKPOINTS, MASKS, METRICS, MODEL, RESULT, SPECIFICATION, TENSORBOARD
from splora.run_files import FIT_SETTINGS as SETTINGS
from splora.training.checkpoint_files import is_begun
from splora.training.result_file import read_result
from splora.training.run import refuse_foreign
from splora.training.run_folder import class_name, entries

#: Folder where a configuration names none.
DEFAULT_FOLDER = "runs/fit"
#: What a run writes: a folder that holds one of these and no run is somebody else's.
_WRITTEN = (RESULT, CHECKPOINTS, ADAPTER, MODEL, MASKS, METRICS, TENSORBOARD)
#: Settings of the Trainer that change where and how it works and is watched, but not which run it is.
_MACHINE = (
    *("default_root_dir", "accelerator", "devices", "num_nodes", "strategy", "plugins", "logger", "callbacks"),
    *(
        "enable_progress_bar",
        "enable_model_summary",
        "enable_checkpointing",
        "log_every_n_steps",
        "profiler",
        "barebones",
    ),
)
#: Callbacks that observe.
_OBSERVERS = (
    "WeightCount",
    "MaskPictures",
    "RunResult",
    "RunProgressBar",
    "ModelCheckpoint",
    "Heartbeat",
    "GracefulStop",
)
_NO_SETTINGS = ("config", "ckpt_path", "weights_only", "trainer")


def settings_of(config: Any) -> dict[str, Any]:
    """What of ``fit``'s parsed configuration makes a run the run it is, as plain values, without its folder."""
    plain = _plain(config)
    trainer = plain["trainer"]
    acting = [entry for entry in entries(trainer.get("callbacks")) if class_name(entry) not in _OBSERVERS]
    return {
        **{name: value for name, value in plain.items() if name not in _NO_SETTINGS},
        "trainer": {name: value for name, value in trainer.items() if name not in _MACHINE},
        "callbacks": acting,
    }


def repeating(config: Any) -> str:
    """The whole configuration as YAML, from which the same run starts anew."""
    import yaml

    kept = {name: value for name, value in _plain(config).items() if name not in ("config", "ckpt_path")}
    return yaml.safe_dump(kept, sort_keys=False, allow_unicode=True)


def _plain(config: Any) -> dict[str, Any]:
    return dict(json.loads(json.dumps(config.as_dict(), default=str)))


def claim(folder: Path, settings: Mapping[str, Any]) -> bool:
    """Make `folder`, whose lock is held, that of a run with these settings; returns whether it is finished there.

    Raises:
        InputError: as `is_finished`.
    """
    finished = is_finished(folder, settings)
    if not finished and is_first_process():
        write_json(folder / SETTINGS, settings)
    return finished


def is_finished(folder: Path, settings: Mapping[str, Any], running: bool = False) -> bool:
    """Whether a run with these settings is finished in `folder`, where nothing is written.

    Args:
        running: another process works there; its settings count before it has left a checkpoint.

    Raises:
        InputError: it belongs to a run with other settings, to a row of a workbook, or holds what is no run's.
    """
    path = folder / SETTINGS
    finished = (folder / RESULT).is_file()
    if not is_first_process():
        return finished
    remedy = "choose another trainer.default_root_dir."
    if folder.exists() and not folder.is_dir():
        raise InputError(f"trainer.default_root_dir: {folder} is a file; {remedy}")
    if folder.exists():
        refuse_foreign(folder)
    if (folder / SPECIFICATION).is_file():
        raise InputError(f"trainer.default_root_dir: {folder} belongs to a row of a workbook; {remedy}")
    if not path.is_file():
        taken = next((name for name in _WRITTEN if (folder / name).exists()), None)
        if taken is not None:
            message = f"{folder} holds {taken} and no run started from YAML ({SETTINGS} is missing)"
            raise InputError(f"trainer.default_root_dir: {message}; {remedy}")
    elif finished or running or is_begun(folder):
        differing = _differing(_read(path), settings)
        if differing:
            more = f" and {len(differing) - 4} more" if len(differing) > 4 else ""
            message = f"{folder} belongs to a run with other settings ({', '.join(differing[:4])}{more})"
            raise InputError(f"trainer.default_root_dir: {message}; {remedy}")
    if finished:
        try:
            read_result(folder)
        except InputError as error:
            more = "remove this file and the run goes on from its last checkpoint"
            raise InputError(f"{problem.rstrip('.')}; {more}." for problem in error.problems) from error
    return finished


def _read(path: Path) -> dict[str, Any]:
    try:
        return read_object(path) or {}
    except ValueError as error:
        raise InputError(f"{path}: {error}; choose another trainer.default_root_dir.") from error


def _differing(there: Any, here: Any, where: str = "") -> list[str]:
    """What differs, as in ``model.seed 92 there, 5 here``; what an older version did not write down is not compared."""
    if isinstance(there, dict) and isinstance(here, dict | Mapping):
        names = [name for name in here if name in there]
        unknown = [name for name in there if name not in here and there[name] is not None]
        inner = [difference for name in names for difference in _differing(there[name], here[name], f"{where}{name}.")]
        return inner + [f"{where}{name} {_shown(there[name])} there, nothing here" for name in unknown]
    if there == here:
        return []
    return [f"{where.removesuffix('.')} {_shown(there)} there, {_shown(here)} here"]


def _shown(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."
