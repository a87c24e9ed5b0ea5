"""Losses of the tasks and of distillation: pure functions on logits and labels."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from splora.tasks.features import IGNORED

#: Names of a model's outputs that carry logits, by kind of task.
SPAN_LOGITS = ("start_logits", "end_logits")


def logits_of(outputs: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The logits, fp32: start and end (batch, tokens) of a span model, or one (batch, …, labels) of a classifier."""
    names = SPAN_LOGITS if "start_logits" in outputs else ("logits",)
    return {name: outputs[name].float() for name in names}


def task_loss(logits: Mapping[str, Tensor], batch: Mapping[str, Tensor]) -> Tensor:
    """Cross entropy (mean over start and end for spans, over words for tags); squared error for a score."""
    if "logits" in logits:
        scores = logits["logits"]
        if scores.dim() == 3:
            return F.cross_entropy(scores.flatten(0, 1), batch["labels"].long().flatten(), ignore_index=IGNORED)
        if scores.shape[-1] == 1:
            return F.mse_loss(scores.squeeze(-1), batch["labels"].float())
        return F.cross_entropy(scores, batch["labels"].long())
    start = F.cross_entropy(logits["start_logits"], batch["start_positions"].long())
    end = F.cross_entropy(logits["end_logits"], batch["end_positions"].long())
    return (start + end) / 2


def predictions_of(logits: Mapping[str, Tensor], batch: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Logits with a prediction a row, as distillation compares them: where each token has its own, those of tokens."""
    keep = batch["attention_mask"].bool()
    return {name: values[keep] if values.dim() == 3 else values for name, values in logits.items()}


def distillation_loss(student: Mapping[str, Tensor], teacher: Mapping[str, Tensor], temperature: float) -> Tensor:
    """``T² · KL(teacher/T ‖ student/T)``, mean over the batch and over the outputs (Hinton et al., 1503.02531).

    A regression (one output) has no distribution: its distillation is the squared error to the teacher.
    """
    losses = []
    for name, scores in student.items():
        if scores.shape[-1] == 1:
            losses.append(F.mse_loss(scores, teacher[name]))
            continue
        divergence = F.kl_div(
            F.log_softmax(scores / temperature, dim=-1),
            F.log_softmax(teacher[name] / temperature, dim=-1),
            reduction="batchmean",
            log_target=True,
        )
        losses.append(temperature**2 * divergence)
    return torch.stack(losses).mean()


def states_loss(student: Sequence[Tensor], teacher: Sequence[Tensor], keep: Tensor, weights: Tensor) -> Tensor:
    """How far states of the layers are from the teacher's: per layer ``Σ (s − t)² / Σ t²``, weighted mean over layers.

    Relative to the teacher's own squares, layers count the same whatever the scale of their states (feature
    distillation as in TinyBERT, 1909.10351, eq. 8, with no projection: both are of one width).

    Args:
        student, teacher: one tensor (batch, tokens, hidden) per layer.
        keep: tokens that are no padding, (batch, tokens): 1 or True.
        weights: of the layers, (layers,); only their proportions count.
    """
    kept = keep.bool()
    errors = []
    for found, wanted in zip(student, teacher, strict=True):
        target = wanted[kept].float()
        errors.append((found[kept].float() - target).square().sum() / target.square().sum())
    weights = weights.to(errors[0])
    return (torch.stack(errors) * weights).sum() / weights.sum()
