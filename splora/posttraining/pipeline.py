"""A checkpoint becomes a smaller checkpoint: load, evaluate, calibrate, prune, evaluate each stage, measure."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from torch import nn

from splora import anatomy
from splora.errors import InputError, in_words_of_command
from splora.export.dense import dense_model, is_cut
from splora.export.storage import dtype_of, is_held_by, name_of, round_off
from splora.machine import peak_memory_bytes
from splora.posttraining.core.budget import Costs
from splora.posttraining.core.calibration import draw
from splora.posttraining.core.compute import find_device, use_threads
from splora.posttraining.core.evaluation import Predictions, predict
from splora.posttraining.core.method import find_method, methods
from splora.posttraining.core.options import checked
from splora.posttraining.core.outcome import describe, save
from splora.posttraining.core.precision import Precision
from splora.posttraining.core.probe import check_parts
from splora.posttraining.core.pruning import Pruning
from splora.posttraining.core.request import PruneRequest, Request
from splora.posttraining.core.stages import Report, Stage, silent
from splora.posttraining.core.subject import Subject
from splora.posttraining.fisher.search import search_macs
from splora.posttraining.latency.budget import LatencyBudget
from splora.tasks.chance import check_sense
from splora.tasks.glue_tasks import TASKS as GLUE_TASKS
from splora.tasks.model_inputs import WINDOW, check_length, positions
from splora.tasks.registry import REGISTRY
from splora.tasks.sources import data_sources, make_data_module

logger = logging.getLogger(__name__)

#: Options of the commands that train, by those that these commands have; the small model made here has no task's head.
WORDS = {
    "--train-file and --predict-file": "--data",
    "--train-file": "--data",
    "--predict-file": "--data",
    ", a hub name, or 'embedded'": " or a hub name",
    "pass a model's folder, or 'embedded'": "pass a model's folder",
}
#: Rounds of the final measurement of latency.
REPEATS = 5


def prune(request: PruneRequest, report: Report = silent) -> dict[str, Any]:
    """Carry out a request and return its result, which is also written to `result.json`.

    Raises:
        InputError: something that the person gave does not work; nothing is written then.
    """
    with request.claimed():
        return _prune(request, report)


def _prune(request: PruneRequest, report: Report) -> dict[str, Any]:
    request.check()
    latency = LatencyBudget.read(request.tables) if request.tables is not None else None
    use_threads(request.threads)
    subject = prepare(request, report)
    dtype = dtype_of(request.dtype, request.model)
    if not is_held_by(subject.model, dtype):
        raise InputError(f"{request.model}: holds values that are too large for {name_of(dtype)}; leave out --dtype.")
    if latency is not None:
        for warning in latency.check(subject.model, request.latency_batch_size, request.latency_tokens):
            logger.warning("%s", warning)
    pruning = pruning_of(subject, request, latency, report)
    if request.budget.metric == "mac":  # one that buys nothing, or more than there is, is told before anything costly
        if pruning.keeps_less:
            raise InputError(
                f"--budget is mac={request.budget.fraction:g}, and {request.model} keeps {pruning.present:.3f} of its "
                f"dense model's MACs already; give less than that."
            )
        search_macs(*_any_importance(subject.model), subject.costs, request.budget.fraction * pruning.dense_macs)
    find_method(request.method).check(pruning)

    dense = predicted_dense(request.model, subject, report)
    stages: list[tuple[Stage, Predictions]] = []
    for stage in run_method(subject, request, latency, report):
        if stage.last:  # what is judged is what will be stored
            if not is_held_by(stage.model, dtype):
                message = f"weights grew too large for {name_of(dtype)}: all are stored in fp32."
                logger.warning("%s", message)
                stage.notes["stored"], dtype = message, torch.float32
            round_off(stage.model, dtype)
        stages.append((stage, predicted(stage.name, stage.model, subject, report)))
    final = stages[-1][0]
    result = describe(request, subject, dense, stages)
    if not request.offload:
        result["latency_ms"] = measure_latency(request, subject, final.model, latency, report)
    result["peak_memory_bytes"] = peak_memory_bytes()
    save(request, subject, final, result, dtype)
    return result


@in_words_of_command(WORDS)
def prepare(request: Request, report: Report) -> Subject:
    """Load the checkpoint and its data, and draw the samples."""
    from splora.checkpoints.checkpoint import check_kind, load_checkpoint

    # The data module would ask a model of another kind for what it has not.
    config = check_kind(request.model, request.task)
    train_file, predict_file = data_sources(request.data, request.task)
    task = REGISTRY[request.task]
    # Windows of a text are as long as the model takes them.
    if request.max_seq_length is not None and task.length is not None:
        check_length(request.model, config, request.max_seq_length, "--max_seq_length")
    data = make_data_module(
        request.task,
        request.model,
        train_file,
        predict_file,
        max_seq_length=request.max_seq_length or task.usual_length(positions(config)),
        seed=request.seed,
        max_train_examples=request.samples,
        doc_stride=request.doc_stride,
        columns=request.columns or None,
        labelled=request.labelled,
    )
    report("load", "model", 0.0)
    device = find_device(request.device)
    if request.offload:
        model = load_checkpoint(request.model, request.task, offload=device)
    else:
        model = load_checkpoint(request.model, request.task).to(device)
    check_parts(model)
    report("load", "training data", 0.3)
    method = methods().get(request.method)
    size = None if method is None else method.batch_size(checked(method.options, request.options))
    calibration = draw(data, request.samples, size)
    report("load", "evaluation data", 0.7)
    data.features("eval")
    report("load", "", 1.0)
    tokens = request.tokens or max(1, round(calibration.mean_tokens))
    return Subject(model, data, calibration, Precision.parse(request.precision), Costs.of(model, tokens), tokens)


def pruning_of(subject: Subject, request: PruneRequest, latency: LatencyBudget | None, report: Report) -> Pruning:
    """What a request asks of its method."""
    return Pruning(
        subject.model,
        subject.calibration,
        subject.costs,
        request.budget,
        subject.precision,
        request.seed,
        report,
        None if latency is None or request.budget.metric != "latency" else latency.search,
    )


def run_method(
    subject: Subject, request: PruneRequest, latency: LatencyBudget | None, report: Report
) -> Iterator[Stage]:
    """The stages of the request's method."""
    method = find_method(request.method)
    return method.stages(pruning_of(subject, request, latency, report), checked(method.options, request.options))


