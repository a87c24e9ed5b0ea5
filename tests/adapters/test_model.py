"""What must hold for both adapters on a whole model: merging, switching, freezing, training, counting."""

from __future__ import annotations

import copy
import io
from typing import Any

import pytest
import torch
from peft import get_peft_model
from torch import nn
from transformers import (
    BertConfig,
    BertForSequenceClassification,
    DistilBertConfig,
    DistilBertForSequenceClassification,
    OPTConfig,
    OPTForCausalLM,
)

from splora.adapters import MaskedAdapterLayer, attach_block_masks, freeze_masks
from splora.errors import InputError
from splora.masks.attach import masked_layers
from splora.masks.grid import expand

METHODS = ("topK", "topK_global", "threshold", "sigmoied_threshold", "l0", "magnitude")


def adapter_layers(model: nn.Module) -> list[MaskedAdapterLayer]:
    return [module for module in model.modules() if isinstance(module, MaskedAdapterLayer)]


def test_a_new_adapter_changes_nothing_and_a_step_later_it_does(
    method: str, bert: Any, config_of: Any, train: Any, logits: Any
) -> None:
    before = logits(bert())
    model = get_peft_model(bert(), config_of(method, bias="none", modules_to_save=None, task_type=None))
    assert torch.equal(logits(model), before)
    train(model, count=1)
    assert not torch.equal(logits(model), before)
    assert all(layer.get_delta_weight("default").abs().max() > 0 for layer in adapter_layers(model))


def test_only_the_adapter_and_the_modules_to_save_move(method: str, bert: Any, config_of: Any, train: Any) -> None:
    model = get_peft_model(bert(), config_of(method, modules_to_save=["LayerNorm"]))
    attach_block_masks(model, "topK", "uniform", 0.1)[0].set_threshold(0.5)
    before = {name: parameter.detach().clone() for name, parameter in model.named_parameters()}
    train(model, count=2)
    moved = {name for name, parameter in model.named_parameters() if not torch.equal(parameter, before[name])}
    assert moved == {name for name, parameter in model.named_parameters() if parameter.requires_grad}
    assert all(f"{method}_" in name or ".modules_to_save.default." in name for name in moved)
    assert any("LayerNorm" in name for name in moved)
    assert any("qa_outputs" in name for name in moved)
    base = dict(bert().named_parameters())
    for name, parameter in model.named_parameters():
        if name.endswith("base_layer.weight") or name.endswith("base_layer.bias"):
            original = name.removeprefix("base_model.model.").replace(".base_layer", "")
            assert torch.equal(parameter, base[original]), name


@pytest.mark.parametrize("pruning", METHODS)
def test_merged_output_is_the_unmerged_one_and_unmerging_restores(
    method: str, pruning: str, trained: Any, logits: Any
) -> None:
    model = trained(method, pruning=pruning, density=0.5 if pruning != "threshold" else 0.0)
    weights = [layer.base_layer.weight.clone() for layer in adapter_layers(model)]
    biases = [layer.base_layer.bias.clone() for layer in adapter_layers(model)]
    expected = logits(model)
    model.merge_adapter(safe_merge=True)
    assert torch.equal(logits(model), expected)
    pruned = {layer: expand(~layer.binary_mask(), layer.block_shapes["default"]) for layer in adapter_layers(model)}
    assert sum(int(blocks.sum()) for blocks in pruned.values()) > 0
    for layer, blocks in pruned.items():
        assert (layer.base_layer.weight[blocks].view(torch.int32) == 0).all(), "pruned weights are +0 to the bit"
    model.unmerge_adapter()
    for layer, weight, bias in zip(adapter_layers(model), weights, biases, strict=True):
        assert torch.equal(layer.base_layer.weight, weight)
        assert torch.equal(layer.base_layer.bias, bias)
    assert torch.equal(logits(model), expected)


def test_merge_and_unload_leaves_a_stock_model(method: str, trained: Any, bert: Any, logits: Any) -> None:
    model = trained(method)
    expected = logits(model)
    plain = model.merge_and_unload()
    assert list(plain.state_dict()) == list(bert().state_dict())
    assert torch.equal(logits(plain), expected)
    fresh = bert()
    fresh.load_state_dict(plain.state_dict())
    assert torch.equal(logits(fresh), expected)


def test_disabled_adapters_leave_the_base_model(method: str, trained: Any, bert: Any, logits: Any) -> None:
    model = trained(method)
    adapted, base = logits(model), logits(bert())
    with model.disable_adapter():
        assert torch.equal(logits(model), base)
    assert torch.equal(logits(model), adapted)
    model.merge_adapter()
    with model.disable_adapter():
        assert torch.equal(logits(model), base)


