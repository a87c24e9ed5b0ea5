"""Remaining and learned weights against a count by hand."""

from __future__ import annotations

import pytest
import torch
from transformers import BertConfig, BertForQuestionAnswering

from splora.adapters import freeze_masks
from splora.training.counting import count_weights
from splora.training.model import prepare
from splora.training.options import AdapterOptions, PruningOptions

TINY = {"vocab_size": 50, "hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 32}
#: 2 layers of 4 · 16 · 16 attention and 2 · 16 · 32 feed-forward weights.
ENCODER = 2 * (4 * 16 * 16 + 2 * 16 * 32)
#: 2 layers of 4 · 16 + 32 + 16 biases; 5 norms of 2 · 16; a head of 2 · 16 + 2.
BIASES, NORMS, HEAD = 2 * (4 * 16 + 32 + 16), 5 * 32, 34


def _base() -> BertForQuestionAnswering:
    torch.manual_seed(0)
    return BertForQuestionAnswering(BertConfig(**TINY))


def test_dense_fine_tuning_learns_everything() -> None:
    base = _base()
    counts = count_weights(base)
    assert (counts.encoder, counts.remaining) == (ENCODER, ENCODER)
    assert counts.learned == sum(parameter.numel() for parameter in base.parameters())
    assert counts.remaining_percent == 100


def test_plain_pruning_learns_what_it_keeps() -> None:
    base = _base()
    everything = sum(parameter.numel() for parameter in base.parameters())
    pruning = PruningOptions(method="topK", attention_block=(8, 8), ffn_block=(8, 16))
    network, masks = prepare(base, AdapterOptions(), pruning)
    for mask in masks:
        mask.set_threshold(0.5)
    counts = count_weights(network)
    assert counts.remaining == ENCODER // 2
    assert counts.learned == everything - ENCODER // 2


@pytest.mark.parametrize("frozen", [False, True])
def test_splopa_counts_kept_position_weights_and_prototypes_once(frozen: bool) -> None:
    prototypes, rank = 3, 2
    pruning = PruningOptions(method="topK", attention_block=(8, 8), ffn_block=(8, 16))
    adapter = AdapterOptions(kind="splopa", num_prototypes=prototypes, prototype_rank=rank)
    network, masks = prepare(_base(), adapter, pruning)
    for mask in masks:
        mask.set_threshold(0.5)
    if frozen:
        freeze_masks(network)
    kept_blocks = (2 * 4 * (16 * 16) // 64 + 2 * 2 * (16 * 32) // 128) // 2
    shared = prototypes * rank * ((8 + 8) + (8 + 16))
    counts = count_weights(network)
    assert counts.remaining == ENCODER // 2
    assert counts.learned == kept_blocks * prototypes + shared + BIASES + NORMS + HEAD


def test_splora_counts_rows_and_columns_with_a_kept_block() -> None:
    pruning = PruningOptions(method="topK", attention_block=(8, 16), ffn_block=(8, 16))
    network, masks = prepare(_base(), AdapterOptions(kind="splora", rank=2), pruning)
    for mask in masks:
        mask.set_threshold(0.5)
    # Ties are broken by the lowest index, so the first half of the block rows stays: of 16 (attention, ffn_out) or
    # 32 (ffn_in) rows. All columns stay where a kept row spans them: ffn_out's 2 of 4 blocks are its first row.
    rows, columns = 2 * (4 * 8 + 16 + 8), 2 * (4 * 16 + 16 + 32)
    counts = count_weights(network)
    assert counts.remaining == ENCODER // 2
    assert counts.learned == 2 * (rows + columns) + BIASES + NORMS + HEAD


def test_shared_position_weights_count_where_some_layer_keeps_the_block() -> None:
    pruning = PruningOptions(method="topK", attention_block=(8, 8), ffn_block=(8, 16))
    adapter = AdapterOptions(kind="splopa", num_prototypes=3, prototype_rank=2, shared_position_weights=True)
    network, masks = prepare(_base(), adapter, pruning)
    for mask in masks:
        mask.set_threshold(0.5)
    # All scores are equal, so all layers of a shape keep the same half: 2 of 4 attention blocks, 4 of 8 of ffn_in
    # (32 × 16 in 8 × 16: 4 blocks, 2 stay) and 2 of 4 of ffn_out (16 × 32).
    kept = 2 + 2 + 2
    shared = 3 * 2 * ((8 + 8) + (8 + 16))
    assert count_weights(network).learned == kept * 3 + shared + BIASES + NORMS + HEAD
