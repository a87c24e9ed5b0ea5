"""The result of a pruning: what `result.json` says, the line of the summary, and all that is written."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import nn

from splora.errors import InputError
from splora.export.card import pruned_card, write_card
from splora.export.dense import dense_parameters, parameters
from splora.export.plan import Plan
from splora.export.storage import name_of, weight_bytes
from splora.files import appending, replacing_folder, write_json
from splora.machine import versions
from splora.offload import device_of
from splora.posttraining.core.evaluation import Predictions, divergence
from splora.posttraining.core.precision import Precision
from splora.posttraining.core.pruning import dense_macs
from splora.posttraining.core.request import RESULT, Request
from splora.posttraining.core.stages import Stage
from splora.posttraining.core.subject import Subject


def describe(
    request: Request, subject: Subject, dense: Predictions, stages: list[tuple[Stage, Predictions]]
) -> dict[str, Any]:
    """The content of `result.json`, latency and memory left out."""
    metric = subject.data.primary_metric
    plan = stages[-1][0].plan
    return {
        "method": request.method,
        "model": request.model,
        "task": request.task,
        "metric": metric,
        "dense": dense.metrics[metric],
        "pruned": stages[-1][1].metrics[metric],
        "stages": {stage.name: predictions.metrics[metric] for stage, predictions in stages},
        "kl_divergence": {stage.name: divergence(dense, predictions) for stage, predictions in stages},
        "metrics": {"dense": dense.metrics, **{stage.name: predictions.metrics for stage, predictions in stages}},
        "macs_kept": subject.costs.of_plan(plan) / dense_macs(subject.model, subject.costs),
        "macs_counted_at_tokens": subject.tokens,
        "heads_kept": plan.head_counts,
        "neurons_kept": plan.neuron_counts,
        "parameters": {"dense": dense_parameters(subject.model), "pruned": parameters(stages[-1][0].model)},
        "seconds": round(sum(stage.seconds for stage, _ in stages), 3),
        "seconds_of": {stage.name: round(stage.seconds, 3) for stage, _ in stages},
        "notes": {stage.name: stage.notes for stage, _ in stages if stage.notes},
        "samples": subject.calibration.samples,
        **circumstances(subject.model, subject.precision, request.seed),
        "settings": request.settings(),
    }


def circumstances(model: nn.Module, precision: Precision, seed: int) -> dict[str, Any]:
    """What results depend on beside their settings."""
    return {
        "seed": seed,
        "precision": precision.name,
        "device": str(device_of(model)),
        "threads": torch.get_num_threads(),
        "versions": versions(),
    }


def save(request: Request, subject: Subject, final: Stage, result: dict[str, Any], dtype: torch.dtype) -> None:
    """Write model, plan, masks and result in place of the output folder, then the summary's line; adds `bytes`."""
    from splora.export.folder import save_pruned

    with replacing_folder(request.output) as beside:
        save_pruned(final.model, subject.data.tokenizer, beside, dtype=dtype)
        result["dtype"] = name_of(dtype)
        result["bytes"] = {"dense": weight_bytes(request.model), "pruned": weight_bytes(str(beside))}
        final.plan.save(beside, Plan.dense(subject.model))
        write_card(beside, pruned_card(result))
        write_json(beside / RESULT, result)
    if request.summary is not None:
        append_line(request.summary, summary_line(result, request.output))


def summary_line(result: dict[str, Any], output: Path) -> str:
    """One line of `output/<model>/<task>.txt`."""
    stages = ", ".join(f"{name} {value:.2f}" for name, value in result["stages"].items())
    latency, sizes = result.get("latency_ms"), result["bytes"]
    times = f"latency {latency['pruned']:.1f} of {latency['dense']:.1f} ms, " if latency else ""
    return (
        f"{result['method']} {result['settings']['budget']} seed={result['seed']} samples={result['samples']}: "
        f"{result['metric']} {result['pruned']:.2f} (dense {result['dense']:.2f}; {stages}), "
        f"MACs kept {result['macs_kept']:.3f}, {sizes['pruned'] / 2**20:.2f} of {sizes['dense'] / 2**20:.2f} MiB, "
        f"{times}{result['seconds']:.1f} s, {output}"
    )


def append_line(path: Path, line: str) -> None:
    """Add a line to a text file in one write, so that programs side by side do not mix theirs.

    Raises:
        InputError: the file cannot be written.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with appending(path) as file:
            file.write(f"{line}\n".encode())
    except OSError as error:
        raise InputError(f"{path}: cannot be written ({error.strerror or error}).") from error