def test_two_adapters_keep_masks_biases_and_heads_apart(
    method: str, trained: Any, config_of: Any, train: Any, logits: Any
) -> None:
    model = trained(method, density=0.75)
    first = logits(model)
    model.add_adapter("other", config_of(method, bias="all"))
    assert torch.equal(logits(model), first)
    trainable = {name for name, parameter in model.named_parameters() if parameter.requires_grad}
    assert trainable
    assert all(".other" not in name for name in trainable)

    model.set_adapter("other")
    trainable = {name for name, parameter in model.named_parameters() if parameter.requires_grad}
    assert trainable
    assert all(".default" not in name for name in trainable)
    for mask in attach_block_masks(model, "magnitude", adapter_name="other"):
        mask.set_threshold(0.25)
    train(model)
    second = logits(model)
    assert not torch.allclose(first, second, atol=1e-3)

    for name, expected in (("default", first), ("other", second), ("default", first)):
        model.set_adapter(name)
        assert torch.equal(logits(model), expected)
    for layer in adapter_layers(model):
        assert layer.kept_blocks("default") == round(0.75 * layer.binary_mask("default").numel())
        assert layer.kept_blocks("other") == round(0.25 * layer.binary_mask("other").numel())
        assert not torch.equal(layer.bias_of("default"), layer.bias_of("other"))
    heads = model.base_model.model.qa_outputs.modules_to_save
    assert not torch.equal(heads["default"].weight, heads["other"].weight)

    freeze_masks(model, "other")
    model.set_adapter("other")
    assert torch.equal(logits(model), second)
    with pytest.warns(UserWarning, match="which is now deleted"):
        model.delete_adapter("other")
    assert torch.equal(logits(model), first)
    assert not any(".other" in name for name in model.state_dict())


def test_several_active_adapters_are_refused(method: str, trained: Any, config_of: Any, logits: Any) -> None:
    model = trained(method, task_type=None)
    model.add_adapter("other", config_of(method, task_type=None))
    model.base_model.set_adapter(["default", "other"])
    with pytest.raises(InputError, match="default, other are active together"):
        logits(model)
    model.base_model.set_adapter("default")
    with pytest.raises(InputError, match="merge one at a time"):
        model.merge_adapter(["default", "other"])


@pytest.mark.parametrize("density", [0.25, 0.5, 1.0])
def test_masks_match_their_density(method: str, density: float, trained: Any) -> None:
    model = trained(method, density=density)
    for layer in adapter_layers(model):
        mask = layer.binary_mask()
        assert mask.dtype == torch.bool
        assert layer.kept_blocks() == round(density * mask.numel())
    assert set(masked_layers(model)) == {f"base_model.model.{name}" for name in model.base_model.adapter_layers()}
    freeze_masks(model)
    assert masked_layers(model) == {}
    for layer in adapter_layers(model):
        assert layer.kept_blocks() == round(density * layer.binary_mask().numel())


@pytest.mark.parametrize("pruning", METHODS)
def test_freezing_drops_scores_and_what_pruned_blocks_learned(
    method: str, pruning: str, trained: Any, logits: Any
) -> None:
    model = trained(method, pruning=pruning, density=0.5 if pruning != "threshold" else 0.0)
    expected, learned = logits(model), model.base_model.learned_parameters("default")
    masks = {layer: layer.binary_mask().clone() for layer in adapter_layers(model)}
    assert not all(mask.all() for mask in masks.values())
    before = {layer: [part.detach().clone() for part in layer.delta_parts("default")] for layer in masks}
    freeze_masks(model)
    assert torch.equal(logits(model), expected)
    assert model.base_model.learned_parameters("default") == learned
    assert not any("scores" in name for name in model.state_dict())
    for layer, mask in masks.items():
        assert torch.equal(layer.binary_mask(), mask)
        old, new = before[layer], layer.delta_parts("default")
        if method == "splopa":
            wanted = [old[0], old[1], old[2] * mask.flatten()[:, None]]
        else:
            p, q = layer.block_shapes["default"]
            wanted = [old[0] * mask.any(1).repeat_interleave(p)[:, None], old[1] * mask.any(0).repeat_interleave(q)]
        assert all(torch.equal(found, part) for found, part in zip(new, wanted, strict=True))


def test_scores_learn(method: str, bert: Any, config_of: Any, batch: Any) -> None:
    model = get_peft_model(bert(), config_of(method))
    masks = attach_block_masks(model, "topK", "uniform", 0.1)
    for mask in masks:
        mask.set_threshold(0.5)
    model(**batch).loss.backward()
    assert len(masks) == 12
    layers = adapter_layers(model)
    assert all(layer.block_mask.scores.grad.abs().max() > 0 for layer in layers)
    of_pruned = torch.cat([layer.block_mask.scores.grad[~layer.binary_mask()] for layer in layers])
    assert (of_pruned != 0).float().mean() > 0.25, "pruned blocks can come back"
    assert [mask.index for mask in masks] == list(range(12))


