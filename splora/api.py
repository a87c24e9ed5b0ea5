"""Pruning from Python: a model in memory becomes a smaller one in memory. The commands do the same with files."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, NamedTuple

from torch import nn

from splora import anatomy
from splora.errors import InputError, nearest
from splora.export.plan import Plan
from splora.posttraining.core.budget import Budget, Costs
from splora.posttraining.core.examples import Examples
from splora.posttraining.core.method import commands
from splora.posttraining.core.options import checked
from splora.posttraining.core.precision import Precision
from splora.posttraining.core.probe import check_parts
from splora.posttraining.core.pruning import Pruning
from splora.posttraining.core.stages import Report, silent


class Pruned(NamedTuple):
    """A smaller model, and which heads and neurons of the one before it has."""

    model: nn.Module
    plan: Plan


def prune(
    model: nn.Module,
    batches: Iterable[Mapping[str, Any]],
    budget: str = "mac=0.5",
    method: str = "stat",
    *,
    tokens: int | None = None,
    precision: str = "auto",
    seed: int = 0,
    report: Report = silent,
    **options: Any,
) -> Pruned:
    """Prune a fine-tuned model without training it; `model` stays as it is.

    Args:
        model: a task model of transformers of one of the described families, dense or already pruned.
        batches: some hundred calibration examples, see `Examples`. Labels are not looked at, but by Fisher information
            with `labels="data"`.
        budget: `mac=F`, the fraction of the dense model's multiply-accumulate operations that may be left.
        method: one of `splora prune`: `stat` (Flynn et al. 2024, as this program has it), `fisher` (Kwon et al. 2022).
        tokens: the length that operations are counted at; None: the examples' average.
        precision: `auto`, `fp32` or `bf16`: what calibration computes in.
        seed: of random directions.
        report: told of progress.
        options: of the method: the fields of `StatOptions` or `FisherOptions`.

    Raises:
        InputError: an unknown method, option or family, a budget that is none or more than the model keeps already, or
            far too few examples.
    """
    wanted = Budget.parse(budget, "budget")
    if wanted.metric != "mac":
        raise InputError("budget: from Python only mac=F is known; splora prune has latency budgets.")
    if method not in commands():
        raise InputError(
            f"method: {method!r} is none; allowed are {', '.join(commands())}{nearest(method, commands()) or '.'}"
        )
    chosen = commands()[method]
    own = checked(chosen.options, options)
    examples = Examples(batches)
    pruning = Pruning(
        model,
        examples,
        Costs.of(model, tokens or examples.tokens),
        wanted,
        anatomy.reads_first_token(model),
        Precision.parse(precision, "precision"),
        seed,
        report,
    )
    if pruning.keeps_less:
        raise InputError(
            f"budget: is {budget}, and the model keeps {pruning.present:.3f} of its dense self's MACs already."
        )
    check_parts(model)
    with evaluating(model):
        chosen.check(pruning)
        *_, last = chosen.stages(pruning, own)
    return Pruned(last.model, last.plan)


@contextmanager
def evaluating(model: nn.Module) -> Iterator[None]:
    """A model in evaluation mode, and as it was afterwards."""
    training = model.training
    model.eval()
    try:
        yield
    finally:
        model.train(training)
