"""Scores from importances: by rank, evenly spread."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from splora.masks import BlockMask, update_global_cutoffs
from splora.masks.first_scores import spread, start_scores


@settings(deadline=None, max_examples=40)
@given(values=st.lists(st.integers(-9, 9), min_size=1, max_size=30))
def test_ranks_rise_with_importance_and_lie_evenly(values: list[int]) -> None:
    ranks = spread(torch.tensor(values, dtype=torch.float64))
    wanted = sorted(range(len(values)), key=lambda at: (values[at], -at))
    assert sorted(range(len(values)), key=ranks.tolist().__getitem__) == wanted
    torch.testing.assert_close(ranks.sort().values, torch.linspace(-1, 1, len(values)) if len(values) > 1 else ranks)


@pytest.mark.parametrize("method", ["topK", "topK_global", "sigmoid_threshold", "l0"])
def test_masks_start_with_what_matters_most(method: str) -> None:
    masks = [BlockMask((4, 8), (2, 2), method, "magnitude", 2.0, index=number) for number in range(2)]
    importances = [torch.arange(8.0).view(2, 4) * 10**number for number in range(2)]
    start_scores(masks, importances)
    for mask in masks:
        assert mask.scores is not None
        low = 0.0 if method == "l0" else -2.0
        assert low <= float(mask.scores.detach().min()) <= float(mask.scores.detach().max()) <= low + 4.0
        mask.set_threshold(0.5)
    update_global_cutoffs(masks)
    if method == "topK":
        assert all(torch.equal(mask.binary(), torch.arange(8).view(2, 4) >= 4) for mask in masks)
    if method == "topK_global":
        assert [int(mask.binary().sum()) for mask in masks] == [1, 7]  # of 16, by one scale for both
