"""Retraining-free pruning of a fine-tuned model: mask search, rearrangement, rescaling (Kwon et al. 2022)."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from typing import Any

from torch import Tensor, nn

from splora import anatomy
from splora.errors import InputError
from splora.export.cut import cut
from splora.export.plan import Plan
from splora.posttraining.core.calibration import is_label
from splora.posttraining.core.examples import CalibrationExamples
from splora.posttraining.core.precision import Precision
from splora.posttraining.core.pruning import Search
from splora.posttraining.core.stages import Report, Stage, silent
from splora.posttraining.fisher.correction import choose_bias_correction
from splora.posttraining.fisher.gradients import GradientRows, mask_gradients
from splora.posttraining.fisher.options import FisherOptions
from splora.posttraining.fisher.rearrange import rearrange
from splora.posttraining.fisher.rescale import Rescaling, rescale


def prune_fisher(
    model: nn.Module,
    calibration: CalibrationExamples,
    search: Search,
    fraction: float,
    options: FisherOptions,
    *,
    first_token_only: bool,
    precision: Precision,
    seed: int = 0,
    report: Report = silent,
) -> Iterator[Stage]:
    """Yield the model after `search`, `rearrange` and `rescale`; `model` itself stays as it is.

    Args:
        model: a fine-tuned task model in evaluation mode.
        calibration: training examples with labels, in mini-batches if the options say so.
        search: finds the plan of a budget.
        fraction: of the dense model's cost that the pruned one may have.
        options: see there.
        first_token_only: whether the task head reads the first token alone.
        precision: what forward passes and products compute in.
        seed: of random signs.
        report: told of progress.

    Raises:
        InputError: the loss or an importance is not a finite number, or no plan is within the budget.
    """
    begin = time.perf_counter()
    batches = _reported(calibration, report)
    gradients = mask_gradients(model, batches, options.gradient_batch_size == 0, precision, options.labels, seed)
    heads = [rows.importance() for rows in gradients.heads]
    neurons = [rows.importance() for rows in gradients.neurons]
    _check(heads, neurons)
    searched = search(heads, neurons, fraction)
    teacher_plan = search(heads, neurons, fraction**0.5) if options.teacher == "sqrt" else None
    yield _stage("search", model, searched, begin, {"samples": calibration.samples})

    begin = time.perf_counter()
    dense = Plan.dense(model)
    masks = searched.masks(dense)
    arranged: dict[str, list[Tensor]] = {}
    for part, by_layer in (("heads", gradients.heads), ("neurons", gradients.neurons)):
        arranged[part] = []
        for number, rows in enumerate(by_layer):
            report("rearrange", f"layer {number} {part}", number / len(by_layer))
            arranged[part].append(_rearranged(rows, masks[f"layer.{number}.{part}"], precision))
    del gradients
    plan = Plan.from_masks(arranged["heads"], arranged["neurons"])
    report("rearrange", "", 1.0)
    yield _stage("rearrange", model, plan, begin, {})

    begin = time.perf_counter()
    teacher = cut(model, teacher_plan) if teacher_plan is not None else model
    inputs = [{name: batch[name] for name in batch if not is_label(name)} for batch in calibration.grouped()]
    sublayers = 2 * len(anatomy.layers(model))

    def fitted(samples: Sequence[dict[str, Tensor]], correct_bias: bool, prefix: str) -> tuple[nn.Module, Rescaling]:
        smaller = cut(model, plan)
        done = rescale(
            smaller,
            teacher,
            samples,
            first_token_only=first_token_only,
            damping=options.damping,
            correct_bias=correct_bias,
            storage=options.storage,
            precision=precision,
            progress=lambda name, number: report("rescale", f"{prefix}{name}", number / sublayers),
        )
        return smaller, done

    correct_bias, choice = options.bias_correction == "on", dict[str, Any]()
    if options.bias_correction == "auto":
        correct_bias, choice = choose_bias_correction(
            model, inputs, lambda samples, corrected: fitted(samples, corrected, "candidate, ")[0], precision
        )
    smaller, done = fitted(inputs, correct_bias, "")
    report("rescale", "", 1.0)
    seconds = time.perf_counter() - begin
    notes: dict[str, Any] = {"skipped": done.skipped, "hidden_state_bytes": done.state_bytes}
    if choice:
        notes["correction"] = choice
    yield Stage("rescale", smaller, plan, seconds, notes, last=True)


def _stage(name: str, model: nn.Module, plan: Plan, begin: float, notes: dict[str, int]) -> Stage:
    seconds = time.perf_counter() - begin
    return Stage(name, cut(model, plan), plan, seconds, dict(notes))


def _rearranged(rows: GradientRows, kept: Tensor, precision: Precision) -> Tensor:
    if bool(kept.all()) or not bool(kept.any()):
        return kept
    with precision.products(kept.device):
        return rearrange(rows.gram(), kept)


def _check(heads: Sequence[Tensor], neurons: Sequence[Tensor]) -> None:
    problems = [
        f"The gradients of layer {number}'s {part} are not finite numbers; the model's weights or its data are broken."
        for part, layers in (("heads", heads), ("neurons", neurons))
        for number, importance in enumerate(layers)
        if not bool(importance.isfinite().all())
    ]
    if problems:
        raise InputError(problems)


def _reported(calibration: CalibrationExamples, report: Report) -> Iterator[dict[str, Tensor]]:
    for number, batch in enumerate(calibration):
        report("search", f"gradients, batch {number + 1} of {len(calibration)}", number / len(calibration))
        yield batch
    report("search", "", 1.0)