def measure_latency(
    request: PruneRequest, subject: Subject, pruned: nn.Module, latency: LatencyBudget | None, report: Report
) -> dict[str, Any]:
    """Median milliseconds of the dense and the pruned model on one batch without padding, by turns."""
    from splora.posttraining.latency.measure import clock, median_times, model_call

    # Sentences come in batches; a text's window fills one alone.
    usual = 1 if REGISTRY[request.task].length is None else 32
    batch_size = request.latency_batch_size or (latency.batch_size if latency is not None else usual)
    tokens = request.latency_tokens or (latency.tokens if latency is not None else min(subject.data.width, WINDOW))
    device = next(subject.model.parameters()).device
    # A model that was pruned before is no measure: its dense self, with any weights, is.
    dense = dense_model(subject.model) if is_cut(subject.model) else subject.model
    with torch.inference_mode():
        calls = {
            name: model_call(model, batch_size, tokens, request.seed)
            for name, model in (("dense", dense), ("pruned", pruned))
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


def _any_importance(model: nn.Module) -> tuple[list[torch.Tensor], list[torch.Tensor]]:
    layers = anatomy.layers(model)
    return [torch.ones(layer.heads) for layer in layers], [torch.ones(layer.neurons) for layer in layers]


def predicted_dense(name: str, subject: Subject, report: Report) -> Predictions:
    """What the checkpoint itself predicts.

    Raises:
        InputError: it is clearly worse than chance, so that nothing that is measured against it would mean anything.
    """
    dense, task = predicted("dense", subject.model, subject, report), GLUE_TASKS.get(subject.data.task)
    labels = subject.data.features("eval").columns.get("labels")
    if task is not None and isinstance(labels, np.ndarray):
        check_sense(name, dense.logits["logits"], labels, getattr(subject.data, "label2id", None) or {}, task)
    return dense


def predicted(name: str, model: nn.Module, subject: Subject, report: Report) -> Predictions:
    """What a model predicts on the evaluation split, with progress."""
    return predict(
        model,
        subject.data,
        subject.precision,
        lambda done, total: report(f"evaluate {name}", f"batch {done} of {total}", done / total),
        dense=None if model is subject.model else subject.model,
    )
