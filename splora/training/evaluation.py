"""Logits of an evaluation, collected over batches and processes and handed to the task's score."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import torch.distributed as dist
from torch import Tensor

from splora.errors import InputError

#: Fills up logits of shorter windows: no token there is ever an answer.
PADDING = -1e9


class DivergenceMeter:
    """The mean of per-example divergences over batches and processes."""

    def __init__(self) -> None:
        self._sum, self._rows = 0.0, 0

    def add(self, mean: Tensor, rows: int) -> None:
        """Add a batch of so many rows and this mean."""
        self._sum += float(mean) * rows
        self._rows += rows

    def value(self) -> float:
        """The mean, the same on every process; what was added is dropped."""
        mine = (self._sum, self._rows)
        parts: list[Any] = [mine]
        if dist.is_available() and dist.is_initialized() and dist.get_world_size() > 1:
            parts = [None] * dist.get_world_size()
            dist.all_gather_object(parts, mine)
        self._sum, self._rows = 0.0, 0
        return float(sum(part[0] for part in parts) / max(1, sum(part[1] for part in parts)))


class OutputCollector:
    """Keeps fp32 logits on the CPU by row number until all of an evaluation split is there."""

    def __init__(self) -> None:
        self._index: list[npt.NDArray[np.int64]] = []
        self._logits: dict[str, list[npt.NDArray[np.float32]]] = {}
        #: Files of the last score by name.
        self.artifacts: dict[str, Any] = {}

    def add(self, index: Tensor, logits: dict[str, Tensor]) -> None:
        """Add a batch: row numbers (batch,), and logits (batch, tokens or labels, …) by name."""
        self._index.append(index.cpu().numpy())
        for name, values in logits.items():
            self._logits.setdefault(name, []).append(values.detach().float().cpu().numpy())

    def score(self, data: Any) -> dict[str, float]:
        """Scores of the complete split that is judged, the same on every process; what was collected is dropped.

        Raises:
            InputError: rows are missing (``limit_val_batches`` cuts an evaluation short).
        """
        split = data.judged
        result = data.evaluate(self._whole(data, split, "a score needs all: remove limit_val_batches"), split)
        self.artifacts = dict(result.artifacts)
        return dict(result.metrics)

    def predict(self, data: Any) -> dict[str, Any]:
        """Predictions of the complete split, by file stem; what was collected is dropped.

        Raises:
            InputError: rows are missing (``limit_predict_batches``).
        """
        outputs = self._whole(data, "predict", "remove limit_predict_batches")
        self.artifacts = dict(data.predict(outputs))
        return self.artifacts

    def _whole(self, data: Any, split: str, remedy: str) -> dict[str, npt.NDArray[Any]]:
        outputs, rows = self._complete()
        self._index, self._logits = [], {}
        expected = len(data.features(split))
        if rows != expected:
            raise InputError(f"Only {rows} of {expected} evaluation rows were seen; {remedy}.")
        return outputs

    def _complete(self) -> tuple[dict[str, npt.NDArray[Any]], int]:
        mine = (self._index, self._logits)
        parts = [mine]
        if dist.is_available() and dist.is_initialized() and dist.get_world_size() > 1:
            gathered: list[Any] = [None] * dist.get_world_size()
            dist.all_gather_object(gathered, mine)
            parts = gathered
        index = np.concatenate([batch for part in parts for batch in part[0]] or [np.empty(0, np.int64)])
        index, first = np.unique(index, return_index=True)
        outputs = {}
        for name in sorted({name for part in parts for name in part[1]}):
            batches = [batch for part in parts for batch in part[1].get(name, [])]
            outputs[name] = _stack(batches)[first]
        return outputs, len(index)


def _stack(batches: list[npt.NDArray[np.float32]]) -> npt.NDArray[np.float32]:
    """One (rows, widest, …) array of (batch, width, …) arrays, filled up with `PADDING` on the right."""
    width = max(batch.shape[1] for batch in batches)
    stacked = np.full((sum(len(batch) for batch in batches), width, *batches[0].shape[2:]), PADDING, np.float32)
    start = 0
    for batch in batches:
        stacked[start : start + len(batch), : batch.shape[1]] = batch
        start += len(batch)
    return stacked
