"""The dense model's pass is made once for both stages where its outputs can be kept, and that changes nothing."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from splora.posttraining.core import states
from splora.posttraining.core.precision import Precision
from splora.posttraining.core.sensitivity import JITTER, root
from splora.posttraining.core.states import Outputs
from splora.posttraining.stat import default as stat_default
from splora.posttraining.stat.method import StatOptions
from tests.posttraining.stat.test_stat import FAMILIES, build, run, samples


@pytest.fixture
def taken(monkeypatch: pytest.MonkeyPatch) -> list[bool]:
    """Of each output that reconstruction asks for, whether it was there."""
    found: list[bool] = []
    take = Outputs.take

    def watched(self: Outputs) -> Tensor | None:
        output = take(self)
        found.append(output is not None)
        return output

    monkeypatch.setattr(Outputs, "take", watched)
    return found


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize("name", FAMILIES)
def test_outputs_of_the_first_pass_give_the_weights_that_a_second_pass_gives(
    tiny: Any, name: str, precision: Any, taken: list[bool], monkeypatch: pytest.MonkeyPatch
) -> None:
    model, batches = build(tiny, name), samples(48)
    found = []
    for limit in (states.OUTPUT_BYTES, 0):
        monkeypatch.setattr(states, "OUTPUT_BYTES", limit)
        stage = run(model, 0.5, StatOptions(), batches=batches, precision=Precision(precision))[-1]
        found.append(stage.model.state_dict())
    asked = 3 * 2 * len(batches)
    assert taken == [True] * asked + [False] * asked
    for key, value in found[0].items():
        assert torch.equal(value, found[1][key]), key


def test_outputs_of_fewer_samples_are_not_taken_for_those_of_all(
    tiny: Any, taken: list[bool], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stat_default, "CHOICE_TOKENS", 100)
    monkeypatch.setattr(stat_default, "CHOICE_TOKENS_PER_CHANNEL", 1)
    run(build(tiny, "BertForSequenceClassification"), 0.5, StatOptions(), batches=samples(48))
    assert not any(taken)


@pytest.mark.parametrize(("precision", "size"), [("fp32", 4), ("bf16", 2)])
def test_outputs_are_held_up_to_their_limit(
    tiny: Any, precision: Any, size: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, batches = tiny("BertForSequenceClassification"), samples(24, 9)
    needed = size * 24 * 9 * 3 * 2 * model.config.hidden_size
    for limit, held in ((needed, True), (needed - 1, False)):
        monkeypatch.setattr(states, "OUTPUT_BYTES", limit)
        outputs = Outputs(model, batches, Precision(precision))
        outputs.put(torch.ones(2))
        assert outputs.held is held
        assert (outputs.take() is not None) is held


@pytest.mark.parametrize("rank", [0, 3, 12])
def test_a_root_squared_is_the_metric_also_where_it_has_few_directions(rank: int) -> None:
    rows = torch.randn(rank, 12, generator=torch.Generator().manual_seed(0))
    metric = (rows.T @ rows).double()  # rounded in fp32: some eigenvalues may lie below zero
    found = root(metric)
    torch.testing.assert_close(found.T @ found, metric, rtol=0, atol=2 * JITTER * float(metric.diagonal().mean()))
