"""The command that repeats a run, where the run itself does not tell it."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from splora.run_files import CONFIGURATION, FIT_CONFIGURATION

#: Settings of a pruning that its command spells otherwise; None: what the command line has no option for.
_OPTIONS: dict[str, str | None] = {
    "method": None,
    "model": "--model",
    "task": "--task",
    "data": "--data",
    "budget": "--budget",
    "samples": "--num_samples",
    "tokens": "--seq_len",
    "labels": "--fisher_labels",
    "storage": "--states",
    "tables": None,
    "columns": None,
    "labelled": None,
    "gradient_batch_size": None,
    "reconstruct": None,
}
#: Methods that are no pruning: their command, of which the method is an option.
_QUANTIZATIONS = ("gptq", "rtn")


def training_command(folder: Path, exp_id: str, sheet: str) -> str:
    """`lightning fit` of what ran, into a folder beside; of a run without a configuration, its row; else nothing."""
    for name in (FIT_CONFIGURATION, CONFIGURATION):
        if (folder / name).is_file():
            beside = folder.with_name(f"{folder.name}-again").as_posix()
            words = ["--config", (folder / name).as_posix(), "--trainer.default_root_dir", beside]
            return shlex.join(["lightning", "fit", *words])
    if exp_id and sheet:
        row = ["--sheet", sheet, "--exp-id", exp_id, "--output-dir", folder.as_posix()]
        return shlex.join(["python", "scripts/run_from_sheet.py", *row])
    return ""


def pruning_command(result: Mapping[str, Any], folder: Path) -> str:
    """`splora prune` or `splora quantize` with every setting that the result tells."""
    settings: Mapping[str, Any] = result["settings"]
    method = str(result["method"])
    if method == "heal":
        return _healing_command(result, settings, folder)
    words = ["splora", "quantize", "--method", method] if method in _QUANTIZATIONS else ["splora", "prune", method]
    for name, value in settings.items():
        option = _OPTIONS.get(name, f"--{name}")
        if option is not None and value is not None:
            words += _option(option, value)
    tables = settings.get("tables")
    if isinstance(tables, list) and len(tables) == 2:
        words += ["--mha_lut", str(tables[0]), "--ffn_lut", str(tables[1])]
    columns = settings.get("columns")
    if isinstance(columns, dict):
        words += [word for name, column in columns.items() for word in ("--column", f"{name}={column}")]
    if settings.get("gradient_batch_size"):
        words += ["--gradients", str(settings["gradient_batch_size"])]
    if settings.get("reconstruct") is False:
        words.append("--no_reconstruction")
    words += _unlabelled(settings)
    latency = result.get("latency_ms")
    if isinstance(latency, dict) and {"batch_size", "tokens"} <= set(latency):
        words += ["--latency_batch_size", str(latency["batch_size"]), "--latency_seq_len", str(latency["tokens"])]
    if result.get("threads") is not None:
        words += ["--threads", str(result["threads"])]
    return shlex.join([*words, "--output", folder.as_posix()])


def _healing_command(result: Mapping[str, Any], settings: Mapping[str, Any], folder: Path) -> str:
    """`splora heal` of a folder."""
    words = ["splora", "heal", str(settings.get("model")), "--task", str(result.get("task"))]
    names = {"data": "--data", "teacher": "--teacher", "adapter": "--adapter", "epochs": "--epochs", "seed": "--seed"}
    names |= {name: f"--{name}" for name in ("max_steps", "max_seq_length", "doc_stride")}
    for name, option in names.items():
        if settings.get(name) is not None:
            words += _option(option, settings[name])
    words += _unlabelled(settings)
    changes = settings.get("set")
    for name, value in (changes if isinstance(changes, dict) else {}).items():
        words += ["--set", f"{name}={value}"]
    return shlex.join([*words, "--output", folder.as_posix()])


def _unlabelled(settings: Mapping[str, Any]) -> list[str]:
    return ["--no_labels"] if settings.get("labelled") is False else []


def _option(option: str, value: Any) -> list[str]:
    if isinstance(value, bool):
        return [option] if value else []
    if isinstance(value, list):
        return [option, ",".join(f"{one:g}" if isinstance(one, float) else str(one) for one in value)]
    return [option, f"{value:g}" if isinstance(value, float) else str(value)]
