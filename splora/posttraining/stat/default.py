"""What this program makes of STAT by default.

Errors are measured by what they do to the predictions, heads and neurons compete for one budget, and projections are
solved again on the pruned model's own activations. Each of these can be left out (`options.StatOptions`).
"""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator, Sequence
from typing import Any, TypedDict

import torch
from torch import Tensor, nn

from splora import anatomy
from splora.errors import InputError
from splora.export.plan import Plan
from splora.offload import keeper
from splora.posttraining.core.budget import Costs
from splora.posttraining.core.calibration import BATCH_TOKENS
from splora.posttraining.core.gram import Gram
from splora.posttraining.core.layer_grams import Batch, beginnings, layer_grams, regrouped, thinned
from splora.posttraining.core.precision import Precision
from splora.posttraining.core.sensitivity import (
    TEXT_TOKENS,
    Metrics,
    divergences,
    is_language_model,
    logits,
    output_metrics,
    root,
)
from splora.posttraining.core.stages import Report, Stage
from splora.posttraining.core.states import Outputs, Storage
from splora.posttraining.core.sublayers import PARTS
from splora.posttraining.stat.budget import Counts, allocate
from splora.posttraining.stat.elimination import Path, eliminate
from splora.posttraining.stat.folding import Folded, fold, plan_of
from splora.posttraining.stat.options import StatOptions
from splora.posttraining.stat.reconstruct import reconstruct

logger = logging.getLogger(__name__)

#: Tokens and sequences at least that sensitivities are measured on, and that candidates are compared on.
SENSITIVITY_SAMPLE = (2048, 256)
CANDIDATE_SAMPLE = (2048, 128)
#: The same of texts, whose every token is predicted, in tokens of beginnings of windows.
TEXT_SAMPLE = 8192
#: Tokens per channel of the widest layer, and at least, that heads and neurons are chosen by.
CHOICE_TOKENS_PER_CHANNEL, CHOICE_TOKENS = 8, 32768
#: Part of the Gram matrix's diagonal that is added before removed channels are combined from kept ones.
DAMPING = 1e-3

#: By `heads` and `neurons`, one of each layer.
Paths = dict[str, list[Path]]
#: Of each layer, by `heads` and `neurons`.
Grams = list[dict[str, Gram]]


class Passes(TypedDict):
    """How both stages go through the layers; see `layer_grams.layer_grams`."""

    first_token_only: bool
    storage: Storage
    precision: Precision
    outputs: Outputs | None


def prune_default(
    model: nn.Module,
    batches: Sequence[Batch],
    costs: Costs,
    budget: float,
    options: StatOptions,
    *,
    first_token_only: bool,
    precision: Precision,
    seed: int,
    report: Report,
) -> Iterator[Stage]:
    """Yield the model after `interpolate` and `reconstruct`; arguments as of `method.prune_stat`, but `budget` in MACs.

    The model of the first stage is the one that the second stage goes on to change.
    """
    begin = time.perf_counter()
    layers = len(anatomy.layers(model))
    metrics = None
    if options.sensitivities:
        report("interpolate", "sensitivities", 0.0)
        metrics = sensitivities(model, batches, seed, precision)
    looked_at = chosen_by(model, batches)
    # The dense model's pass of the second stage is the first stage's where that saw all samples.
    shared = options.reconstruct and _sequences(looked_at) == _sequences(batches)
    passes: Passes = {
        "first_token_only": first_token_only,
        "storage": options.storage,
        "precision": precision,
        "outputs": Outputs(model, batches, precision) if shared else None,
    }
    paths, grams = removal_paths(model, looked_at, metrics, passes, report, bias=options.bias)
    heads, neurons = ([path.errors for path in paths[name]] for name in ("heads", "neurons"))
    plans = [_first(paths, allocate(heads, neurons, costs, budget, factor)) for factor in options.head_factors]
    report("interpolate", "weights", (layers + 1) / (layers + 2))
    if len(plans) > 1:
        sample = list(regrouped(_sample(model, batches, CANDIDATE_SAMPLE), BATCH_TOKENS))
        plan, folded, notes = _best(model, plans, grams, options, sample, precision)
    else:
        plan, folded, notes = plans[0], fold(model, plans[0], grams, bias=options.bias, damping=DAMPING), {}
    del grams
    report("interpolate", "", 1.0)
    notes, seconds = {**notes, **folded.notes}, time.perf_counter() - begin
    yield Stage("interpolate", folded.model, plan, seconds, notes, last=not options.reconstruct)
    if not options.reconstruct:
        return

    begin = time.perf_counter()
    done = reconstruct(
        folded.model,
        model,
        batches,
        **passes,
        progress=lambda name, number: report("reconstruct", name, number / (2 * layers)),
    )
    report("reconstruct", "", 1.0)
    notes = {"ridges": done.ridges, "hidden_state_bytes": done.state_bytes}
    yield Stage("reconstruct", folded.model, plan, time.perf_counter() - begin, notes, last=True)


