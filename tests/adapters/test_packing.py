"""Bits and rows."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from splora.adapters.packing import keep_rows, pack_mask, restore_rows, unpack_mask
from splora.errors import InputError


@given(st.integers(1, 9), st.integers(1, 9), st.integers(0, 2**32 - 1))
def test_a_mask_comes_back_from_its_bits(rows: int, cols: int, seed: int) -> None:
    mask = torch.rand((rows, cols), generator=torch.Generator().manual_seed(seed)) > 0.5
    bits = pack_mask(mask)
    assert bits.dtype == torch.uint8
    assert bits.numel() == -(-rows * cols // 8)
    assert torch.equal(unpack_mask(bits, (rows, cols)), mask)


def test_the_first_block_is_the_highest_bit() -> None:
    assert pack_mask(torch.tensor([[True, False, False], [False, False, True]])).tolist() == [0b10000100]


@given(st.integers(1, 9), st.integers(0, 2**32 - 1))
def test_kept_rows_come_back_with_zeros_between(count: int, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    dense, kept = torch.randn((count, 3), generator=generator), torch.rand(count, generator=generator) > 0.5
    rows = keep_rows(dense, kept)
    assert rows.shape == (int(kept.sum()), 3)
    assert torch.equal(restore_rows(rows, kept), dense * kept[:, None])


def test_what_does_not_fit_names_its_place() -> None:
    with pytest.raises(InputError, match=r"encoder\.query.*4 × 4 blocks takes 2 bytes"):
        unpack_mask(torch.zeros(3, dtype=torch.uint8), (4, 4), "encoder.query")
    with pytest.raises(InputError, match=r"encoder\.query.*keeps 1 rows"):
        restore_rows(torch.zeros(2, 3), torch.tensor([True, False]), "encoder.query")
