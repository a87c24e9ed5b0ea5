"""What is looked at beside the divergence, against naive loops; and who decides on a correction of biases."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from splora.posttraining.core.drift import Drift, drift
from splora.posttraining.core.precision import Precision
from splora.posttraining.fisher.correction import LEAST_HELD_OUT, choose_bias_correction, halves, is_better

FP32 = Precision("fp32")


def _logits(rows: int, classes: int, seed: int) -> Tensor:
    return 2 * torch.randn(rows, classes, generator=torch.Generator().manual_seed(seed))


@given(st.integers(1, 20), st.integers(2, 5), st.integers(0, 99))
def test_regret_and_shift_are_those_of_a_loop(rows: int, classes: int, seed: int) -> None:
    dense, pruned = _logits(rows, classes, seed), _logits(rows, classes, seed + 100)
    half = rows // 2
    cut = slice(half, None)
    found = drift([dense[:half], dense[cut]] if half else [dense], [pruned[:half], pruned[cut]] if half else [pruned])
    regret, before, after = [], [0] * classes, [0] * classes
    for ours, theirs in zip(dense, pruned, strict=True):
        p, mine, other = ours.softmax(0), int(ours.argmax()), int(theirs.argmax())
        regret.append(float(p[mine] - p[other]))
        before[mine] += 1
        after[other] += 1
    assert found.regret.tolist() == pytest.approx(regret, abs=1e-5)
    assert found.shift == pytest.approx(sum(abs(a - b) for a, b in zip(before, after, strict=True)) / 2 / rows)
    assert bool((found.divergence >= -1e-9).all())


def test_no_drift_from_itself_and_none_by_being_surer() -> None:
    dense = _logits(50, 3, 0)
    same, surer = drift([dense], [dense]), drift([dense], [5 * dense])
    assert (float(same.regret.sum()), same.shift, float(same.divergence.sum())) == (0, 0, pytest.approx(0))
    assert (float(surer.regret.sum()), surer.shift) == (0, 0)
    assert float(surer.divergence.mean()) > 0.1
    lopsided = drift([dense], [dense + torch.tensor([1.5, 0, 0])])
    assert lopsided.shift > 0.1
    assert float(lopsided.regret.mean()) > 0.01


def test_of_a_regression_scale_and_offset_are_no_regret() -> None:
    dense = _logits(40, 1, 1)
    assert float(drift([dense], [0.3 * dense + 2]).regret.max()) == pytest.approx(0, abs=1e-9)
    assert float(drift([dense], [-dense]).regret.mean()) == pytest.approx(
        0.5 * float(dense.var(correction=0)), rel=1e-3
    )


def _drift(divergence: float, regret: float, shift: float) -> Drift:
    noise = torch.linspace(-0.01, 0.01, 100, dtype=torch.float64)
    return Drift(divergence + noise, torch.full((100,), regret, dtype=torch.float64), shift)


@pytest.mark.parametrize(
    ("divergence", "regret", "shift", "better"),
    [(0.1, 0.02, 0.05, True), (0.1, 0.03, 0.05, False), (0.1, 0.02, 0.06, False), (0.3, 0.01, 0.01, False)],
)
def test_a_correction_must_be_better_by_every_sign(
    divergence: float, regret: float, shift: float, better: bool
) -> None:
    assert is_better(_drift(divergence, regret, shift), _drift(0.2, 0.02, 0.05)) is better
    assert not is_better(_drift(0.2, 0.02, 0.05), _drift(0.2, 0.02, 0.05)), "a tie is the published way"


def test_a_regret_that_may_as_well_be_larger_is_no_gain() -> None:
    one, other = _drift(0.1, 0.02, 0.05), _drift(0.2, 0.02, 0.05)
    flips = torch.zeros(100, dtype=torch.float64)
    flips[0], flips[1] = 0.6, -0.7  # better by 0.001 on average, and by chance
    assert not is_better(Drift(one.divergence, one.regret + flips, one.shift), other)
    assert is_better(Drift(one.divergence, one.regret - 0.01, one.shift), other)


def _batches(sequences: int) -> list[dict[str, Tensor]]:
    generator = torch.Generator().manual_seed(2)
    found = []
    for start in range(0, sequences, 7):
        rows = min(7, sequences - start)
        ids = torch.randint(5, 60, (rows, 6), generator=generator)
        found.append({"input_ids": ids, "attention_mask": torch.ones_like(ids)})
    return found


def test_halves_share_nothing_and_lose_nothing() -> None:
    batches = _batches(45)
    one, other = halves(batches)
    rows = [torch.cat([batch["input_ids"] for batch in side]) for side in (one, other)]
    assert [len(side) for side in rows] == [23, 22]
    every = torch.cat([batch["input_ids"] for batch in batches])
    assert torch.equal(rows[0], every[::2])
    assert torch.equal(rows[1], every[1::2])


@pytest.mark.parametrize("name", ["BertForSequenceClassification", "DistilBertForQuestionAnswering"])
def test_the_choice_is_judged_by_samples_that_no_candidate_has_seen(name: str, tiny: Any) -> None:
    model, seen = tiny(name), []

    def fit(samples: Any, corrected: bool) -> Any:
        seen.append(torch.cat([batch["input_ids"] for batch in samples]))
        worse = tiny(name)
        with torch.no_grad():
            for parameter in worse.parameters():
                parameter.mul_(1.0 if corrected else 0.8)
        return worse

    batches = _batches(2 * LEAST_HELD_OUT)
    chosen, told = choose_bias_correction(model, batches, fit, FP32)
    assert chosen, "the candidate that is the dense model itself"
    assert told["bias"] == "on"
    assert told["held_out"] == LEAST_HELD_OUT
    assert told["drift"]["on"]["divergence"] < told["drift"]["off"]["divergence"]
    every = torch.cat([batch["input_ids"] for batch in batches])
    assert all(torch.equal(ids, every[::2]) for ids in seen)
    chosen, told = choose_bias_correction(model, batches[:3], fit, FP32)
    assert (chosen, told["bias"]) == (False, "off")
    assert len(seen) == 2
