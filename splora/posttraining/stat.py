"""Pruning by interpolative decompositions (Flynn et al. 2024, STAT): no labels, no training, some hundred samples.

The published method, and a default that goes on from it: errors are measured by what they do to the predictions,
heads and neurons compete for one budget, and projections are solved again on the pruned model's own activations.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from splora import anatomy
from splora.posttraining.budget import Costs
from splora.posttraining.calibration import BATCH_TOKENS, Calibration
from splora.posttraining.elimination import Path, eliminate
from splora.posttraining.folding import Folded, fold, plan_of
from splora.posttraining.gram import Gram
from splora.posttraining.interpolative import group_errors, group_gram, pivoted_cholesky
from splora.posttraining.plan import Plan
from splora.posttraining.precision import Precision
from splora.posttraining.reconstruct import reconstruct
from splora.posttraining.sensitivity import (
    BACKWARD_TOKENS,
    divergences,
    is_language_model,
    logits,
    output_metrics,
    root,
)
from splora.posttraining.stages import Report, Stage, silent
from splora.posttraining.stat_budget import Counts, allocate, by_depth, by_trend, published_counts
from splora.posttraining.stat_grams import Batch, arguments_of, beginnings, layer_grams, regrouped, thinned
from splora.posttraining.states import Storage
from splora.posttraining.sublayers import PARTS

#: Tokens and sequences at least that sensitivities are measured on, and that candidates are compared on.
SENSITIVITY_SAMPLE = (2048, 256)
CANDIDATE_SAMPLE = (2048, 128)
#: The same of texts, whose every token is predicted, in tokens of beginnings of windows.
TEXT_SAMPLE = 8192
#: Tokens per channel of the widest layer, and at least, that heads and neurons are chosen by.
CHOICE_TOKENS_PER_CHANNEL, CHOICE_TOKENS = 8, 32768
#: What heads' errors are multiplied by when they compete with neurons. Several are candidates for the split of the
#: budget: the first one stays unless another is better by more than the standard error of their difference. As errors
#: are measured by what they do to the predictions, others have not been found to be better (docs/posttraining.md).
HEAD_FACTORS = (1.0,)
#: Part of the Gram matrix's diagonal that is added before removed channels are combined from kept ones.
DAMPING = 1e-3


@dataclass(frozen=True)
class StatOptions:
    """Choices of the method.

    Attributes:
        exact_paper: the published method; else this program's default.
        head_factors: see `HEAD_FACTORS`; one value: nothing is compared.
        reconstruct: solve projections again on the pruned model's activations.
        storage: where hidden states are kept between layers.
    """

    exact_paper: bool = False
    head_factors: Sequence[float] = HEAD_FACTORS
    reconstruct: bool = True
    storage: Storage = "auto"


def prune_stat(
    model: nn.Module,
    calibration: Calibration,
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
        fraction: of the model's MACs that the pruned one may have.
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
    if options.exact_paper:
        yield from _published(model, batches, costs, budget, options, precision, report)
    else:
        yield from _default(model, batches, costs, budget, options, first_token_only, precision, seed, report)


def _published(
    model: nn.Module,
    batches: Sequence[Batch],
    costs: Costs,
    budget: float,
    options: StatOptions,
    precision: Precision,
    report: Report,
) -> Iterator[Stage]:
    begin = time.perf_counter()
    layers, grams = anatomy.layers(model), []
    neuron_orders, neuron_errors, head_errors = [], [], []
    for found in layer_grams(model, batches, storage=options.storage, precision=precision):
        report("neurons", f"layer {found.number}", found.number / len(layers))
        linears, gram = found.layer.linears, found.grams["neurons"]
        norms = linears["ffn_out"].weight.detach().double().norm(dim=0)
        pivoted = pivoted_cholesky(gram.matrix, gram.tolerance, norms)
        neuron_orders.append(pivoted.order)
        neuron_errors.append(pivoted.residuals)
        errors = group_errors(
            found.grams["heads"].matrix,
            head_order(found.grams["heads"], found.layer.head_size),
            found.layer.head_size,
            linears["attention_output"].weight.detach(),
            found.grams["heads"].tolerance,
        )
        head_errors.append(errors[:-1])
        grams.append({"neurons": gram.compact()})
    weigh = by_trend if layers[0].causal else by_depth
    counts = published_counts(head_errors, neuron_errors, costs, budget, weigh)
    kept = [order[:count] for order, count in zip(neuron_orders, counts.neurons, strict=True)]
    all_heads = [torch.arange(layer.heads) for layer in layers]
    plan = plan_of(all_heads, kept)
    folded = fold(model, plan, grams, bias=False)
    del grams
    report("neurons", "", 1.0)
    yield _stage("neurons", folded, plan, begin)

    begin = time.perf_counter()
    heads, head_grams = [], []
    for found in layer_grams(folded.model, batches, parts=("heads",), storage=options.storage, precision=precision):
        report("heads", f"layer {found.number}", found.number / len(layers))
        order = head_order(found.grams["heads"], found.layer.head_size)
        heads.append(order[: counts.heads[found.number]])
        head_grams.append(found.grams)
    cut_heads = plan_of(heads, [torch.arange(count) for count in counts.neurons])
    folded = fold(folded.model, cut_heads, head_grams, bias=False)
    report("heads", "", 1.0)
    yield _stage("heads", folded, Plan(cut_heads.heads, plan.neurons), begin)


def _default(
    model: nn.Module,
    batches: Sequence[Batch],
    costs: Costs,
    budget: float,
    options: StatOptions,
    first_token_only: bool,
    precision: Precision,
    seed: int,
    report: Report,
) -> Iterator[Stage]:
    begin = time.perf_counter()
    layers = anatomy.layers(model)
    report("interpolate", "sensitivities", 0.0)
    if is_language_model(model):
        texts = beginnings(batches, BACKWARD_TOKENS)
        felt_by = sample = thinned(texts, TEXT_SAMPLE)
    else:
        felt_by, sample = thinned(batches, *SENSITIVITY_SAMPLE), thinned(batches, *CANDIDATE_SAMPLE)
    sample = list(regrouped(sample, BATCH_TOKENS))
    metrics = output_metrics(model, felt_by, seed, precision)
    widest = max(max(linear.in_features for linear in layer.linears.values()) for layer in layers)
    chosen_by = thinned(batches, max(CHOICE_TOKENS, CHOICE_TOKENS_PER_CHANNEL * widest))
    paths: dict[str, list[Path]] = {part.name: [] for part in PARTS}
    grams: list[dict[str, Gram]] = []
    for found in layer_grams(
        model, chosen_by, first_token_only=first_token_only, storage=options.storage, precision=precision
    ):
        report("interpolate", f"layer {found.number}", (found.number + 1) / (len(layers) + 2))
        for part in PARTS:
            gram = found.grams[part.name]
            weight = found.layer.linears[part.role].weight.detach().double()
            outputs = root(metrics[found.number].pop(part.name)) @ weight
            paths[part.name].append(eliminate(gram.centred()[0].div_(gram.rows), outputs, part.size(found.layer)))
        grams.append({name: gram.compact() for name, gram in found.grams.items()})
        del found, gram, weight, outputs
    expected = logits(model, sample, precision) if len(options.head_factors) > 1 else []
    tried: list[tuple[float, Plan, torch.Tensor]] = []
    folded: Folded | None = None
    # The usual one last, so that it need not be made again.
    for factor in reversed(options.head_factors):
        report("interpolate", f"candidate {factor:g}", (len(layers) + 1) / (len(layers) + 2))
        counts = allocate(
            [path.errors for path in paths["heads"]], [path.errors for path in paths["neurons"]], costs, budget, factor
        )
        plan = _first(paths, counts)
        folded = None  # no two of them side by side
        folded = fold(model, plan, grams, bias=True, damping=DAMPING)
        values = divergences(expected, logits(folded.model, sample, precision)) if expected else torch.zeros(1)
        tried.insert(0, (factor, plan, values))
    assert folded is not None
    measured = {f"{factor:g}": float(values.mean()) for factor, _, values in tried}
    _, plan, least = tried[0]
    for _, other, values in tried[1:]:
        if _better(values, least):
            plan, least = other, values
    if plan != tried[0][1]:
        folded = None
        folded = fold(model, plan, grams, bias=True, damping=DAMPING)
    del grams
    report("interpolate", "", 1.0)
    notes: dict[str, Any] = {"divergence_by_head_factor": measured} if expected else {}
    yield _stage("interpolate", folded, plan, begin, notes)
    if not options.reconstruct:
        return

    begin = time.perf_counter()
    done = reconstruct(
        folded.model,
        model,
        batches,
        first_token_only=first_token_only,
        storage=options.storage,
        precision=precision,
        progress=lambda name, number: report("reconstruct", name, number / (2 * len(layers))),
    )
    report("reconstruct", "", 1.0)
    notes = {"ridges": done.ridges, "hidden_state_bytes": done.state_bytes}
    yield Stage("reconstruct", folded.model, plan, time.perf_counter() - begin, notes)


def head_order(gram: Gram, size: int) -> torch.Tensor:
    """Heads in the order of pivots, each head's contexts read as one column; int64 (heads,)."""
    return pivoted_cholesky(group_gram(gram.matrix, size)).order


def _better(values: torch.Tensor, than: torch.Tensor) -> bool:
    """Whether values are smaller on average by more than the standard error of the difference."""
    difference = than - values
    return bool(difference.mean() > difference.std() / len(difference) ** 0.5)


def _first(paths: dict[str, list[Path]], counts: Counts) -> Plan:
    kept = {
        name: [path.order[:count] for path, count in zip(paths[name], of, strict=True)]
        for name, of in (("heads", counts.heads), ("neurons", counts.neurons))
    }
    return plan_of(kept["heads"], kept["neurons"])


def _stage(name: str, folded: Folded, plan: Plan, begin: float, notes: Mapping[str, Any] | None = None) -> Stage:
    told: dict[str, Any] = dict(notes or {})
    if folded.dependent:
        told["dependent_channels"] = {
            name: f"{rank} of {channels} kept channels are independent"
            for name, (rank, channels) in folded.dependent.items()
        }
    return Stage(name, folded.model, plan, time.perf_counter() - begin, told)
