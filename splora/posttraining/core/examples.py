"""Calibration examples that are at hand, in batches that somebody else has made."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, Protocol

import torch
from torch import Tensor

from splora.errors import InputError
from splora.posttraining.core.calls import ARGUMENTS
from splora.tasks.features import filling

Batch = dict[str, Tensor]
#: Rows of a data set that are put together, where no batches are given.
ROWS = 16


class CalibrationExamples(Protocol):
    """What a post-training method looks at: batches of model arguments, as often as it wants them."""

    @property
    def samples(self) -> int:
        """Rows in all."""
        ...

    def __iter__(self) -> Iterator[Batch]: ...

    def __len__(self) -> int: ...

    def grouped(self) -> CalibrationExamples:
        """The same rows in batches of similar length."""
        ...


class Examples:
    """Batches of model arguments.

    Args:
        batches: each with `input_ids` and `attention_mask` (rows, tokens), and what else the model takes, labels among
            it; or a data set whose rows hold the same as lists (of `datasets`, tokenized), which are padded with zeros.

    Raises:
        InputError: there are none, or one lacks `input_ids` or `attention_mask`.
    """

    def __init__(self, batches: Iterable[Mapping[str, Any]]) -> None:
        rows = list(batches)
        if not rows:
            raise InputError("calibration examples: there are none.")
        missing = [name for name in ARGUMENTS[:2] if name not in rows[0]]
        if missing:
            raise InputError(
                f"calibration examples: have no {' and no '.join(missing)}; they hold {', '.join(map(str, rows[0]))}."
            )
        whole = [all(isinstance(value, Tensor) for value in batch.values()) for batch in rows]
        if all(whole) and rows[0]["input_ids"].dim() == 2:
            self._batches: list[Batch] = [dict(batch) for batch in rows]
        else:
            self._batches = [_padded(rows[start : start + ROWS]) for start in range(0, len(rows), ROWS)]

    @property
    def samples(self) -> int:
        """Rows in all."""
        return sum(len(batch["input_ids"]) for batch in self._batches)

    @property
    def tokens(self) -> int:
        """Tokens of a row on average, padding left out."""
        kept = sum(int(batch["attention_mask"].sum()) for batch in self._batches)
        return max(1, round(kept / max(self.samples, 1)))

    def __iter__(self) -> Iterator[Batch]:
        return iter(self._batches)

    def __len__(self) -> int:
        return len(self._batches)

    def grouped(self) -> Examples:
        """The same: they are as they were given."""
        return self


def _padded(rows: Sequence[Mapping[str, Any]]) -> Batch:
    """One batch of rows of different lengths; single numbers (labels) become one tensor."""
    found: Batch = {}
    for name in rows[0]:
        values = [torch.as_tensor(row[name]) for row in rows]
        if values[0].dim() == 0:
            found[name] = torch.stack(values)
        else:
            found[name] = torch.nn.utils.rnn.pad_sequence(values, batch_first=True, padding_value=filling(name))
    return found
