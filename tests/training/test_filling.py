"""`hybrid_filled`: what stays of a head is dense again, what does not is gone."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from splora import anatomy
from splora.errors import InputError
from splora.masks import masked_layers
from splora.training.filling import fill_heads
from splora.training.model import prepare
from splora.training.options import AdapterOptions, PruningOptions


@pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated:FutureWarning")
@pytest.mark.parametrize("adapter", ["none", "splopa"])
@pytest.mark.parametrize("family", ["BertForQuestionAnswering", "DistilBertForQuestionAnswering"])
def test_heads_that_live_are_filled(tiny: Any, family: str, adapter: str) -> None:
    torch.manual_seed(2)
    pruning = PruningOptions("topK", units="hybrid_filled", attention_block=(3, 6), ffn_block=(4, 4))
    network, masks = prepare(tiny(family), AdapterOptions(kind=adapter, num_prototypes=3), pruning)
    for mask in masks:
        mask.set_threshold(0.15)
        if mask.scores is not None:
            with torch.no_grad():
                mask.scores.normal_()
    layers: dict[str, Any] = masked_layers(network)
    names = {place: name for name, place in anatomy.encoder_linears(network).items()}

    def mask_of(number: int, role: str) -> torch.Tensor:
        kept: torch.Tensor = layers[names[anatomy.Place(number, role)]].binary_mask()
        return kept

    # Heads of 6 channels: two rows of blocks of 3 × 6 in value, one column in the output projection.
    lives = [
        mask_of(number, "value").any(1).unflatten(0, (4, 2)).any(1) & mask_of(number, "attention_output").any(0)
        for number in range(3)
    ]
    neurons = [mask_of(number, "ffn_out") for number in range(3)]
    assert 0 < sum(int(heads.sum()) for heads in lives) < 12
    fill_heads(network)
    for number, heads in enumerate(lives):
        for role in ("query", "key", "value"):
            assert torch.equal(mask_of(number, role), heads.repeat_interleave(2)[:, None].expand(8, 4))
        assert torch.equal(mask_of(number, "attention_output"), heads.expand(8, 4))
        assert torch.equal(mask_of(number, "ffn_out"), neurons[number])


def test_blocks_across_heads_cannot_be_filled(tiny: Any) -> None:
    pruning = PruningOptions("topK", units="hybrid_filled", attention_block=(4, 6), ffn_block=(4, 4))
    with pytest.raises(InputError, match=r"attention_block 4x6 lies across heads of 6 channels.*a divisor of 6"):
        prepare(tiny("BertForQuestionAnswering"), AdapterOptions(), pruning)
