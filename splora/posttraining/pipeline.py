"""A checkpoint becomes a smaller checkpoint: load, evaluate, calibrate, prune, evaluate each stage, measure, save."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from splora import anatomy
from splora.errors import InputError
from splora.files import replacing_folder, write_json
from splora.machine import peak_memory_bytes, versions
from splora.posttraining.budget import Costs
from splora.posttraining.calibration import Calibration, draw
from splora.posttraining.evaluation import Predictions, divergence, predict
from splora.posttraining.fisher import FisherOptions, Search, prune_fisher
from splora.posttraining.latency_budget import LatencyBudget
from splora.posttraining.plan import Plan
from splora.posttraining.precision import Precision
from splora.posttraining.request import RESULT, PruneRequest
from splora.posttraining.search import search_macs
from splora.posttraining.stages import Report, Stage, silent
from splora.tasks.data_module import TaskDataModule
from splora.tasks.sources import QA_TASKS, data_sources, make_data_module

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Subject:
    """What is pruned, and what it is judged by."""

    model: nn.Module
    data: TaskDataModule
    calibration: Calibration
    precision: Precision
    #: MACs of a head and of a neuron, and the sequence length that they are counted at.
    costs: Costs
    tokens: int


def prune(request: PruneRequest, report: Report = silent) -> dict[str, Any]:
    """Carry out a request and return its result, which is also written to `result.json`.

    Raises:
        InputError: something that the person gave does not work; nothing is written then.
    """
    request.check()
    latency = LatencyBudget.read(request.tables) if request.tables is not None else None
    if request.threads is not None:
        torch.set_num_threads(request.threads)
    subject = prepare(request, report)
    if latency is not None:
        for warning in latency.check(subject.model, request.latency_batch_size, request.latency_tokens):
            logger.warning("%s", warning)
    if request.budget.metric == "mac":
        # A budget that buys nothing is told before anything costly.
        _search(subject, request, latency)(*_any_importance(subject.model), request.budget.fraction)

    dense = _predict("dense", subject.model, subject, report)
    stages: list[tuple[Stage, Predictions]] = []
    for stage in run_method(subject, request, latency, report):
        stages.append((stage, _predict(stage.name, stage.model, subject, report)))
    final = stages[-1][0]
    result = describe(request, subject, dense, stages)
    result["latency_ms"] = measure_latency(request, subject, final.model, latency, report)
    result["peak_memory_bytes"] = peak_memory_bytes()
    save(request, subject, final, result)
    return result


def prepare(request: PruneRequest, report: Report) -> Subject:
    """Load the checkpoint and its data, and draw the samples."""
    from splora.posttraining.checkpoint import load_checkpoint

    train_file, predict_file = data_sources(request.data, request.task)
    questions = request.task in QA_TASKS
    options: dict[str, Any] = {"doc_stride": request.doc_stride} if questions else {"columns": request.columns or None}
    data = make_data_module(
        request.task,
        request.model,
        train_file,
        predict_file,
        max_seq_length=request.max_seq_length or (384 if questions else 128),
        seed=request.seed,
        max_train_examples=request.samples,
        **options,
    )
    report("load", "model", 0.0)
    device = request.device
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    model = load_checkpoint(request.model, request.task).to(device)
    report("load", "training data", 0.3)
    calibration = draw(data, request.samples, request.choices.get("gradient_batch_size") or None)
    report("load", "evaluation data", 0.7)
    data.features("eval")
    report("load", "", 1.0)
    tokens = request.tokens or max(1, round(calibration.mean_tokens))
    return Subject(model, data, calibration, Precision.parse(request.precision), Costs.of(model, tokens), tokens)


def run_method(
    subject: Subject, request: PruneRequest, latency: LatencyBudget | None, report: Report
) -> Iterator[Stage]:
    """The stages of the request's method."""
    assert request.method == "fisher", request.method
    yield from prune_fisher(
        subject.model,
        subject.calibration,
        _search(subject, request, latency),
        request.budget.fraction,
        FisherOptions(**request.choices, seed=request.seed),
        first_token_only=request.task not in QA_TASKS,
        precision=subject.precision,
        report=report,
    )


