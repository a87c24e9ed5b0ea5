"""STAT as published (Flynn et al. 2024): neurons first, then heads on the activations of what is left."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence

import torch
from torch import Tensor, nn

from splora import anatomy
from splora.export.plan import Plan
from splora.offload import keeper
from splora.posttraining.core.budget import Costs
from splora.posttraining.core.gram import Gram
from splora.posttraining.core.layer_grams import Batch, layer_grams
from splora.posttraining.core.precision import Precision
from splora.posttraining.core.stages import Report, Stage
from splora.posttraining.core.states import Storage
from splora.posttraining.stat.budget import by_depth, by_trend, published_counts
from splora.posttraining.stat.folding import fold, plan_of
from splora.posttraining.stat.interpolative import group_errors, group_gram, pivoted_cholesky


def prune_published(
    model: nn.Module,
    batches: Sequence[Batch],
    costs: Costs,
    budget: float,
    *,
    storage: Storage,
    precision: Precision,
    report: Report,
) -> Iterator[Stage]:
    """Yield the model after `neurons` and after `heads`; arguments as of `stat.prune_stat`, but `budget` in MACs."""
    begin = time.perf_counter()
    layers, grams, keep = anatomy.layers(model), [], keeper(model)
    neuron_orders, neuron_errors, head_errors = [], [], []
    for found in layer_grams(model, batches, storage=storage, precision=precision):
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
        grams.append({"neurons": gram.compact(keep)})
    weigh = by_trend if layers[0].causal else by_depth
    counts = published_counts(head_errors, neuron_errors, costs, budget, weigh)
    kept = [order[:count] for order, count in zip(neuron_orders, counts.neurons, strict=True)]
    all_heads = [torch.arange(layer.heads) for layer in layers]
    plan = plan_of(all_heads, kept)
    folded = fold(model, plan, grams, bias=False)
    del grams
    report("neurons", "", 1.0)
    yield Stage("neurons", folded.model, plan, time.perf_counter() - begin, folded.notes)

    begin = time.perf_counter()
    heads, head_grams = [], []
    for found in layer_grams(folded.model, batches, parts=("heads",), storage=storage, precision=precision):
        report("heads", f"layer {found.number}", found.number / len(layers))
        order = head_order(found.grams["heads"], found.layer.head_size)
        heads.append(order[: counts.heads[found.number]])
        head_grams.append({"heads": found.grams["heads"].compact(keep, torch.float64)})
    cut_heads = plan_of(heads, [torch.arange(count) for count in counts.neurons])
    folded = fold(folded.model, cut_heads, head_grams, bias=False)
    report("heads", "", 1.0)
    seconds = time.perf_counter() - begin
    yield Stage("heads", folded.model, Plan(cut_heads.heads, plan.neurons), seconds, folded.notes, last=True)


def head_order(gram: Gram, size: int) -> Tensor:
    """Heads in the order of pivots, each head's contexts read as one column; int64 (heads,)."""
    return pivoted_cholesky(group_gram(gram.matrix, size)).order
