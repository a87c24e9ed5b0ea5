"""GLUE's scores in percent, by torchmetrics."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy.typing as npt
import torch
from torch import Tensor
from torchmetrics.functional import pearson_corrcoef, spearman_corrcoef
from torchmetrics.functional.classification import (
    binary_f1_score,
    multiclass_accuracy,
    multiclass_matthews_corrcoef,
)


def score(
    metrics: Sequence[str], logits: npt.NDArray[Any], labels: npt.NDArray[Any], positive: int = 1
) -> dict[str, float]:
    """The named metrics of a set of predictions.

    Args:
        metrics: of accuracy, f1, matthews, pearson, spearman.
        logits: float (examples, labels), or (examples, 1) for a score.
        labels: int (examples,), or float for a score.
        positive: the label that F1 is about.

    Returns:
        Percent, to four decimals (single precision has no more); correlations lie between −100 and 100 and are 0
        where predictions do not vary.
    """
    predicted = torch.from_numpy(logits).float()
    wanted = torch.from_numpy(labels)
    return {name: round(100 * float(_metric(name, predicted, wanted, positive)), 4) for name in metrics}


def _metric(name: str, logits: Tensor, labels: Tensor, positive: int) -> Tensor:
    if name in ("pearson", "spearman"):
        scores, wanted = logits[:, 0].double(), labels.double()
        if len(scores) < 2 or bool((scores == scores[0]).all()) or bool((wanted == wanted[0]).all()):
            return torch.zeros(())
        return pearson_corrcoef(scores, wanted) if name == "pearson" else spearman_corrcoef(scores, wanted)
    chosen = logits.argmax(1)
    if name == "f1":
        return binary_f1_score((chosen == positive).long(), (labels == positive).long())
    if name == "matthews":
        return multiclass_matthews_corrcoef(chosen, labels, num_classes=logits.shape[1])
    assert name == "accuracy", name
    return multiclass_accuracy(chosen, labels, num_classes=logits.shape[1], average="micro")
