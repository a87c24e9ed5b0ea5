"""What a model scores on a task, and how far its predictions are from another model's."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from splora.posttraining.core.calibration import LABELS, by_length, to_device
from splora.posttraining.core.precision import Precision
from splora.posttraining.core.sensitivity import LOGITS, divergences
from splora.posttraining.core.text_evaluation import ending_losses, text_divergence, text_losses
from splora.tasks.choices import ChoicesDataModule
from splora.tasks.data_module import Split, TaskDataModule
from splora.tasks.features import Collator
from splora.tasks.language_modelling import TextDataModule

#: Fills up logits of shorter windows: no token there is ever an answer.
FILL = -1e9
FP32 = Precision("fp32")


@dataclass(frozen=True)
class Predictions:
    """Logits of a complete evaluation split by name, float32 (rows, …), and the task's scores in percent.

    Of a language model and a text there are no logits, as they fill any memory; its score is perplexity, and
    `from_dense` the divergence of its predictions from those of the dense model that `predict` was given. Of a question
    with endings, `logits` are their log-likelihoods, (questions, most endings).
    """

    logits: dict[str, npt.NDArray[np.float32]]
    metrics: dict[str, float]
    from_dense: float | None = None


@torch.inference_mode()
def predict(
    model: nn.Module,
    data: TaskDataModule,
    precision: Precision = FP32,
    progress: Callable[[int, int], None] | None = None,
    dense: nn.Module | None = None,
) -> Predictions:
    """Evaluate a model on the data module's evaluation split.

    Args:
        model: a task model in evaluation mode.
        precision: what forward passes compute in.
        progress: called with batches done and batches in all.
        dense: the model that a language model is compared with.
    """
    outputs = outputs_of(model, data, precision, progress)
    metrics = dict(data.evaluate(outputs).metrics)
    if isinstance(data, TextDataModule):
        return Predictions({}, metrics, None if dense is None else text_divergence(dense, model, data, precision))
    if isinstance(data, ChoicesDataModule):
        return Predictions({"logits": data.by_question(-outputs["losses"])}, metrics)
    return Predictions(outputs, metrics)


def outputs_of(
    model: nn.Module,
    data: TaskDataModule,
    precision: Precision = FP32,
    progress: Callable[[int, int], None] | None = None,
) -> dict[str, npt.NDArray[Any]]:
    """What the evaluation split's score is computed from, as the data module's `evaluate` takes it; see `predict`."""
    if isinstance(data, TextDataModule):
        return {"losses": text_losses(model, data, precision, progress)}
    if isinstance(data, ChoicesDataModule):
        return {"losses": ending_losses(model, data, precision, progress)}
    return dict(predicted_logits(model, data, "eval", precision, progress))


@torch.inference_mode()
def predicted_logits(
    model: nn.Module,
    data: TaskDataModule,
    split: Split,
    precision: Precision = FP32,
    progress: Callable[[int, int], None] | None = None,
) -> dict[str, npt.NDArray[np.float32]]:
    """Logits of a whole split by name, float32 (rows, …), in the order of its rows; see `predict`."""
    features = data.features(split)
    device = next(model.parameters()).device
    collator = Collator(features, data.pad_token_id, data.width, width_multiple=1)
    batches = by_length(np.arange(len(features), dtype=np.int64), features.lengths)
    found: dict[str, npt.NDArray[np.float32]] = {}
    for number, rows in enumerate(batches):
        batch = to_device(collator(rows.tolist()), device)
        for name in ("index", *LABELS):
            batch.pop(name, None)
        with precision.forward(device):
            outputs = model(**batch)
        for name in LOGITS:
            if name in outputs:
                # Longest rows come first: the first batch is as wide as any.
                _put(found, name, outputs[name], rows, features.lengths)
        if progress is not None:
            progress(number + 1, len(batches))
    return found


def divergence(dense: Predictions, pruned: Predictions) -> float:
    """Mean Kullback–Leibler divergence KL(dense ‖ pruned) of predicted distributions, nats per row (tags: per token).

    Start and end positions count as two predictions, averaged. Of a regression, half the mean squared difference: the
    divergence of normal distributions of unit variance. Of language models: what `predict` found, per token.
    """
    if pruned.from_dense is not None:
        return pruned.from_dense
    values = []
    for name, logits in dense.logits.items():
        other = pruned.logits[name]
        # Where each token has a prediction of its own, what fills up rows has none.
        keep = logits[..., 0] > FILL / 2 if logits.ndim == 3 else ...
        values.append(float(divergences([torch.from_numpy(logits[keep])], [torch.from_numpy(other[keep])]).mean()))
    return float(np.mean(values))


def _put(
    found: dict[str, npt.NDArray[np.float32]],
    name: str,
    logits: Tensor,
    rows: npt.NDArray[np.int64],
    lengths: npt.NDArray[np.int64],
) -> None:
    values = logits.float().cpu().numpy()
    if name not in found:
        found[name] = np.full((len(lengths), *values.shape[1:]), FILL, np.float32)
    if values.ndim == 3:
        values = np.where((np.arange(values.shape[1]) < lengths[rows, None])[..., None], values, np.float32(FILL))
    found[name][rows, : values.shape[1]] = values
