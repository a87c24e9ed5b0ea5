"""The training examples that a post-training method looks at: drawn by seed, batched by length."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from splora.tasks.data_module import TaskDataModule
from splora.tasks.features import Collator, Rows

logger = logging.getLogger(__name__)

#: Tokens per batch, padding included: few enough for the activations of one batch; and enough for full matrix products,
#: from which on no row is taken that would be padding by more than a quarter.
BATCH_TOKENS, FULL_TOKENS, LEAST_FILLED = 4096, 1024, 0.75
#: Model arguments that say what the answer is.
LABELS = ("labels", "start_positions", "end_positions")


@dataclass(frozen=True)
class Calibration:
    """Rows of a training split, in batches of similar length.

    Attributes:
        batches: row numbers of each batch.
        samples: rows in all.
        mean_tokens: average length of the whole split's drawn examples, special tokens included.
    """

    collator: Collator
    batches: tuple[Rows, ...]
    samples: int
    mean_tokens: float

    def __iter__(self) -> Iterator[dict[str, Tensor]]:
        for rows in self.batches:
            batch = self.collator(rows.tolist())
            del batch["index"]
            yield batch

    def __len__(self) -> int:
        return len(self.batches)

    def grouped(self) -> Calibration:
        """The same rows in batches of similar length."""
        rows = np.concatenate(self.batches)
        batches = by_length(rows, self.collator.features.lengths[rows])
        return Calibration(self.collator, tuple(batches), self.samples, self.mean_tokens)


def draw(data: TaskDataModule, samples: int, batch_size: int | None = None) -> Calibration:
    """Draw rows of the training split by the data module's seed.

    Args:
        data: made with `max_train_examples=samples`, so that no more is tokenized than is used.
        samples: rows (windows, for questions) wanted. Where there are fewer, all are used and a warning says so.
        batch_size: rows per batch, drawn at random; None: rows of similar length, about `BATCH_TOKENS` tokens a batch.

    Raises:
        InputError: the data cannot be read, or hold no example.
    """
    features = data.features("train")
    generator = np.random.default_rng(data.seed)
    order = generator.permutation(len(features)).astype(np.int64)[:samples]
    if len(order) < samples:
        logger.warning("%d samples were asked for and the training data hold %d: all are used.", samples, len(order))
    collator = Collator(features, data.pad_token_id, data.width, width_multiple=1)
    lengths = features.lengths[order]
    if batch_size is not None:
        batches = [order[start : start + batch_size] for start in range(0, len(order), batch_size)]
    else:
        batches = by_length(order, lengths)
    return Calibration(collator, tuple(batches), len(order), float(lengths.mean()))


def by_length(rows: Rows, lengths: Rows, tokens: int = BATCH_TOKENS) -> list[Rows]:
    """Batches of rows sorted by length, longest first; at most `tokens` tokens each with padding, one row at least.

    A batch ends before, where it is full enough and the next row much shorter than its longest.
    """
    order = np.argsort(-lengths, kind="stable")
    ordered, batches, start = lengths[order], [], 0
    while start < len(order):
        longest = int(ordered[start])
        most = max(1, tokens // longest)
        full = min(most, -(-FULL_TOKENS // longest))
        similar = int((ordered[start : start + most] >= LEAST_FILLED * longest).sum())
        count = max(full, similar)
        batches.append(rows[order[start : start + count]])
        start += count
    return batches


def is_label(name: str) -> bool:
    """Whether a model argument says what the answer is."""
    return name in LABELS


def to_device(batch: dict[str, Tensor], device: torch.device) -> dict[str, Tensor]:
    """The batch on another device."""
    return {name: values.to(device, non_blocking=True) for name, values in batch.items()}
