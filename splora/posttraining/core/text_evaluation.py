"""What a language model loses on windows of text, and how far its predictions are from another model's.

Logits of a whole text would fill any memory (tokens × vocabulary), so they are made a few rows at a time and summed up
at once.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from splora.posttraining.core.calibration import BATCH_TOKENS
from splora.posttraining.core.precision import Precision
from splora.posttraining.core.states import last_hidden
from splora.tasks.language_modelling import TextDataModule

#: Predicted tokens whose logits are held at once.
ROWS = 1024
#: Tokens that two models' predictions are compared on, in windows spread evenly over the text.
COMPARED_TOKENS = 32_768


@torch.inference_mode()
def text_losses(
    model: nn.Module,
    data: TextDataModule,
    precision: Precision,
    progress: Callable[[int, int], None] | None = None,
) -> npt.NDArray[np.float64]:
    """Negative log-likelihood of each evaluation window in nats, summed over its width − 1 predicted tokens.

    Args:
        model: a causal language model in evaluation mode.
        precision: what forward passes compute hidden states in; logits and losses are float32, sums float64.
        progress: called with batches done and batches in all.

    Returns:
        float64 (windows,).
    """
    batches, found = _batches(_windows(data)), []
    for number, (batch, hidden) in enumerate(zip(batches, last_hidden(model, batches, precision), strict=True)):
        ids = batch["input_ids"]
        targets = ids[:, 1:].flatten().to(hidden.device)
        losses = [
            F.cross_entropy(_logits(model, rows), wanted, reduction="none")
            for rows, wanted in zip(_predicting(hidden), targets.split(ROWS), strict=True)
        ]
        found.append(torch.cat(losses).double().view(len(ids), -1).sum(1).cpu())
        if progress is not None:
            progress(number + 1, len(batches))
    return torch.cat(found).numpy()


@torch.inference_mode()
def text_divergence(dense: nn.Module, model: nn.Module, data: TextDataModule, precision: Precision) -> float:
    """Mean KL(dense ‖ model) of the predicted next tokens, in nats per token, on at most `COMPARED_TOKENS` tokens."""
    windows = _windows(data)
    count = min(len(windows), -(-COMPARED_TOKENS // data.width))
    chosen = np.linspace(0, len(windows) - 1, count).round().astype(np.int64)
    total, tokens = 0.0, 0
    batches = _batches(windows[chosen])
    for pair in zip(*(last_hidden(each, batches, precision) for each in (dense, model)), strict=True):
        for rows, other in zip(*map(_predicting, pair), strict=True):
            wanted, found = (_logits(each, x).log_softmax(1) for each, x in ((dense, rows), (model, other)))
            total += float(F.kl_div(found, wanted, reduction="none", log_target=True).sum(1).double().sum())
            tokens += len(rows)
    return total / tokens


def _windows(data: TextDataModule) -> npt.NDArray[Any]:
    windows = data.features("eval").columns["input_ids"]
    assert isinstance(windows, np.ndarray)
    return windows


def _batches(windows: npt.NDArray[Any]) -> list[dict[str, Tensor]]:
    ids = torch.from_numpy(windows).long().split(max(1, BATCH_TOKENS // windows.shape[1]))
    return [{"input_ids": rows, "attention_mask": torch.ones_like(rows)} for rows in ids]


def _predicting(hidden: Tensor) -> tuple[Tensor, ...]:
    """Hidden states of all tokens that predict one, `ROWS` at a time."""
    rows: tuple[Tensor, ...] = hidden[:, :-1].flatten(0, 1).split(ROWS)
    return rows


def _logits(model: Any, rows: Tensor) -> Tensor:
    """Logits of rows of hidden states, float32, as exact as the head's weights are.

    Under autocast they would be rounded to bf16's eight bits, which a loss of hundredths does not survive.
    """
    head = model.get_output_embeddings()
    logits: Tensor = head(rows.to(head.weight.dtype))
    return logits.float()