def sensitivities(model: nn.Module, batches: Sequence[Batch], seed: int, precision: Precision) -> Metrics:
    """What errors of each sub-layer's output are measured by, from a part of the batches."""
    return output_metrics(model, _sample(model, batches, SENSITIVITY_SAMPLE), seed, precision)


def _sample(model: nn.Module, batches: Sequence[Batch], sizes: tuple[int, int]) -> list[Batch]:
    """At least about so many tokens and sequences of all batches; of texts, the beginnings."""
    if is_language_model(model):
        return thinned(beginnings(batches, TEXT_TOKENS), TEXT_SAMPLE)
    return thinned(batches, *sizes)


def chosen_by(model: nn.Module, batches: Sequence[Batch]) -> list[Batch]:
    """The samples that heads and neurons are chosen by, as many as the widest layer asks for."""
    widest = max(max(linear.in_features for linear in layer.linears.values()) for layer in anatomy.layers(model))
    return thinned(batches, max(CHOICE_TOKENS, CHOICE_TOKENS_PER_CHANNEL * widest))


def _sequences(batches: Sequence[Batch]) -> int:
    return sum(len(batch["attention_mask"]) for batch in batches)


def removal_paths(
    model: nn.Module,
    batches: Sequence[Batch],
    metrics: Metrics | None,
    passes: Passes,
    report: Report,
    *,
    bias: bool,
) -> tuple[Paths, Grams]:
    """The order in which each layer's heads and neurons go, with errors, and the activations that it was found by.

    Args:
        metrics: what errors are measured by, used up; None: as they are.
        bias: deviations from the means count, where the projection has a bias that takes up the means.
    """
    layers = anatomy.layers(model)
    paths: Paths = {part.name: [] for part in PARTS}
    grams: Grams = []
    keep = keeper(model)
    for found in layer_grams(model, batches, **passes):
        report("interpolate", f"layer {found.number}", (found.number + 1) / (len(layers) + 2))
        for part in PARTS:
            # Compact at once: of the largest matrices there are in float64, one is enough.
            gram = found.grams[part.name].compact(keep)
            linear = found.layer.linears[part.role]
            weight = linear.weight.detach().double()
            if metrics is not None:
                weight = root(metrics[found.number].pop(part.name)()) @ weight
            centred = bias and linear.bias is not None
            name = f"layer.{found.number}.{part.name}"
            paths[part.name].append(_path(gram, weight, part.size(found.layer), centred, name))
            del weight
        grams.append(found.grams)
        del found, gram
    return paths, grams


def _path(gram: Gram, weight: Tensor, size: int, centred: bool, name: str) -> Path:
    """The order of a sub-layer's groups.

    Raises:
        InputError: its activations are of no use.
    """
    # Means far above deviations: what centring leaves of products in fp32 may be no squares of anything.
    for around_means in (True, False) if centred else (False,):
        products = (gram.centred()[0] if around_means else gram.matrix).div_(gram.rows)  # of its own since `compact`
        try:
            return eliminate(products, weight, size)
        except torch.linalg.LinAlgError:  # type: ignore[attr-defined]
            if around_means:
                logger.warning("%s: activations hardly vary around their means, which are counted, too.", name)
    raise InputError(f"{name}: no least squares can use its activations; the model's weights are broken.")


def _best(
    model: nn.Module,
    plans: Sequence[Plan],
    grams: Grams,
    options: StatOptions,
    sample: Sequence[Batch],
    precision: Precision,
) -> tuple[Plan, Folded, dict[str, Any]]:
    """The plan whose model's predictions are closest to the model's on a sample, that model, and what was measured."""
    expected = logits(model, sample, precision)
    measured: list[Tensor] = []
    folded: Folded | None = None
    # The usual one last, so that it need not be made again.
    for plan in reversed(plans):
        folded = None  # no two of them side by side
        folded = fold(model, plan, grams, bias=options.bias, damping=DAMPING)
        measured.insert(0, divergences(expected, logits(folded.model, sample, precision)))
    best = 0
    for number in range(1, len(plans)):
        if _better(measured[number], measured[best]):
            best = number
    if folded is None or plans[best] != plans[0]:
        folded = None
        folded = fold(model, plans[best], grams, bias=options.bias, damping=DAMPING)
    means = {f"{factor:g}": float(values.mean()) for factor, values in zip(options.head_factors, measured, strict=True)}
    return plans[best], folded, {"divergence_by_head_factor": means}


def _better(values: Tensor, than: Tensor) -> bool:
    """Whether values are smaller on average by more than the standard error of the difference."""
    difference = than - values
    return bool(difference.mean() > difference.std() / len(difference) ** 0.5)


def _first(paths: Paths, counts: Counts) -> Plan:
    """The plan that keeps so many of each layer's heads and neurons, those that go last."""
    kept = {
        name: [path.order[:count] for path, count in zip(paths[name], of, strict=True)]
        for name, of in (("heads", counts.heads), ("neurons", counts.neurons))
    }
    return plan_of(kept["heads"], kept["neurons"])