def test_an_unknown_adapter_or_method_is_named(method: str, bert: Any, config_of: Any) -> None:
    model = get_peft_model(bert(), config_of(method))
    with pytest.raises(InputError, match="no adapter 'defautl'; it has default"):
        attach_block_masks(model, "topK", adapter_name="defautl")
    with pytest.raises(InputError, match="no adapter 'default'; it has none"):
        freeze_masks(bert())
    with pytest.raises(InputError, match="pruning_method is 'topk'"):
        attach_block_masks(model, "topk")
    with pytest.raises(InputError, match="has no adapter 'other'"):
        adapter_layers(model)[0].binary_mask("other")


def test_a_training_model_resumes_from_its_state_dict(
    method: str, bert: Any, config_of: Any, trained: Any, train: Any, logits: Any
) -> None:
    model = trained(method)
    buffer = io.BytesIO()
    torch.save(model.state_dict(), buffer)
    buffer.seek(0)
    torch.manual_seed(99)
    resumed = get_peft_model(bert(), config_of(method))
    attach_block_masks(resumed, "topK", "uniform", 0.1)
    resumed.load_state_dict(torch.load(buffer, weights_only=True))
    assert torch.equal(logits(resumed), logits(model))
    for left, right in zip(model.state_dict().items(), resumed.state_dict().items(), strict=True):
        assert left[0] == right[0]
        assert torch.equal(left[1], right[1])
    for either in (model, resumed):
        torch.manual_seed(5)
        train(either, count=2)
    assert torch.equal(logits(resumed), logits(model))


def test_a_deep_copy_is_independent(method: str, trained: Any, train: Any, logits: Any) -> None:
    model = trained(method)
    expected = logits(model)
    twin = copy.deepcopy(model)
    assert torch.equal(logits(twin), expected)
    train(twin)
    assert torch.equal(logits(model), expected)
    assert not torch.equal(logits(twin), expected)
    assert len(list(twin.parameters())) == len(list(model.parameters()))


def test_autocast_runs_forward_and_backward_in_bfloat16(method: str, trained: Any, batch: Any) -> None:
    model = trained(method)
    exact = model(**batch).loss
    with torch.autocast("cpu", torch.bfloat16):
        loss = model(**batch).loss
    loss.backward()
    torch.testing.assert_close(loss.float(), exact, rtol=0.02, atol=0.02)
    for name, parameter in model.named_parameters():
        if parameter.requires_grad and not name.endswith("key.splopa_bias.default"):
            assert parameter.grad is not None, name
            assert torch.isfinite(parameter.grad).all(), name


@pytest.mark.parametrize("family", ["bert", "distilbert", "opt"])
def test_other_families_take_the_adapters(method: str, family: str, config_of: Any) -> None:
    small = {"num_labels": 3, "vocab_size": 40}
    if family == "bert":
        sizes = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 32}
        base: nn.Module = BertForSequenceClassification(BertConfig(**small, **sizes))
        targets, task, head = ["query", "key", "value", "dense"], "SEQ_CLS", "classifier"
    elif family == "distilbert":
        base = DistilBertForSequenceClassification(
            DistilBertConfig(**small, dim=16, n_layers=1, n_heads=2, hidden_dim=32)
        )
        targets, task, head = ["q_lin", "k_lin", "v_lin", "out_lin", "lin1", "lin2"], "SEQ_CLS", "pre_classifier"
    else:
        sizes = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "ffn_dim": 32}
        base = OPTForCausalLM(OPTConfig(vocab_size=40, word_embed_proj_dim=16, max_position_embeddings=16, **sizes))
        targets, task, head = r".*\.(q_proj|k_proj|v_proj|out_proj|fc1|fc2)", "CAUSAL_LM", None
    config = config_of(
        method,
        target_modules=targets,
        task_type=task,
        block_shape=(8, 8),
        block_shapes={},
        modules_to_save=[head] if head else None,
    )
    model = get_peft_model(base, config)
    for mask in attach_block_masks(model, "topK", "uniform", 0.1):
        mask.set_threshold(0.5)
    ids = torch.randint(3, 40, (2, 8))
    labels = ids if family == "opt" else torch.tensor([0, 2])
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=0.01)
    losses = []
    for _ in range(8):
        optimizer.zero_grad()
        loss = model(input_ids=ids, labels=labels).loss
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < losses[0]


def test_a_plain_model_of_linears(method: str, config_of: Any) -> None:
    model = nn.Sequential(nn.Linear(16, 32), nn.ReLU(), nn.Linear(32, 16, bias=False))
    x = torch.randn(5, 16)
    expected = model(x)
    config = config_of(method, target_modules=["0", "2"], task_type=None, block_shape=(8, 8), block_shapes={})
    adapted = get_peft_model(model, config)
    torch.testing.assert_close(adapted(x), expected)
