"""Scores of a model on any task: of a folder or a hub name, dense, cut or quantized, or of a model in memory."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from torch import nn

from splora import anatomy
from splora.errors import InputError, in_words_of_command, problems_of
from splora.posttraining.core.compute import check_compute, find_device
from splora.posttraining.core.evaluation import outputs_of
from splora.posttraining.core.precision import Precision
from splora.posttraining.core.stages import Report, silent
from splora.tasks.model_inputs import check_length, positions
from splora.tasks.named_metrics import compute, load_metrics
from splora.tasks.registry import find_task
from splora.tasks.sources import auto_model, data_sources, make_data_module
from splora.tasks.task import Task

#: Options of the commands that train, by those that this one has.
WORDS = {
    "--train-file and --predict-file": "--data",
    "--train-file": "--data",
    "--predict-file": "--data",
    ", a hub name, or 'embedded'": " or a hub name",
}


@in_words_of_command(WORDS)
def evaluate(
    model: str | Path | nn.Module,
    task: str,
    data: str | Path | None = None,
    *,
    tokenizer: str | Path | None = None,
    metrics: Sequence[str] = (),
    max_seq_length: int | None = None,
    doc_stride: int = 128,
    columns: Mapping[str, str] | None = None,
    precision: str = "auto",
    device: str = "auto",
    report: Report = silent,
) -> dict[str, float]:
    """Score a model on a task's evaluation data.

    Args:
        model: folder or hub name of a checkpoint that is fine-tuned for the task (dense, cut, or quantized), or a model
            in memory, which is judged where it is.
        task: its name in any published spelling, see `splora.tasks.registry`.
        data: a folder of the task's data or one file of its evaluation data; None: the hub.
        tokenizer: folder or hub name of the tokenizer; None: the model's own.
        metrics: further metrics of the package `evaluate`: names of the hub, or paths of modules, whose code is run.
        max_seq_length: tokens per example at most; None: the task's usual length.
        doc_stride: tokens that neighbouring windows of a long context share.
        columns: the data's names of columns by the task's, where they are not recognized.
        precision: `auto`, `fp32` or `bf16`: what is computed in.
        device: `auto`, `cpu`, `cuda` or `cuda:1`; of a model that is loaded.
        report: told of progress.

    Returns:
        The task's metrics by name, the main one first: percent, or a perplexity; then named ones as `metric/name`, in
        their own units.

    Raises:
        InputError: model, data or options are not what is needed.
    """
    from splora.checkpoints.checkpoint import check_kind, load_for_evaluation

    known = find_task(task)
    in_memory = model if isinstance(model, nn.Module) else None
    name = str(tokenizer if tokenizer is not None else model)
    if in_memory is not None and tokenizer is None:
        name = str(getattr(anatomy.config_of(in_memory), "name_or_path", "") or "")
        if not name:
            raise InputError("tokenizer: is needed of a model that was not loaded from a folder or the hub.")
    problems = [] if in_memory is not None else problems_of(lambda: check_compute(device=device, precision=precision))
    if max_seq_length is not None and max_seq_length < 2:
        problems.append(f"--max_seq_length is {max_seq_length}; it must be 2 or larger.")
    if problems:
        raise InputError(problems)
    config = check_kind(str(model), known.name) if in_memory is None else _checked(in_memory, known)
    if max_seq_length is not None and known.length is not None:
        check_length(name, config, max_seq_length, "--max_seq_length")
    named = load_metrics(metrics)
    source = data_sources(None if data is None else str(data), known.name, need_train=False)[1]
    prepared = make_data_module(
        known.name,
        name,
        source,
        source,
        max_seq_length=max_seq_length or known.usual_length(positions(config)),
        doc_stride=doc_stride,
        columns=dict(columns) if columns else None,
    )
    prepared.judges(config)
    prepared.features("eval")  # data that cannot be read are told before weights are loaded
    if named:
        prepared.check_references()
    network = in_memory
    if network is None:
        network = load_for_evaluation(str(model), known.name).to(find_device(device))
    training = network.training
    network.eval()
    try:
        outputs = outputs_of(
            network,
            prepared,
            Precision.parse(precision),
            lambda done, total: report("evaluate", f"batch {done} of {total}", done / total),
        )
    finally:
        network.train(training)
    found = prepared.evaluate(outputs).metrics
    main = prepared.primary_metric
    scores = {main: found[main], **found}
    return scores | (compute(named, *prepared.references(outputs)) if named else {})


def _checked(model: nn.Module, task: Task) -> Any:
    """The configuration of a model in memory.

    Raises:
        InputError: it is of no known family, has another head, or other labels than the task.
    """
    from splora.checkpoints.checkpoint import check_outputs
    from splora.export.pruned_modeling import auto_class

    config = anatomy.config_of(model)
    anatomy.family_of(config)
    name = type(model).__name__
    if name not in anatomy.task_models() or auto_class(name) != auto_model(task.name):
        raise InputError(f"model: is a {name}, which has no head for {task.name}; {auto_model(task.name)} has one.")
    check_outputs("model", config, task.name)
    return config
