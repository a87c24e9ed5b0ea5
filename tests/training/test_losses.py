"""Losses against transformers' own and against closed forms."""

from __future__ import annotations

import pytest
import torch
from transformers import BertConfig, BertForQuestionAnswering, BertForSequenceClassification

from splora.training.losses import distillation_loss, logits_of, states_loss, task_loss

TINY = {"vocab_size": 50, "hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16}


def test_span_loss_is_that_of_transformers() -> None:
    torch.manual_seed(0)
    model = BertForQuestionAnswering(BertConfig(**TINY)).eval()
    ids, start, end = torch.randint(0, 50, (3, 7)), torch.tensor([0, 2, 6]), torch.tensor([1, 2, 6])
    wanted = model(input_ids=ids, start_positions=start, end_positions=end)
    found = task_loss(logits_of(model(input_ids=ids)), {"start_positions": start, "end_positions": end})
    torch.testing.assert_close(found, wanted.loss)


@pytest.mark.parametrize("labels", [1, 3])
def test_classification_and_regression_losses_are_those_of_transformers(labels: int) -> None:
    torch.manual_seed(0)
    model = BertForSequenceClassification(BertConfig(**TINY, num_labels=labels)).eval()
    ids = torch.randint(0, 50, (4, 7))
    target = torch.rand(4) if labels == 1 else torch.randint(0, labels, (4,))
    wanted = model(input_ids=ids, labels=target).loss
    torch.testing.assert_close(task_loss(logits_of(model(input_ids=ids)), {"labels": target}), wanted)


def test_distillation_is_the_sum_over_the_distribution() -> None:
    torch.manual_seed(0)
    student, teacher, temperature = torch.randn(3, 5), torch.randn(3, 5), 2.0
    p, q = (teacher / temperature).softmax(-1), (student / temperature).softmax(-1)
    wanted = temperature**2 * (p * (p / q).log()).sum(-1).mean()
    found = distillation_loss({"logits": student}, {"logits": teacher}, temperature)
    torch.testing.assert_close(found, wanted)
    assert distillation_loss({"logits": teacher}, {"logits": teacher}, temperature).item() == pytest.approx(0, abs=1e-6)


def test_distillation_of_spans_is_the_mean_of_both_ends() -> None:
    torch.manual_seed(0)
    student = {"start_logits": torch.randn(2, 4), "end_logits": torch.randn(2, 4)}
    teacher = {"start_logits": torch.randn(2, 4), "end_logits": torch.randn(2, 4)}
    ends = [distillation_loss({"logits": student[name]}, {"logits": teacher[name]}, 3.0) for name in student]
    torch.testing.assert_close(distillation_loss(student, teacher, 3.0), (ends[0] + ends[1]) / 2)


def test_states_are_compared_layer_by_layer_without_padding_relative_to_the_teacher_s() -> None:
    torch.manual_seed(0)
    student, teacher = torch.randn(2, 3, 4, 5), torch.randn(2, 3, 4, 5)  # layers, rows, tokens, channels
    keep, weights = torch.tensor([[1, 1, 1, 1], [1, 1, 0, 0], [1, 0, 0, 0]]), torch.tensor([1.0, 3.0])
    errors = []
    for layer in range(2):
        pairs = [
            (student[layer, row, at], teacher[layer, row, at]) for row in range(3) for at in range(4) if keep[row, at]
        ]
        error = sum(((s - t) ** 2).sum() for s, t in pairs) / sum((t**2).sum() for _, t in pairs)
        errors.append(error)
    wanted = (errors[0] + 3 * errors[1]) / 4
    torch.testing.assert_close(states_loss(student.unbind(), teacher.unbind(), keep, weights), wanted)
    assert states_loss(teacher.unbind(), teacher.unbind(), keep, weights) == 0
