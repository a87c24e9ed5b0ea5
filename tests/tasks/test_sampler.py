"""The batches of every rank: partitions, order, lengths."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from splora.errors import InputError
from splora.tasks.sampler import BATCHES_SORTED_TOGETHER, GlobalBatchSampler

LENGTHS = st.lists(st.integers(1, 40), min_size=4, max_size=200)


def ranks(lengths: list[int], batch_size: int, world_size: int, **options: object) -> list[list[list[int]]]:
    """Batches of each rank."""
    samplers = [GlobalBatchSampler(lengths, batch_size, world_size, rank, **options) for rank in range(world_size)]  # type: ignore[arg-type]
    for sampler in samplers:
        sampler.set_epoch(3)
        assert len(list(sampler)) == len(sampler)
    return [list(sampler) for sampler in samplers]


def global_batches(batches: list[list[list[int]]]) -> list[list[int]]:
    """Interleave what the ranks took."""
    world_size = len(batches)
    steps = max(len(mine) for mine in batches)
    joined = []
    for step in range(steps):
        parts = [mine[step] if step < len(mine) else [] for mine in batches]
        joined.append([parts[i % world_size][i // world_size] for i in range(sum(map(len, parts)))])
    return joined


@given(LENGTHS, st.integers(0, 5), st.booleans(), st.booleans())
def test_same_global_batches_on_one_two_and_four_ranks(
    lengths: list[int], seed: int, shuffle: bool, group_by_length: bool
) -> None:
    options = {"seed": seed, "shuffle": shuffle, "group_by_length": group_by_length}
    one = global_batches(ranks(lengths, 4, 1, **options))
    assert one == global_batches(ranks(lengths, 2, 2, **options))
    assert one == global_batches(ranks(lengths, 1, 4, **options))


@given(LENGTHS, st.integers(1, 8), st.integers(1, 4))
def test_training_drops_only_an_incomplete_last_batch(lengths: list[int], batch_size: int, world_size: int) -> None:
    batches = ranks(lengths, batch_size, world_size, shuffle=True)
    assert len({len(mine) for mine in batches}) == 1
    rows = [row for mine in batches for batch in mine for row in batch]
    assert len(rows) == len(set(rows))
    size = batch_size * world_size
    assert len(rows) == (len(lengths) // size * size or len(lengths))


@given(LENGTHS, st.integers(1, 8), st.integers(1, 4))
def test_evaluation_sees_every_row_once_and_long_ones_first(
    lengths: list[int], batch_size: int, world_size: int
) -> None:
    batches = ranks(lengths, batch_size, world_size)
    rows = [row for batch in global_batches(batches) for row in batch]
    assert sorted(rows) == list(range(len(lengths)))
    assert [lengths[row] for row in rows] == sorted(lengths, reverse=True)
    counts = [len(mine) for mine in batches]
    assert max(counts) - min(counts) <= 1


def test_epochs_differ_and_repeat() -> None:
    sampler = GlobalBatchSampler(np.arange(1, 101), 8, seed=1, shuffle=True)
    first = list(sampler)
    sampler.set_epoch(1)
    assert list(sampler) != first
    sampler.set_epoch(0)
    assert list(sampler) == first
    assert list(GlobalBatchSampler(np.arange(1, 101), 8, seed=2, shuffle=True)) != first


def test_grouping_pads_little_and_still_mixes() -> None:
    lengths = np.random.default_rng(0).integers(1, 300, 8 * BATCHES_SORTED_TOGETHER * 3)

    def padding(group: bool) -> float:
        batches = list(GlobalBatchSampler(lengths, 8, seed=0, shuffle=True, group_by_length=group))
        return sum(lengths[batch].max() * 8 for batch in batches) / sum(lengths[batch].sum() for batch in batches)

    assert padding(True) < 1.05 < 1.4 < padding(False)
    longest = [int(lengths[batch].max()) for batch in GlobalBatchSampler(lengths, 8, seed=0, shuffle=True)]
    assert longest[:BATCHES_SORTED_TOGETHER] != sorted(longest[:BATCHES_SORTED_TOGETHER], reverse=True)


def test_too_few_rows_are_refused() -> None:
    with pytest.raises(InputError, match="no examples"):
        GlobalBatchSampler([], 4)
    with pytest.raises(InputError, match="3 training examples are too few for 4 processes"):
        GlobalBatchSampler([1, 2, 3], 4, world_size=4, shuffle=True)
