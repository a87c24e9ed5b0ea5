"""What a language model loses on windows of text and on endings of questions, and how far it is from another model.

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

from splora.posttraining.core.calibration import BATCH_TOKENS, by_length
from splora.posttraining.core.precision import Precision
from splora.posttraining.core.states import last_hidden
from splora.tasks.choices import ChoicesDataModule
from splora.tasks.features import Collator, FeatureSet, Ragged
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
        wanted = ids[:, 1:].flatten().to(hidden.device)
        found.append(_losses(model, hidden[:, :-1].flatten(0, 1), wanted).view(len(ids), -1).sum(1))
        if progress is not None:
            progress(number + 1, len(batches))
    return torch.cat(found).numpy()


@torch.inference_mode()
def ending_losses(
    model: nn.Module,
    data: ChoicesDataModule,
    precision: Precision,
    progress: Callable[[int, int], None] | None = None,
) -> npt.NDArray[np.float64]:
    """Negative log-likelihood of each ending after its context in nats, float64 (endings,); see `text_losses`."""
    features = data.features("eval")
    inputs, targets = features.columns["input_ids"], features.columns["targets"]
    assert isinstance(inputs, Ragged)
    assert isinstance(targets, Ragged)
    collator = Collator(FeatureSet({"input_ids": inputs}, inputs.lengths), data.pad_token_id, data.width, 1)
    found = np.empty(len(inputs))
    batches = by_length(np.arange(len(inputs), dtype=np.int64), inputs.lengths)
    given = [{name: of for name, of in collator(rows.tolist()).items() if name != "index"} for rows in batches]
    for number, (rows, hidden) in enumerate(zip(batches, last_hidden(model, given, precision), strict=True)):
        # Each row's last states predict its ending; what fills up rows comes after them, and no token looks ahead.
        ends, counts = inputs.lengths[rows, None], targets.lengths[rows, None]
        places = np.arange(hidden.shape[1])
        states = hidden[torch.from_numpy((places < ends) & (places >= ends - counts)).to(hidden.device)]
        wanted = torch.from_numpy(np.concatenate([targets[row] for row in rows])).long().to(hidden.device)
        row_of = torch.from_numpy(np.arange(len(rows)).repeat(counts[:, 0]))
        sums = torch.zeros(len(rows), dtype=torch.float64)
        found[rows] = sums.index_add_(0, row_of, _losses(model, states, wanted)).numpy()
        if progress is not None:
            progress(number + 1, len(batches))
    return found


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


def _losses(model: nn.Module, states: Tensor, wanted: Tensor) -> Tensor:
    """Negative log-likelihoods of tokens by the states that predict them, float64 on the CPU, (tokens,)."""
    losses = [
        F.cross_entropy(_logits(model, rows), tokens, reduction="none")
        for rows, tokens in zip(states.split(ROWS), wanted.split(ROWS), strict=True)
    ]
    return torch.cat(losses).double().cpu()


def _logits(model: Any, rows: Tensor) -> Tensor:
    """Logits of rows of hidden states, float32, as exact as the head's weights are.

    Under autocast they would be rounded to bf16's eight bits, which a loss of hundredths does not survive.
    """
    head = model.get_output_embeddings()
    logits: Tensor = head(rows.to(head.weight.dtype))
    return logits.float()
