"""Tokenized examples as a few flat arrays, and batches cut from them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import chain
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

Rows = npt.NDArray[np.int64]

#: Widths of batches are multiples of this: tensor cores and vector units work in eights.
WIDTH_MULTIPLE = 8


#: Label of a token that has none.
IGNORED = -100


def filling(name: str) -> int:
    """What fills up rows of a model's argument: labels that count nowhere, else zeros."""
    return IGNORED if name == "labels" else 0


@dataclass(frozen=True)
class Ragged:
    """Rows of different lengths: row i is `values[offsets[i]:offsets[i + 1]]`.

    Attributes:
        values: int32, (total,).
        offsets: int64, (rows + 1,), from 0 to total.
    """

    values: npt.NDArray[np.int32]
    offsets: Rows

    @classmethod
    def from_rows(cls, rows: Sequence[Sequence[int]]) -> Ragged:
        """Join lists of integers."""
        lengths = np.fromiter((len(row) for row in rows), np.int64, len(rows))
        offsets = np.concatenate([np.zeros(1, np.int64), np.cumsum(lengths, dtype=np.int64)])
        return cls(np.fromiter(chain.from_iterable(rows), np.int32, int(offsets[-1])), offsets)

    def __len__(self) -> int:
        return len(self.offsets) - 1

    def __getitem__(self, row: int) -> npt.NDArray[np.int32]:
        return self.values[self.offsets[row] : self.offsets[row + 1]]

    @property
    def lengths(self) -> Rows:
        """Length of each row, int64 (rows,)."""
        return np.diff(self.offsets)

    def padded(self, rows: Rows, width: int, fill: int) -> npt.NDArray[np.int64]:
        """The chosen rows as an int64 (len(rows), width) array, filled up with `fill` on the right."""
        columns = np.arange(width)
        inside = columns < (self.offsets[rows + 1] - self.offsets[rows])[:, None]
        out = np.full(inside.shape, fill, np.int64)
        out[inside] = self.values[(self.offsets[rows][:, None] + columns)[inside]]
        return out


@dataclass(frozen=True)
class FeatureSet:
    """What one split feeds to the model, one row per window or example.

    Attributes:
        columns: by the name of the model's argument; `Ragged` columns are padded in a batch, arrays of shape
            (rows, …) are stacked. `attention_mask` is made from the lengths where it is not a column.
        lengths: tokens per row, int64 (rows,).
    """

    columns: dict[str, Ragged | npt.NDArray[Any]]
    lengths: Rows

    def __len__(self) -> int:
        return len(self.lengths)


@dataclass(frozen=True)
class TaskResult:
    """Scores of a complete evaluation split.

    Attributes:
        metrics: in percent, by name.
        artifacts: what is worth a file of its own, as JSON values by file stem (predictions, n-best lists, …).
    """

    metrics: dict[str, float]
    artifacts: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Collator:
    """Makes a batch of tensors from row numbers.

    Ragged columns become int64 (batch, width), width being the longest row of the batch rounded up to a multiple
    of `width_multiple` (never above `max_width`); `index` holds the row numbers, int64 (batch,).
    """

    features: FeatureSet
    pad_token_id: int
    max_width: int
    width_multiple: int = WIDTH_MULTIPLE

    def __call__(self, rows: Sequence[int]) -> dict[str, Tensor]:
        chosen = np.asarray(rows, np.int64)
        lengths = self.features.lengths[chosen]
        longest = int(lengths.max())
        width = max(longest, min(-(-longest // self.width_multiple) * self.width_multiple, self.max_width))
        batch = {name: self._column(name, column, chosen, width) for name, column in self.features.columns.items()}
        if "attention_mask" not in batch:
            batch["attention_mask"] = torch.from_numpy((np.arange(width) < lengths[:, None]).astype(np.int64))
        batch["index"] = torch.from_numpy(chosen)
        return batch

    def _column(self, name: str, column: Ragged | npt.NDArray[Any], rows: Rows, width: int) -> Tensor:
        if isinstance(column, Ragged):
            fill = self.pad_token_id if name == "input_ids" else filling(name)
            return torch.from_numpy(column.padded(rows, width, fill))
        values = torch.from_numpy(column[rows])
        if values.is_floating_point():
            return values.float()
        return values if values.dtype == torch.bool else values.long()
