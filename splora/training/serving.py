"""What a finished run serves: its adapter merged, what its masks emptied cut out, and how fast that is."""

from __future__ import annotations

import copy
from typing import Any

import torch
from torch import nn

from splora import anatomy
from splora.adapters import MaskedAdapterModel, freeze_masks
from splora.export.dense import dense_model, dense_parameters, parameters
from splora.export.plan import Plan
from splora.export.zeros import Cut, cut_zeros, zeros_of
from splora.masks import fold
from splora.posttraining.core.budget import Costs
from splora.posttraining.latency.measure import clock, median_times, model_call
from splora.tasks.model_inputs import positions

#: The batch that latencies are told for: sequences, tokens (fewer where the model has fewer positions), and rounds.
SEQUENCES, TOKENS, ROUNDS = 32, 128, 5


@torch.no_grad()
def merged(network: nn.Module) -> nn.Module:
    """The bare task model that computes what a trained network does; `network` stays as it is.

    Args:
        network: a task model, masked or not, or one in PEFT's wrapper.
    """
    from peft import PeftModel

    # In fp32 throughout: what is frozen may be stored in half, what was trained is not.
    own: Any = copy.deepcopy(network).float().eval()
    if not isinstance(own, PeftModel):
        return fold(own)
    if isinstance(own.base_model, MaskedAdapterModel):
        freeze_masks(own, own.active_adapter)
    bare: nn.Module = own.merge_and_unload()
    return bare


def smaller(network: nn.Module, *, cuts: bool = True) -> Cut:
    """A trained network as it is served: merged, and without the heads and neurons that its masks emptied.

    Args:
        cuts: whether they are taken out. Masks of blocks rarely empty any: their zeros stay in a stock model, and
            `splora export` cuts what there is.
    """
    bare = merged(network)
    if cuts:
        return cut_zeros(bare)
    whole = Plan.dense(bare)
    return Cut(bare, whole, whole, zeros_of(bare))


def describe(served: Cut, tokens: int) -> dict[str, Any]:
    """What a served model costs against the dense one of its configuration, as the result tells it.

    Args:
        tokens: the sequence length that MACs are counted at.
    """
    bare: Any = served.model
    layers, dense = anatomy.layers(bare), anatomy.dense_sizes(bare.config)
    costs = Costs.of(bare, tokens)
    heads, neurons = [layer.heads for layer in layers], [layer.neurons for layer in layers]
    return {
        "macs_kept": costs.total(heads, neurons) / costs.total(*dense),
        "macs_counted_at_tokens": tokens,
        "heads_kept": heads,
        "neurons_kept": neurons,
        "parameters": {"dense": dense_parameters(bare), "kept": parameters(bare)},
        "zeros_percent": 100 * served.zeros,
    }


def measure_latency(model: nn.Module, seed: int = 0) -> dict[str, Any]:
    """Median milliseconds of the dense model of a configuration and of the smaller one, by turns, on one batch.

    The dense one has random weights: time does not depend on them. Both run where the model is.
    """
    bare: Any = model.eval()
    first = next(bare.parameters())
    dense = dense_model(bare)
    tokens = min(TOKENS, positions(bare.config) or TOKENS)
    with torch.inference_mode():
        calls = {name: model_call(of, SEQUENCES, tokens, seed) for name, of in (("dense", dense), ("pruned", bare))}
        times = median_times(calls, ROUNDS, 1, seed, clock(first.device))
    return {
        **times,
        "batch_size": SEQUENCES,
        "tokens": tokens,
        "threads": torch.get_num_threads(),
        "device": str(first.device),
    }
