"""The command that repeats a run, where the run itself does not tell it."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from splora.posttraining.core.choices import QUANTIZERS
from splora.posttraining.core.method import methods
from splora.posttraining.core.options import said
from splora.posttraining.core.request import Request
from splora.posttraining.quantize.options import GridOptions, QuantizeOptions
from splora.run_files import CONFIGURATION, FIT_CONFIGURATION

#: Settings whose option is called as they are.
_PLAIN = ("model", "task", "data", "budget")


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
    words = ["splora", "quantize", "--method", method] if method in QUANTIZERS else ["splora", "prune", method]
    for name in _PLAIN:
        if settings.get(name) is not None and (name != "budget" or method not in QUANTIZERS):
            words += _option(f"--{name}", settings[name])
    words += said(Request, settings)
    if method in QUANTIZERS:
        words += [word for kind in (GridOptions, QuantizeOptions) for word in said(kind, {**settings, "method": None})]
        for name in ("group_size", "half"):
            words += [] if settings.get(name) is None else _option(f"--{name}", settings[name])
    elif method in methods():
        words += said(methods()[method].options, settings)
    tables = settings.get("tables")
    if isinstance(tables, list) and len(tables) == 2:
        words += ["--mha_lut", str(tables[0]), "--ffn_lut", str(tables[1])]
    columns = settings.get("columns")
    if isinstance(columns, dict):
        words += [word for name, column in columns.items() for word in ("--column", f"{name}={column}")]
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
