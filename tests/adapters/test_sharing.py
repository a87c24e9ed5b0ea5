"""SPLoPA's prototypes and position weights, shared by layers or not."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from peft import get_peft_model

from splora.adapters import freeze_masks
from splora.adapters.splopa.layer import SPLoPALayer


def layers(model: Any) -> list[SPLoPALayer]:
    return list(model.base_model.adapter_layers("default").values())


def test_shared_prototypes_are_one_parameter(bert: Any, config_of: Any) -> None:
    model = get_peft_model(bert(), config_of("splopa"))
    assert len({id(layer.part("columns", "default")) for layer in layers(model)}) == 1
    names = [name for name, _ in model.named_parameters() if "columns" in name]
    assert names == ["base_model.splopa_columns.default.8x8"]
    assert [name for name in model.state_dict() if "columns" in name] == names
    shared = layers(model)[0].part("columns", "default")
    assert sum(parameter is shared for parameter in model.parameters()) == 1
    assert sum(parameter is shared for _, parameter in model.named_parameters(remove_duplicate=False)) == 1
    assert shared.requires_grad


def test_a_block_shape_has_prototypes_of_its_own(bert: Any, config_of: Any) -> None:
    model = get_peft_model(bert(), config_of("splopa", block_shapes={"query": (4, 16), "key": (4, 16)}))
    shapes = {name: tuple(p.shape) for name, p in model.named_parameters() if "_columns" in name or "_rows" in name}
    assert shapes == {
        "base_model.splopa_columns.default.8x8": (4, 8, 2),
        "base_model.splopa_columns.default.4x16": (4, 4, 2),
        "base_model.splopa_rows.default.8x8": (4, 2, 8),
        "base_model.splopa_rows.default.4x16": (4, 2, 16),
    }


def test_prototypes_of_a_layer_alone(bert: Any, config_of: Any, train: Any) -> None:
    model = get_peft_model(bert(), config_of("splopa", shared_prototypes=False))
    assert len({id(layer.part("columns", "default")) for layer in layers(model)}) == 12
    assert sum("splopa_columns" in name for name, _ in model.named_parameters()) == 12
    train(model, 2)
    columns = [layer.part("columns", "default") for layer in layers(model)]
    assert not torch.equal(columns[0], columns[1])


@pytest.mark.parametrize("trainable", [True, False])
def test_a_further_adapter_leaves_shared_parameters_as_trainable_as_they_were(
    bert: Any, config_of: Any, tmp_path: Any, trained: Any, trainable: bool
) -> None:
    trained("splopa", bias="none").save_pretrained(tmp_path)
    model = get_peft_model(bert(), config_of("splopa", bias="none"))
    model.load_adapter(tmp_path, "loaded", is_trainable=trainable)
    state = {name: p.requires_grad for name, p in model.base_model.splopa_columns.named_parameters()}
    assert state == {"default.8x8": True, "loaded.8x8": trainable}
    model.set_adapter("loaded")
    state = {name: p.requires_grad for name, p in model.base_model.splopa_columns.named_parameters()}
    assert state == {"default.8x8": False, "loaded.8x8": True}


def test_the_initial_range_is_that_of_a_prototype_s_entries(bert: Any, config_of: Any) -> None:
    for rank in (1, 4):
        config = config_of("splopa", num_prototypes=512, prototype_rank=rank, init_range=1e-3)
        layer = layers(get_peft_model(bert(), config))[0]
        prototypes = layer.part("columns", "default") @ layer.part("rows", "default")
        assert prototypes.square().mean().sqrt().item() == pytest.approx(1e-3, rel=0.15)


def test_shared_position_weights_one_set_per_weight_shape(trained: Any, logits: Any) -> None:
    model = trained("splopa", shared_position_weights=True)
    shared = {n: tuple(p.shape) for n, p in model.named_parameters() if "position_weights" in n}
    assert shared == {
        "base_model.splopa_position_weights.default.16x16_8x8": (4, 4),
        "base_model.splopa_position_weights.default.32x16_8x8": (8, 4),
        "base_model.splopa_position_weights.default.16x32_8x8": (8, 4),
    }
    assert all(layer.learned_parameters("default") == layer.base_layer.bias.numel() for layer in layers(model))
    before, expected = model.base_model.learned_parameters("default"), logits(model)
    freeze_masks(model)
    assert torch.equal(logits(model), expected)
    for layer in layers(model):
        kept = layer.part("position_weights", "default").abs().sum(1) > 0
        assert kept[layer.binary_mask().flatten()].all()
    rows = sum(int((p.abs().sum(1) > 0).sum()) for n, p in model.named_parameters() if "position_weights" in n)
    biases = sum(layer.base_layer.bias.numel() for layer in layers(model))
    assert before == rows * 4 + 2 * 4 * 8 * 2 + biases


def test_learned_parameters_count_kept_blocks_and_shared_prototypes_once(trained: Any) -> None:
    model = trained("splopa", density=0.5, bias="none")
    blocks = sum(layer.kept_blocks() for layer in layers(model))
    assert blocks == 2 * (4 * 2 + 2 * 4)
    assert model.base_model.learned_parameters("default") == blocks * 4 + 2 * (4 * 8 * 2)


def test_learned_parameters_of_splora_count_kept_rows_and_columns(trained: Any) -> None:
    model = trained("splora", density=0.5, bias="none")
    # rows of 1 × 16: half the rows of B, all of A; columns of 16 × 1: the reverse; 8 × 16 of 32 × 16: half the rows
    per_layer = 3 * (8 * 2 + 2 * 16) + (16 * 2 + 2 * 8) + (16 * 2 + 2 * 16) + (16 * 2 + 2 * 16)
    assert model.base_model.learned_parameters("default") == 2 * per_layer
