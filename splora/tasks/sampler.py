"""Which rows make up which batch, on every process and in every epoch, and a loader that resumes between batches."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Sampler

from splora.errors import InputError
from splora.tasks.features import Rows

#: Global batches whose examples are sorted by length together: enough to pad little, few enough to stay random.
BATCHES_SORTED_TOGETHER = 50


class GlobalBatchSampler(Sampler[list[int]]):
    """Batches of row numbers as a function of (seed, epoch) alone.

    The rows are dealt into global batches of `world_size · batch_size`; rank r takes positions r, r + world_size, …
    of each. An equal global batch therefore holds the same rows in the same order whatever the number of processes.

    Training (`shuffle`) drops an incomplete last global batch unless it is the only one, so that all ranks take
    equally many steps. Evaluation visits every row exactly once over all ranks: ranks may differ by one batch.

    Args:
        lengths: tokens per row, (rows,).
        batch_size: rows per process and batch.
        group_by_length: training sorts about 50 global batches at a time by length and shuffles the order of
            batches; evaluation starts with the longest rows, so that memory runs out at once or never.

    Raises:
        InputError: there are no rows, or fewer than processes in training.
    """

    def __init__(
        self,
        lengths: npt.ArrayLike,
        batch_size: int,
        world_size: int = 1,
        rank: int = 0,
        seed: int = 0,
        shuffle: bool = False,
        group_by_length: bool = True,
    ) -> None:
        self.lengths = np.asarray(lengths, np.int64)
        self.batch_size, self.world_size, self.rank = batch_size, world_size, rank
        self.seed, self.shuffle, self.group_by_length = seed, shuffle, group_by_length
        self.epoch = 0
        self.first_batch = 0
        count = len(self.lengths)
        if count == 0:
            raise InputError("There are no examples to make batches of.")
        if shuffle and count < world_size:
            raise InputError(
                f"{count} training examples are too few for {world_size} processes; each needs at least one."
            )

    @property
    def global_batch_size(self) -> int:
        """Rows per step over all processes."""
        return self.world_size * self.batch_size

    @property
    def sampler(self) -> GlobalBatchSampler:
        """Itself: Lightning calls `set_epoch` on a loader's `sampler`."""
        return self

    def set_epoch(self, epoch: int) -> None:
        """Choose the epoch whose order the next iteration takes."""
        self.epoch = epoch

    def __len__(self) -> int:
        """Batches of a whole epoch on this rank."""
        whole, rest = divmod(len(self.lengths), self.global_batch_size)
        if self.shuffle:
            return max(1, whole)
        return whole + (rest > self.rank)

    def __iter__(self) -> Iterator[list[int]]:
        """Batches of this epoch from `first_batch` on; epoch and start are read now, not at the first batch."""
        batches = self.global_batches(self.epoch)[self.first_batch :]
        mine = (batch[self.rank :: self.world_size].tolist() for batch in batches)
        return (rows for rows in mine if rows)

    def global_batches(self, epoch: int) -> list[Rows]:
        """All global batches of an epoch, each int64 (≤ global batch size,), in order."""
        count, size = len(self.lengths), self.global_batch_size
        if not self.shuffle:
            order = np.argsort(-self.lengths, kind="stable") if self.group_by_length else np.arange(count)
            return [order[start : start + size] for start in range(0, count, size)]
        random = np.random.default_rng((self.seed, epoch))
        order = random.permutation(count)[: max(1, count // size) * size]
        if not self.group_by_length:
            return [order[start : start + size] for start in range(0, len(order), size)]
        together = BATCHES_SORTED_TOGETHER * size
        groups = (order[start : start + together] for start in range(0, len(order), together))
        order = np.concatenate([group[np.argsort(-self.lengths[group], kind="stable")] for group in groups])
        batches = [order[start : start + size] for start in range(0, len(order), size)]
        return [batches[number] for number in random.permutation(len(batches))]


class RowNumbers(Dataset[int]):
    """The data set 0, 1, …, count − 1: the collator looks the rows up itself, all at once."""

    def __init__(self, count: int) -> None:
        self.count = count

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, row: int) -> int:
        return row


class ResumableDataLoader:
    """A `DataLoader` whose state says how far training is: epoch, and batches of it that were trained on.

    It holds a DataLoader instead of being one, because Lightning takes a DataLoader apart and rebuilds it without
    its state when predicting, and asks for worker processes that batches cut from arrays do not need.

    Args:
        count: rows of the data set.
        sampler: which rows make a batch.
        collate: row numbers to a batch.
        num_workers: processes that prepare batches ahead; what they prepared but did not hand out is not counted.
        trained_batches: batches of this epoch the trainer has finished. Without it every batch that was handed
            out counts, which differs only where the state is asked for in the middle of a step.
    """

    def __init__(
        self,
        count: int,
        sampler: GlobalBatchSampler,
        collate: Callable[[list[int]], dict[str, Tensor]],
        num_workers: int = 0,
        trained_batches: Callable[[], int | None] | None = None,
    ) -> None:
        self.batch_sampler = sampler
        self.loader: DataLoader[int] = DataLoader(
            RowNumbers(count),
            batch_sampler=sampler,
            collate_fn=collate,
            num_workers=num_workers,
            pin_memory=torch.cuda.is_available(),
        )
        self._trained_batches = trained_batches
        self._handed_out = 0
        self._resume: tuple[int, int] | None = None

    @property
    def sampler(self) -> GlobalBatchSampler:
        """The sampler whose epoch Lightning sets."""
        return self.batch_sampler

    def __len__(self) -> int:
        """Batches of a whole epoch, also after resuming."""
        return len(self.batch_sampler)

    def __iter__(self) -> Iterator[dict[str, Tensor]]:
        # A generator, so that epoch and start are read at the first batch: Lightning makes the iterator of a resumed
        # run before it knows the epoch, and may make one it never draws from.
        epoch = self.batch_sampler.epoch
        resume, self._resume = self._resume, None
        first = resume[1] if resume is not None and resume[0] == epoch else 0
        self.batch_sampler.first_batch = first
        batches = iter(self.loader)
        self.batch_sampler.first_batch = 0
        self._handed_out = first
        for batch in batches:
            self._handed_out += 1
            yield batch

    def state_dict(self) -> dict[str, Any]:
        """`epoch`, `batches` of it trained on, and `global_batch_size` they are counted in."""
        if self._resume is not None:
            epoch, batches = self._resume
        else:
            trained = self._trained_batches() if self._trained_batches is not None else None
            epoch, batches = self.batch_sampler.epoch, self._handed_out if trained is None else trained
        return {"epoch": epoch, "batches": batches, "global_batch_size": self.batch_sampler.global_batch_size}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue after the batches of `state`; the epoch after it is whole.

        Raises:
            InputError: the batches of `state` are of another size.
        """
        size = self.batch_sampler.global_batch_size
        if state["global_batch_size"] != size:
            raise InputError(
                f"The checkpoint was trained with {state['global_batch_size']} examples per step over all processes, "
                f"now there are {size}: set the batch size so that batch size times processes stays the same."
            )
        epoch, batches = int(state["epoch"]), int(state["batches"])
        self._resume = (epoch + 1, 0) if batches >= len(self) else (epoch, batches)
        self.batch_sampler.set_epoch(self._resume[0])
