"""Pruning by interpolative decompositions (Flynn et al. 2024, STAT): no labels, no training, some hundred samples.

The published method (`published`), and a default that goes on from it (`default`).
"""

from __future__ import annotations

from collections.abc import Iterator

from torch import nn

from splora.export.plan import Plan
from splora.memory import FreeMemory
from splora.posttraining.core.budget import Costs
from splora.posttraining.core.examples import CalibrationExamples
from splora.posttraining.core.layer_grams import arguments_of
from splora.posttraining.core.precision import Precision
from splora.posttraining.core.stages import Report, Stage, silent
from splora.posttraining.stat.default import prune_default
from splora.posttraining.stat.options import StatOptions
from splora.posttraining.stat.published import prune_published

__all__ = ["StatOptions", "prune_stat"]


def prune_stat(
    model: nn.Module,
    calibration: CalibrationExamples,
    costs: Costs,
    fraction: float,
    options: StatOptions,
    *,
    first_token_only: bool,
    precision: Precision,
    seed: int = 0,
    report: Report = silent,
) -> Iterator[Stage]:
    """Yield the model after `neurons` and `heads` (exact) or `interpolate` and `reconstruct`; `model` stays as it is.

    Args:
        model: a fine-tuned task model in evaluation mode, dense or already pruned.
        calibration: training examples; their labels are not looked at.
        costs: MACs of a head and of a neuron.
        fraction: of the model's own MACs, as it is, that the pruned one may have.
        options: see there.
        first_token_only: whether the task head reads the first token alone.
        precision: what forward passes and products compute in.
        seed: of random directions.
        report: told of progress.

    Raises:
        InputError: the budget keeps nothing, or the samples hold far too few tokens.
    """
    batches = arguments_of(list(calibration))
    budget = fraction * costs.of_plan(Plan.dense(model))
    memory = FreeMemory()

    def reported(stage: str, part: str, done: float) -> None:
        # Between two sub-layers most of what there was is free.
        memory.limit()
        report(stage, part, done)

    if options.exact_paper:
        yield from prune_published(
            model, batches, costs, budget, storage=options.storage, precision=precision, report=reported
        )
        return
    yield from prune_default(
        model,
        batches,
        costs,
        budget,
        options,
        first_token_only=first_token_only,
        precision=precision,
        seed=seed,
        report=reported,
    )
