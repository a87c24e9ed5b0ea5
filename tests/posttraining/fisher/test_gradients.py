"""Mask gradients against masks that are really there, and against one backward pass per sample."""

from __future__ import annotations

import gc
import weakref
from typing import Any

import pytest
import torch
from torch import Tensor

from splora import anatomy
from splora.errors import InputError
from splora.posttraining.fisher import gradients
from splora.posttraining.fisher.gradients import GradientRows, mask_gradients, own_predictions_loss

MODELS = [
    "BertForSequenceClassification",
    "BertForQuestionAnswering",
    "RobertaForSequenceClassification",
    "RobertaForQuestionAnswering",
    "DistilBertForSequenceClassification",
    "DistilBertForQuestionAnswering",
    "OPTForSequenceClassification",
]


def batch_for(name: str, rows: int = 5) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(1)
    ids = torch.randint(5, 60, (rows, 8), generator=generator)
    mask = torch.ones_like(ids)
    for row, length in enumerate((8, 6, 3, 7, 5)[:rows]):
        ids[row, length:], mask[row, length:] = 1, 0
    batch = {"input_ids": ids, "attention_mask": mask}
    if name.endswith("QuestionAnswering"):
        return batch | {
            "start_positions": torch.tensor([1, 2, 0, 3, 4])[:rows],
            "end_positions": torch.tensor([2, 4, 1, 3, 4])[:rows],
        }
    return batch | {"labels": torch.tensor([0, 1, 1, 0, 1])[:rows]}


def by_real_masks(model: Any, batch: dict[str, Tensor], row: int) -> list[tuple[Tensor, Tensor]]:
    """Gradients of one sample's loss by masks that multiply, layer by layer: heads and neurons."""
    layers = anatomy.layers(model)
    masks, handles = [], []
    for layer in layers:
        heads, neurons = torch.ones(layer.heads, requires_grad=True), torch.ones(layer.neurons, requires_grad=True)
        masks.append((heads, neurons))
        for role, mask, size in (("attention_output", heads, layer.head_size), ("ffn_out", neurons, 1)):
            multiply = lambda _, x, mask=mask, size=size: (x[0] * mask.repeat_interleave(size),)  # noqa: E731
            handles.append(layer.linears[role].register_forward_pre_hook(multiply))
    loss = model(**{name: values[row : row + 1] for name, values in batch.items()}).loss
    gradients = torch.autograd.grad(loss, [mask for pair in masks for mask in pair])
    for handle in handles:
        handle.remove()
    return list(zip(gradients[::2], gradients[1::2], strict=True))


@pytest.mark.parametrize("name", MODELS)
def test_fisher_information_is_that_of_a_loop_over_samples_with_real_masks(tiny: Any, name: str) -> None:
    model, batch = tiny(name), batch_for(name)
    found = mask_gradients(model, [batch])
    wanted = [by_real_masks(model, batch, row) for row in range(5)]
    for number in range(len(found.heads)):
        for rows, part in ((found.heads[number], 0), (found.neurons[number], 1)):
            stacked = torch.stack([sample[number][part] for sample in wanted])
            torch.testing.assert_close(rows.gram(), stacked.T @ stacked, rtol=1e-4, atol=1e-6)
            torch.testing.assert_close(rows.importance(), stacked.double().square().sum(0), rtol=1e-4, atol=1e-6)
            assert rows.samples == 5


def test_a_mini_batch_gives_one_row_of_its_mean_loss(tiny: Any) -> None:
    name = "BertForSequenceClassification"
    model, batch = tiny(name), batch_for(name)
    found = mask_gradients(model, [batch], per_sample=False)
    mean = sum(by_real_masks(model, batch, row)[1][0] for row in range(5)) / 5
    assert found.heads[1].samples == 1
    torch.testing.assert_close(found.heads[1].importance(), mean.double().square(), rtol=1e-4, atol=1e-7)


