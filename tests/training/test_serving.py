"""Wrapped, merged and cut: the same logits for every family, method, unit and adapter, with every input."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

from splora.masks import masked_layers, update_global_cutoffs
from splora.training.filling import fill_heads
from splora.training.model import prepare
from splora.training.options import AdapterOptions, PruningOptions
from splora.training.serving import describe, merged, smaller
from tests.families import TRAINED

FAMILIES = TRAINED
METHODS = ("magnitude", "topK", "topK_global", "threshold", "sigmoid_threshold", "l0")
#: Thresholds that leave nearly nothing, some and everything, by turns; of l0 all leave half.
KEPT = {"threshold": (3.0, 0.3, -9.0), "sigmoid_threshold": (0.95, 0.6, 0.0)}
UNITS = ("blocks", "heads_and_neurons", "hybrid", "hybrid_filled")
ADAPTERS = ("none", "splopa", "splora")
#: Blocks of the tiny models, 24 wide with heads of 6 channels and 20 neurons; an adapter's reach beyond the weight.
BLOCKS = {"attention_block": (3, 6), "ffn_block": (4, 4)}


def pruned(model: Any, method: str, units: str, adapter: str, kept: float = 0.4) -> nn.Module:
    """A wrapped model whose masks keep a part by random scores, with random adapters."""
    torch.manual_seed(3)
    options = AdapterOptions(kind=adapter, num_prototypes=3, rank=2)
    network, masks = prepare(model, options, PruningOptions(method=method, units=units, **BLOCKS))
    with torch.no_grad():
        for mask in masks:
            if mask.scores is not None:
                mask.scores.normal_()
            mask.set_threshold(kept)
        update_global_cutoffs(masks)
        if units == "hybrid_filled":
            fill_heads(network)
        for name, parameter in network.named_parameters():
            if parameter.requires_grad and "scores" not in name:
                parameter.add_(0.1 * torch.randn_like(parameter))
    return network.eval()


@pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated:FutureWarning")
@pytest.mark.parametrize("units", UNITS)
@pytest.mark.parametrize("family", FAMILIES)
def test_wrapped_merged_and_cut_say_the_same(tiny: Any, outputs: Any, family: str, units: str) -> None:
    """Families by units by methods; adapters take turns, so that each meets each of the others' pairs."""
    first = FAMILIES.index(family) + UNITS.index(units)
    for number, method in enumerate(METHODS):
        adapter = ADAPTERS[(first + number) % len(ADAPTERS)]
        kept = KEPT.get(method, (0.01, 0.4, 1.0))[(first + number // 2) % 3]
        network = pruned(tiny(family), method, units, adapter, kept)
        wanted = outputs(network)
        torch.testing.assert_close(outputs(merged(network)), wanted, atol=1e-5, rtol=1e-5)
        served = smaller(network)
        torch.testing.assert_close(outputs(served.model), wanted, atol=1e-5, rtol=1e-5)
        everything = all(bool(layer.binary_mask().all()) for layer in masked_layers(network).values())
        if units != "blocks" and not everything:
            assert served.is_smaller
            assert describe(served, 9)["macs_kept"] < 1
        if everything:
            assert not served.is_smaller
        if units in ("heads_and_neurons", "hybrid_filled"):
            assert served.zeros == 0


@pytest.mark.parametrize("family", FAMILIES)
def test_lora_is_merged(tiny: Any, outputs: Any, family: str) -> None:
    network, masks = prepare(tiny(family), AdapterOptions(kind="lora", lora_rank=3), PruningOptions(method="none"))
    assert not masks
    with torch.no_grad():
        for parameter in network.parameters():
            if parameter.requires_grad:
                parameter.add_(0.1 * torch.randn_like(parameter))
    wanted = outputs(network.eval())
    served = smaller(network)
    torch.testing.assert_close(outputs(served.model), wanted, atol=1e-5, rtol=1e-5)
    assert not served.is_smaller