def describe(
    request: PruneRequest, subject: Subject, dense: Predictions, stages: list[tuple[Stage, Predictions]]
) -> dict[str, Any]:
    """The content of `result.json`, latency and memory left out."""
    metric = subject.data.primary_metric
    plan = stages[-1][0].plan
    whole = Plan.dense(subject.model)
    return {
        "method": request.method,
        "model": request.model,
        "task": request.task,
        "metric": metric,
        "dense": dense.metrics[metric],
        "pruned": stages[-1][1].metrics[metric],
        "stages": {stage.name: predictions.metrics[metric] for stage, predictions in stages},
        "kl_divergence": {stage.name: divergence(dense, predictions) for stage, predictions in stages},
        "metrics": {"dense": dense.metrics, **{stage.name: found.metrics for stage, found in stages}},
        "macs_kept": subject.costs.of_plan(plan) / subject.costs.of_plan(whole),
        "macs_counted_at_tokens": subject.tokens,
        "heads_kept": plan.head_counts,
        "neurons_kept": plan.neuron_counts,
        "parameters": {"dense": _parameters(subject.model), "pruned": _parameters(stages[-1][0].model)},
        "seconds": round(sum(stage.seconds for stage, _ in stages), 3),
        "seconds_of": {stage.name: round(stage.seconds, 3) for stage, _ in stages},
        "notes": {stage.name: stage.notes for stage, _ in stages if stage.notes},
        "samples": subject.calibration.samples,
        "seed": request.seed,
        "precision": subject.precision.name,
        "device": str(next(subject.model.parameters()).device),
        "threads": torch.get_num_threads(),
        "versions": versions(),
        "settings": request.settings(),
    }


def measure_latency(
    request: PruneRequest, subject: Subject, pruned: nn.Module, latency: LatencyBudget | None, report: Report
) -> dict[str, Any]:
    """Median milliseconds of the dense and the pruned model on one batch without padding, by turns."""
    from splora.posttraining.latency_measure import clock, median_times, model_call

    batch_size = request.latency_batch_size or (latency.batch_size if latency is not None else 32)
    tokens = request.latency_tokens or (latency.tokens if latency is not None else subject.data.width)
    device = next(subject.model.parameters()).device
    with torch.inference_mode():
        calls = {
            name: model_call(model, batch_size, tokens, request.seed)
            for name, model in (("dense", subject.model), ("pruned", pruned))
        }
        times = median_times(
            calls,
            REPEATS,
            1,
            request.seed,
            clock(device),
            lambda done, total: report("latency", f"round {done} of {total}", done / total),
        )
    return {**times, "batch_size": batch_size, "tokens": tokens}


#: Rounds of the final measurement of latency.
REPEATS = 5


def save(request: PruneRequest, subject: Subject, final: Stage, result: dict[str, Any]) -> None:
    """Write model, plan, masks and result in place of the output folder, then the line of the summary."""
    from splora.export.folder import save_pruned

    request.output.parent.mkdir(parents=True, exist_ok=True)
    with replacing_folder(request.output) as beside:
        save_pruned(final.model, subject.data.tokenizer, beside)
        final.plan.save(beside, Plan.dense(subject.model))
        write_json(beside / RESULT, result)
    if request.summary is not None:
        append_line(request.summary, summary_line(result, request.output))


def summary_line(result: dict[str, Any], output: Path) -> str:
    """One line of `output/<model>/<task>.txt`."""
    stages = ", ".join(f"{name} {value:.2f}" for name, value in result["stages"].items())
    latency = result["latency_ms"]
    return (
        f"{result['method']} {result['settings']['budget']} seed={result['seed']} samples={result['samples']}: "
        f"{result['metric']} {result['pruned']:.2f} (dense {result['dense']:.2f}; {stages}), "
        f"MACs kept {result['macs_kept']:.3f}, latency {latency['pruned']:.1f} of {latency['dense']:.1f} ms, "
        f"{result['seconds']:.1f} s, {output}"
    )


def append_line(path: Path, line: str) -> None:
    """Add a line to a text file in one write, so that programs side by side do not mix theirs.

    Raises:
        InputError: the file cannot be written.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("a", encoding="utf-8") as file:
            file.write(line + "\n")
    except OSError as error:
        raise InputError(f"{path}: cannot be written ({error.strerror or error}).") from error


def _search(subject: Subject, request: PruneRequest, latency: LatencyBudget | None) -> Search:
    if request.budget.metric == "latency":
        assert latency is not None  # `PruneRequest.check`
        return latency.search
    whole = subject.costs.of_plan(Plan.dense(subject.model))
    return lambda heads, neurons, fraction: search_macs(heads, neurons, subject.costs, fraction * whole)


def _any_importance(model: nn.Module) -> tuple[list[torch.Tensor], list[torch.Tensor]]:
    layers = anatomy.layers(model)
    return [torch.ones(layer.heads) for layer in layers], [torch.ones(layer.neurons) for layer in layers]


def _predict(name: str, model: nn.Module, subject: Subject, report: Report) -> Predictions:
    return predict(
        model,
        subject.data,
        subject.precision,
        lambda done, total: report(f"evaluate {name}", f"batch {done} of {total}", done / total),
    )


def _parameters(model: nn.Module) -> int:
    return sum(parameter.numel() for parameter in model.parameters())