def test_batches_add_up_whatever_their_size(tiny: Any) -> None:
    name = "BertForQuestionAnswering"
    model, batch = tiny(name), batch_for(name)
    parts = [{key: values[rows] for key, values in batch.items()} for rows in (slice(0, 2), slice(2, 5))]
    whole, split = mask_gradients(model, [batch]), mask_gradients(model, parts)
    torch.testing.assert_close(whole.neurons[2].gram(), split.neurons[2].gram(), rtol=1e-4, atol=1e-7)


def test_rows_fold_into_a_gram_matrix_once_they_are_more_than_masks() -> None:
    rows = torch.randn(23, 4, generator=torch.Generator().manual_seed(0))
    folded = GradientRows(4)
    for part in rows.split(3):
        folded.add(part)
        assert sum(map(len, folded._rows)) <= 4
    torch.testing.assert_close(folded.gram(), rows.T @ rows, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(folded.importance(), rows.double().square().sum(0), rtol=1e-5, atol=1e-5)


def test_weights_get_no_gradients_and_the_model_is_left_as_it_was(tiny: Any) -> None:
    name = "BertForSequenceClassification"
    model, batch = tiny(name), batch_for(name)
    model.classifier.bias.requires_grad_(False)
    before = [parameter.requires_grad for parameter in model.parameters()]
    mask_gradients(model, [batch])
    assert all(parameter.grad is None for parameter in model.parameters())
    assert [parameter.requires_grad for parameter in model.parameters()] == before
    assert model.config._attn_implementation == "sdpa"
    assert not any(module._forward_pre_hooks for module in model.modules())


def test_no_activation_outlives_its_batch(tiny: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """A hook on a tensor that refers to the tensor keeps it alive, and no garbage collector finds the circle."""
    name = "BertForSequenceClassification"
    model, seen = tiny(name), []
    for layer in anatomy.layers(model):
        for role in ("attention_output", "ffn_out"):
            linear = layer.linears[role]

            def forward(x: Tensor, original: Any = linear.forward) -> Tensor:
                seen.append(weakref.ref(x))
                return original(x)

            monkeypatch.setattr(linear, "forward", forward)
    mask_gradients(model, [batch_for(name)] * 2)
    gc.collect()
    assert len(seen) == 12
    assert not any(reference() is not None for reference in seen)


def test_layers_without_heads_or_neurons_have_no_rows(tiny: Any, mixed: Any) -> None:
    from splora.export.cut import cut

    name = "BertForSequenceClassification"
    found = mask_gradients(cut(tiny(name), mixed), [batch_for(name)])
    assert [len(rows.importance()) for rows in found.heads] == mixed.head_counts
    assert [len(rows.importance()) for rows in found.neurons] == mixed.neuron_counts


def test_a_loss_that_is_no_number_is_told(tiny: Any) -> None:
    model = tiny("BertForSequenceClassification")
    with torch.no_grad():
        model.classifier.weight.fill_(float("nan"))
    with pytest.raises(InputError, match="loss of calibration batch 1 is nan"):
        mask_gradients(model, [batch_for("BertForSequenceClassification")])


def scores_of(model: Any, batch: dict[str, Tensor], weight: Tensor, draws: int) -> Tensor:
    """Gradients of many draws of `own_predictions_loss` by a parameter, (draws, entries)."""
    generator = torch.Generator().manual_seed(0)
    losses = (own_predictions_loss(model, batch, generator) for _ in range(draws))
    return torch.stack([torch.autograd.grad(loss, weight)[0].flatten() for loss in losses])


@pytest.mark.parametrize("labels", [1, 2, 3])
def test_gradients_make_the_fisher_information_of_the_models_own_predictions(tiny: Any, labels: int) -> None:
    model, batch = tiny("BertForSequenceClassification"), batch_for("BertForSequenceClassification", rows=1)
    torch.manual_seed(4)
    model.classifier = torch.nn.Linear(24, labels)
    scores = scores_of(model, batch, model.classifier.bias, 1 if labels < 3 else 800)
    logits = model(**{key: batch[key] for key in ("input_ids", "attention_mask")}).logits[0].detach()
    p = logits.softmax(-1)
    wanted = torch.diag(p) - torch.outer(p, p) if labels > 1 else torch.ones(1, 1)
    bound = 1e-6 if labels < 3 else 0.03
    torch.testing.assert_close(scores.T @ scores / len(scores), wanted, rtol=bound, atol=bound)


def test_starts_and_ends_are_predicted_apart_and_never_in_the_padding(tiny: Any) -> None:
    model = tiny("BertForQuestionAnswering")
    batch = {name: values[1:2] for name, values in batch_for("BertForQuestionAnswering").items()}
    scores = scores_of(model, batch, model.qa_outputs.weight, 600)
    outputs = model(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"], output_hidden_states=True)
    hidden, kept = outputs.hidden_states[-1][0, :6].detach(), slice(0, 6)
    wanted = torch.zeros(48, 48)
    for place, logits in enumerate((outputs.start_logits, outputs.end_logits)):
        p = logits[0, kept].softmax(-1).detach()
        rows = slice(24 * place, 24 * place + 24)
        wanted[rows, rows] = hidden.T @ (torch.diag(p) - torch.outer(p, p)) @ hidden
    found = scores.T @ scores / len(scores)
    assert float((found - wanted).norm() / wanted.norm()) < 0.15


def test_every_token_of_a_text_is_predicted_apart_and_padding_is_not(tiny: Any) -> None:
    model = tiny("GPT2LMHeadModel", vocab_size=12)
    ids = torch.tensor([[5, 7, 9, 0], [3, 4, 6, 8]])
    batch = {"input_ids": ids, "attention_mask": (ids > 0).long()}
    shift = torch.nn.Parameter(torch.zeros(2, 4, 12))
    model.lm_head.register_forward_hook(lambda _, __, logits: logits + shift)
    scores = scores_of(model, batch, shift, 500).view(-1, 2, 4, 12) * 2  # the loss is the mean of two sequences
    p = model(**batch).logits.detach().softmax(-1)
    assert not scores[:, 0, 3].any()
    for row, token in ((0, 0), (0, 2), (1, 3)):
        here = scores[:, row, token]
        wanted = torch.diag(p[row, token]) - torch.outer(p[row, token], p[row, token])
        assert float((here.T @ here / len(here) - wanted).norm() / wanted.norm()) < 0.25
    between = scores[:, 0, 0].T @ scores[:, 0, 2] / len(scores)
    assert float(between.norm()) < 0.25 * float(p[0, 0].norm())


def test_each_sentence_s_tags_make_its_own_loss_whatever_it_is_batched_with(tiny: Any) -> None:
    model, batch = tiny("BertForTokenClassification"), batch_for("BertForSequenceClassification")
    batch["labels"] = batch["input_ids"].remainder(2).masked_fill(batch["attention_mask"] == 0, -100)
    together = mask_gradients(model, [batch])
    alone = mask_gradients(model, [{name: values[row : row + 1] for name, values in batch.items()} for row in range(5)])
    torch.testing.assert_close(together.heads[1].gram(), alone.heads[1].gram(), rtol=1e-4, atol=1e-6)


def test_texts_go_through_in_few_tokens_at_a_time(tiny: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Logits of a vocabulary would fill any memory; rows are those of sequences all the same."""
    model = tiny("OPTForCausalLM")
    ids = torch.randint(5, 60, (5, 8), generator=torch.Generator().manual_seed(2))
    batch = {"input_ids": ids, "attention_mask": torch.ones_like(ids)}
    monkeypatch.setattr(gradients, "TEXT_TOKENS", 16)
    seen: list[int] = []
    model.register_forward_pre_hook(lambda _, __, named: seen.append(len(named["input_ids"])), with_kwargs=True)
    found = mask_gradients(model, [batch], labels="model")
    assert seen == [2, 2, 1]
    assert {rows.samples for rows in (*found.heads, *found.neurons)} == {5}


def test_the_same_seed_draws_the_same_signs(tiny: Any) -> None:
    name = "BertForQuestionAnswering"
    model, batch = tiny(name), batch_for(name)
    first, same, other = (
        mask_gradients(model, [batch], labels="model", seed=seed).neurons[0].importance() for seed in (1, 1, 2)
    )
    assert torch.equal(first, same)
    assert not torch.equal(first, other)
