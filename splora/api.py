"""Pruning from Python: a model in memory becomes a smaller one in memory. The commands do the same with files."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, fields
from typing import Any, NamedTuple

from torch import nn

from splora import anatomy
from splora.errors import InputError, nearest
from splora.export.plan import Plan
from splora.posttraining.core.budget import Budget, Costs
from splora.posttraining.core.examples import Examples
from splora.posttraining.core.precision import Precision
from splora.posttraining.core.probe import check_parts
from splora.posttraining.core.stages import Report, Stage, silent


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
        method: `stat` (Flynn et al. 2024, as this program has it) or `fisher` (Kwon et al. 2022).
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
    if method not in METHODS:
        raise InputError(
            f"method: {method!r} is none; allowed are {', '.join(METHODS)}{nearest(method, METHODS) or '.'}"
        )
    anatomy.family_of(anatomy.config_of(model))
    examples = Examples(batches)
    costs = Costs.of(model, tokens or examples.tokens)
    whole = costs.total(*anatomy.dense_sizes(anatomy.config_of(model)))
    present = costs.of_plan(Plan.dense(model)) / whole
    if wanted.fraction > present and present < 1:
        raise InputError(f"budget: is {budget}, and the model keeps {present:.3f} of its dense self's MACs already.")
    fraction, precise = wanted.fraction, Precision.parse(precision, "precision")
    asked = _Asked(model, examples, costs, fraction * whole, precise, seed, report, options)
    check_parts(model)
    training = model.training
    model.eval()
    try:
        *_, last = METHODS[method](asked)
    finally:
        model.train(training)
    return Pruned(last.model, last.plan)


@dataclass(frozen=True)
class _Asked:
    """One pruning.

    Attributes:
        macs: that may be left, at the length that `costs` count.
        options: of the method.
    """

    model: nn.Module
    examples: Examples
    costs: Costs
    macs: float
    precision: Precision
    seed: int
    report: Report
    options: Mapping[str, Any]


def _options(kind: type, given: Mapping[str, Any]) -> Any:
    """A method's options, each of a known name."""
    known = [field.name for field in fields(kind)]
    problems = [
        f"{name}: is no option of this method; there are {', '.join(known)}{nearest(name, known) or '.'}"
        for name in given
        if name not in known
    ]
    if problems:
        raise InputError(problems)
    return kind(**given)


def _stat(asked: _Asked) -> Iterator[Stage]:
    from splora.posttraining.stat.method import StatOptions, prune_stat

    return prune_stat(
        asked.model,
        asked.examples,
        asked.costs,
        asked.macs / asked.costs.of_plan(Plan.dense(asked.model)),
        _options(StatOptions, asked.options),
        first_token_only=anatomy.reads_first_token(asked.model),
        precision=asked.precision,
        seed=asked.seed,
        report=asked.report,
    )


def _fisher(asked: _Asked) -> Iterator[Stage]:
    from splora.posttraining.fisher.method import FisherOptions, prune_fisher
    from splora.posttraining.fisher.search import search_macs

    whole = asked.costs.total(*anatomy.dense_sizes(anatomy.config_of(asked.model)))
    return prune_fisher(
        asked.model,
        asked.examples,
        lambda heads, neurons, fraction: search_macs(heads, neurons, asked.costs, fraction * whole),
        asked.macs / whole,
        _options(FisherOptions, {"seed": asked.seed, **asked.options}),
        first_token_only=anatomy.reads_first_token(asked.model),
        precision=asked.precision,
        report=asked.report,
    )


#: By name, what yields the stages of a pruning.
METHODS: dict[str, Callable[[_Asked], Iterator[Stage]]] = {"stat": _stat, "fisher": _fisher}
