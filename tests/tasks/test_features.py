"""Ragged columns and the collator, against plain Python lists."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from splora.tasks.features import Collator, FeatureSet, Ragged

ROWS = st.lists(st.lists(st.integers(1, 500), min_size=1, max_size=20), min_size=1, max_size=12)


@given(ROWS)
def test_ragged_rows_come_back(rows: list[list[int]]) -> None:
    ragged = Ragged.from_rows(rows)
    assert len(ragged) == len(rows)
    assert [ragged[i].tolist() for i in range(len(rows))] == rows
    assert ragged.lengths.tolist() == [len(row) for row in rows]
    assert ragged.values.dtype == np.int32


@given(ROWS, st.data())
def test_batch_equals_lists_padded_by_hand(rows: list[list[int]], data: st.DataObject) -> None:
    chosen = data.draw(st.lists(st.integers(0, len(rows) - 1), min_size=1, max_size=8))
    ragged = Ragged.from_rows(rows)
    labels = np.arange(len(rows)) * 10
    features = FeatureSet({"input_ids": ragged, "token_type_ids": ragged, "labels": labels}, ragged.lengths)
    batch = Collator(features, pad_token_id=7, max_width=512)(chosen)
    width = -(-max(len(rows[i]) for i in chosen) // 8) * 8
    assert batch["input_ids"].tolist() == [rows[i] + [7] * (width - len(rows[i])) for i in chosen]
    assert batch["token_type_ids"].tolist() == [rows[i] + [0] * (width - len(rows[i])) for i in chosen]
    assert batch["attention_mask"].tolist() == [[1] * len(rows[i]) + [0] * (width - len(rows[i])) for i in chosen]
    assert batch["index"].tolist() == chosen
    assert batch["labels"].tolist() == [10 * i for i in chosen]
    assert all(column.dtype == torch.int64 for column in batch.values())


@pytest.mark.parametrize(("max_width", "width"), [(512, 24), (20, 20), (17, 17)])
def test_width_never_exceeds_the_models(max_width: int, width: int) -> None:
    ragged = Ragged.from_rows([[1] * 17, [2]])
    batch = Collator(FeatureSet({"input_ids": ragged}, ragged.lengths), 0, max_width)([0, 1])
    assert batch["input_ids"].shape == (2, width)


def test_columns_keep_their_kind_of_number() -> None:
    ragged = Ragged.from_rows([[1], [2]])
    columns = {"input_ids": ragged, "labels": np.array([0.5, 1.5]), "flag": np.array([True, False])}
    batch = Collator(FeatureSet(columns, ragged.lengths), 0, 8)([1])
    assert batch["labels"].dtype == torch.float32
    assert batch["labels"].tolist() == [1.5]
    assert batch["flag"].dtype == torch.bool
