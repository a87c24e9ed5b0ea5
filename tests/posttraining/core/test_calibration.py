"""How calibration examples are put into batches."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from splora.posttraining.core.calibration import FULL_TOKENS, LEAST_FILLED, by_length


@given(st.lists(st.integers(1, 700), min_size=1, max_size=300), st.sampled_from([512, 4096]))
def test_batches_hold_every_row_once_and_little_padding(lengths: list[int], tokens: int) -> None:
    given_lengths, rows = np.array(lengths, np.int64), np.arange(len(lengths), dtype=np.int64)[::-1]
    batches = by_length(rows, given_lengths, tokens)
    assert sorted(np.concatenate(batches).tolist()) == sorted(rows.tolist())
    of_row = dict(zip(rows.tolist(), lengths, strict=True))
    longest = [[of_row[row] for row in batch.tolist()] for batch in batches]
    assert [length for found in longest for length in found] == sorted(lengths, reverse=True)
    for found in longest:
        assert len(found) * found[0] <= tokens or len(found) == 1
        # Beyond what fills the processor, rows are nearly as long as the first.
        full = -(-FULL_TOKENS // found[0])
        assert all(length >= LEAST_FILLED * found[0] for length in found[full:])
