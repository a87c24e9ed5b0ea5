"""Masks of heads and neurons: one value, applied once; its gradient is that of a gate."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from splora import anatomy
from splora.masks import FollowingMask, masked_layers, update_global_cutoffs
from splora.training.model import prepare
from splora.training.options import AdapterOptions, PruningOptions

ADAPTERS = ("none", "splopa", "splora")


def network_of(tiny: Any, adapter: str = "none", method: str = "topK", **options: Any) -> tuple[nn.Module, list[Any]]:
    """A tiny BERT with masks of heads and neurons."""
    torch.manual_seed(1)
    pruning = PruningOptions(method=method, units="heads_and_neurons", **options)
    kinds = AdapterOptions(kind=adapter, num_prototypes=3, rank=2)
    return prepare(tiny("BertForQuestionAnswering"), kinds, pruning)


def leaders(masks: list[Any]) -> list[Any]:
    return [mask for mask in masks if not isinstance(mask, FollowingMask)]


@pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated:FutureWarning")
@pytest.mark.parametrize("adapter", ADAPTERS)
def test_the_gradient_of_a_score_is_that_of_a_gate_on_what_the_unit_puts_out(tiny: Any, adapter: str) -> None:
    """Naively: multiply a one into the input of the output projection, unit by unit, and differentiate."""
    network, masks = network_of(tiny, adapter)
    for mask in masks:
        mask.set_threshold(0.5)
        if mask.scores is not None:
            with torch.no_grad():
                mask.scores.normal_()
    ids = torch.randint(5, 60, (2, 7), generator=torch.Generator().manual_seed(0))

    def loss() -> Tensor:
        outputs = network(input_ids=ids)
        total: Tensor = outputs.start_logits.square().sum() + outputs.end_logits.sum()
        return total

    network.eval()
    loss().backward()
    found = {name: mask.scores.grad for name, mask in by_name(network).items() if mask.scores is not None}
    for name, mask in by_name(network).items():
        if mask.scores is None:
            continue
        layer = network.get_submodule(name)
        width = mask.block[1]
        gates = torch.ones(mask.scores.numel(), requires_grad=True)
        kept = mask.binary().flatten().float()

        # The weight as it is, unmasked, under gates that stand where the mask does.
        def gated(_: nn.Module, arguments: tuple[Any, ...], gates: Tensor = gates, width: int = width) -> Any:
            return (arguments[0] * gates.repeat_interleave(width),)

        handle = layer.register_forward_pre_hook(gated)
        mask.fix(torch.ones(mask.grid, dtype=torch.bool))
        with torch.no_grad():
            gates.copy_(kept)
        wanted = torch.autograd.grad(loss(), gates)[0]
        handle.remove()
        mask.fixed = None
        torch.testing.assert_close(found[name].flatten(), wanted, atol=1e-5, rtol=1e-4)


def by_name(network: nn.Module) -> dict[str, Any]:
    layers: dict[str, Any] = masked_layers(network)
    return {name: layer.block_mask for name, layer in layers.items()}


def test_one_value_for_all_parts_of_a_unit(tiny: Any) -> None:
    network, masks = network_of(tiny)
    for mask in leaders(masks):
        mask.set_threshold(0.5)
        with torch.no_grad():
            mask.scores.normal_()
    layers: dict[str, Any] = masked_layers(network)
    places = {place: name for name, place in anatomy.encoder_linears(network).items()}
    assert len(leaders(masks)) == 6  # one of heads and one of neurons for each of three layers
    for number in range(3):
        heads = layers[places[anatomy.Place(number, "attention_output")]].binary_mask()
        assert heads.shape == (1, 4)
        assert heads.sum() == 2
        for role in ("query", "key", "value"):
            assert torch.equal(layers[places[anatomy.Place(number, role)]].binary_mask(), heads.T)
        neurons = layers[places[anatomy.Place(number, "ffn_out")]].binary_mask()
        assert neurons.sum() == 10
        assert torch.equal(layers[places[anatomy.Place(number, "ffn_in")]].binary_mask(), neurons.T)


@pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated:FutureWarning")
@pytest.mark.parametrize("adapter", ADAPTERS)
def test_magnitude_is_the_mean_over_all_weights_of_a_unit(tiny: Any, adapter: str) -> None:
    network, masks = network_of(tiny, adapter, "magnitude")
    base = tiny("BertForQuestionAnswering")
    for mask in masks:
        mask.set_threshold(0.3)
    layers: dict[str, Any] = masked_layers(copy.deepcopy(network))  # a copy looks at its own weights
    for number, layer in enumerate(anatomy.layers(base)):
        place = anatomy.Place(number, "ffn_out")
        name = next(name for name, other in anatomy.encoder_linears(network).items() if other == place)
        rows, columns = layer.linears["ffn_in"].weight, layer.linears["ffn_out"].weight
        size = torch.cat([rows, columns.T], dim=1).abs().mean(1)
        kept = torch.zeros(20, dtype=torch.bool)
        kept[size.topk(6).indices] = True
        assert torch.equal(layers[name].binary_mask().flatten(), kept)


def test_heads_compete_with_heads_and_neurons_with_neurons(tiny: Any) -> None:
    """So a global threshold is the share of heads, of neurons, and thus of the MACs that stays."""
    _, masks = network_of(tiny, method="topK_global")
    for mask in leaders(masks):
        mask.set_threshold(0.5)
        with torch.no_grad():
            mask.scores.normal_().add_(100.0 * (mask.unit == "head"))
    update_global_cutoffs(masks)
    kept = {
        unit: sum(int(mask.binary().sum()) for mask in leaders(masks) if mask.unit == unit)
        for unit in ("head", "neuron")
    }
    assert kept == {"head": 6, "neuron": 30}


def test_a_fixed_mask_outlives_its_scores_and_a_checkpoint(tiny: Any) -> None:
    network, masks = network_of(tiny)
    mask = leaders(masks)[0]
    wanted = torch.tensor([[True, False, False, True]])
    mask.fix(wanted)
    mask.set_threshold(1.0)
    assert torch.equal(mask.binary(), wanted)
    mask.forward().sum().backward()
    assert mask.scores.grad is not None  # processes that train together all expect one
    other, others = network_of(tiny)
    other.load_state_dict(network.state_dict())
    assert torch.equal(leaders(others)[0].binary(), wanted)
    assert leaders(others)[1].fixed is None
