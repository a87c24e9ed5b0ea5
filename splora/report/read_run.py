"""A folder of a training run as the report knows it."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any, TypeVar

from splora.files import inside
from splora.json_values import number, numbers, table, text, texts, whole
from splora.report.log import Log
from splora.report.repeat import training_command
from splora.report.runs import STATES, Environment, Run
from splora.run_files import RESULT as RESULT
from splora.run_files import SPECIFICATION as SPECIFICATION
from splora.training.specification import FIELDS
from splora.training.state import INTERRUPTED, RUNNING

#: A run that says it is running, and has given no sign of life for so long, is not.
LOST = timedelta(minutes=30)

Number = TypeVar("Number", int, float)


def read_run(
    folder: Path, name: str, result: dict[str, Any], spec: dict[str, Any], state: dict[str, Any], log: Log, broken: bool
) -> Run:
    """A training run out of its files; each may be empty.

    Args:
        broken: whether `result.json` is there but cannot be read.
    """

    def of(key: str, spec_key: str | None = None) -> str:
        for source, known in ((result, key), (spec, spec_key or key), (state, key)):
            if found := text(source.get(known)):
                return found
        return ""

    settings = table(result.get("settings"))
    model = table(settings.get("model"))
    trainer = table(settings.get("trainer"))
    data = table(settings.get("data"))
    exp_id, sheet = of("exp_id"), of("sheet")
    reported = numbers(result.get("reported")) or {
        key.removeprefix("reported_"): value for key, value in numbers(spec).items() if key.startswith("reported_")
    }
    told = text(state.get("state"))
    reason = text(state.get("reason"))
    if told == RUNNING and _is_silent(text(state.get("heartbeat")) or text(state.get("since"))):
        told, reason = INTERRUPTED, reason or "no sign of life any more"
    log_path = inside(folder, state.get("log"))
    command = text(state.get("command")) or text(result.get("command"))
    return Run(
        folder=folder,
        name=name,
        label=exp_id or folder.name,
        state="finished" if result else "unreadable" if broken else told if told in STATES else "unfinished",
        sheet=sheet,
        title=text(spec.get("model")),
        task=of("task"),
        method=of("method", "pruning_method"),
        adapter=of("adapter"),
        reason=f"{RESULT} is damaged" if broken else reason,
        metrics=numbers(result.get("metrics")),
        reported={key: value for key, value in reported.items() if key != "density"},
        reported_density=reported.get("density", number(spec.get("reported_density"))),
        density=number(result.get("remaining_weights_percent")),
        learned=number(result.get("learned_weights_percent")),
        stored_bytes=whole(result.get("adapter_bytes")),
        macs=None if (kept := number(result.get("macs_kept"))) is None else 100 * kept,
        parameters=pair(numbers(result.get("parameters")), "dense", "kept", int),
        latency=pair(numbers(result.get("latency_ms")), "dense", "pruned", float),
        latency_of=latency_of(table(result.get("latency_ms"))),
        seconds=number(result.get("seconds")),
        peak_memory_bytes=whole(result.get("peak_memory_bytes")),
        step=whole(result.get("steps")) or whole(state.get("step")) or _last_step(log),
        steps=whole(state.get("steps")) or whole(result.get("steps")) or whole(spec.get("max_steps")),
        seconds_left=None if result else number(state.get("seconds_left")),
        heartbeat="" if result else text(state.get("heartbeat")),
        seed=of("seed"),
        environment=Environment(
            tuple(texts(result.get("versions")).items()),
            text(trainer.get("precision")) or text(spec.get("precision")),
            text(trainer.get("accelerator")).removesuffix("Accelerator"),
            _devices(trainer),
            text(trainer.get("threads")),
            text(state.get("host")),
        ),
        settings=_chosen(spec),
        data=(
            text(model.get("model_name_or_path")) or text(spec.get("model_name_or_path")),
            text(data.get("train_file")) or text(spec.get("train_file")),
            text(data.get("predict_file")) or text(spec.get("predict_file")),
        ),
        blocks=_blocks(table(model.get("pruning")), spec),
        log=log,
        log_file=log_path.as_posix() if log_path is not None else "",
        command=command or training_command(folder, exp_id, sheet),
        derived=not command,
    )


def pair(
    found: dict[str, float], first: str, second: str, kind: Callable[[float], Number]
) -> tuple[Number, Number] | None:
    """Two numbers above 0 of a table, or None where it lacks one."""
    if not all(found.get(name, 0) > 0 for name in (first, second)):
        return None
    return kind(found[first]), kind(found[second])


def latency_of(latency: dict[str, Any]) -> str:
    """On what latencies were measured; empty where nothing is told."""
    if not latency.get("batch_size"):
        return ""
    threads = text(latency.get("threads")) or "?"
    return f"batches of {text(latency.get('batch_size'))} × {text(latency.get('tokens'))} tokens, {threads} threads"


def _is_silent(last: str) -> bool:
    """Whether the last sign of life, an ISO 8601 time, is long past; one that cannot be read says nothing."""
    try:
        return datetime.now().astimezone() - datetime.fromisoformat(last).astimezone() > LOST
    except (ValueError, OverflowError):
        return False


def _devices(trainer: dict[str, Any]) -> str:
    devices, nodes = text(trainer.get("devices")), text(trainer.get("nodes"))
    return f"{devices} on each of {nodes} nodes" if nodes not in ("", "1") else devices


def _chosen(spec: dict[str, Any]) -> dict[str, str]:
    """Settings that are not the default, in the order of the workbook's columns, then those this version lacks."""
    defaults = {name: field.default for name, field in FIELDS.items()}
    told = {"exp_id", "sheet", "model", "task", "seed", "pruning_method", "adapter"}
    names = [*(name for name in FIELDS if name in spec), *(name for name in spec if name not in FIELDS)]
    shown = [name for name in names if name not in told and not name.startswith("reported_")]
    return {name: str(spec[name]) for name in shown if spec[name] != defaults.get(name, dataclasses.MISSING)}


def _blocks(pruning: dict[str, Any], spec: dict[str, Any]) -> tuple[tuple[int, int], tuple[int, int]] | None:
    def pair(value: object) -> tuple[int, int] | None:
        if isinstance(value, list) and len(value) == 2 and all(isinstance(side, int) and side > 0 for side in value):
            return value[0], value[1]
        return None

    attention = pair(pruning.get("attention_block")) or pair(
        [spec.get("attention_block_rows"), spec.get("attention_block_cols")]
    )
    ffn = pair(pruning.get("ffn_block")) or pair([spec.get("ffn_block_rows"), spec.get("ffn_block_cols")])
    return (attention, ffn) if attention and ffn else None


def _last_step(log: Log) -> int | None:
    last = [curve.steps[-1] for curve in log.curves.values() if curve.steps]
    return int(max(last)) if last else None
