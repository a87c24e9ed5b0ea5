"""Measuring, with operations counted in place of time: blocks are those that the real model runs, cut or whole."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import transformers
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from splora import anatomy
from splora.errors import InputError
from splora.export.cut import cut
from splora.export.plan import Plan
from splora.posttraining.core.calls import record
from splora.posttraining.latency.conditions import conditions, device_name
from splora.posttraining.latency.measure import (
    Call,
    attention_block,
    clock,
    feed_forward_block,
    grid,
    measure,
    median_times,
    model_call,
    sized,
)
from splora.posttraining.latency.search import predicted_milliseconds
from splora.posttraining.latency.table import LatencyTable, model_milliseconds, stretch

BERT = {"hidden_size": 24, "num_hidden_layers": 2, "num_attention_heads": 3, "intermediate_size": 40, "vocab_size": 50}
SHORT = {"max_position_embeddings": 40}
FAMILIES: dict[str, tuple[str, dict[str, Any]]] = {
    "bert": ("Bert", BERT | SHORT),
    "roberta": ("Roberta", BERT | SHORT),
    "distilbert": (
        "DistilBert",
        {"dim": 24, "n_layers": 2, "n_heads": 3, "hidden_dim": 40, "vocab_size": 50} | SHORT,
    ),
    "opt": (
        "OPT",
        {"hidden_size": 24, "num_hidden_layers": 2, "num_attention_heads": 3, "ffn_dim": 40, "vocab_size": 50}
        | {"word_embed_proj_dim": 24, "max_position_embeddings": 40},
    ),
}
UNEVEN = Plan(((0, 2), ()), ((1, 5, 7), tuple(range(20))))


def tiny(family: str, head: str = "SequenceClassification") -> nn.Module:
    """A random model in evaluation mode."""
    name, settings = FAMILIES[family]
    torch.manual_seed(0)
    model: nn.Module = getattr(transformers, f"{name}For{head}")(getattr(transformers, f"{name}Config")(**settings))
    return model.eval()


def operations(call: Call) -> float:
    """A stopwatch that counts multiplications and additions of matrix products; one more, as no time is zero."""
    with FlopCounterMode(display=False) as counter:
        call()
    return 1.0 + counter.get_total_flops()


def counted(model: nn.Module) -> tuple[LatencyTable, LatencyTable]:
    """Tables of counted operations."""
    return measure(model, 2, 6, step=10, repeats=1, warmup=0, stopwatch=operations)


@pytest.mark.parametrize("family", FAMILIES)
def test_blocks_and_overhead_sum_to_the_real_model(family: str) -> None:
    model = tiny(family)
    mha, ffn = counted(model)
    assert mha.sizes == (0, 1, 2, 3)
    assert ffn.sizes == (0, 10, 20, 30, 40)
    assert mha.milliseconds[0] == ffn.milliseconds[0] == 1
    assert stretch(mha, ffn) == pytest.approx(1)
    with torch.inference_mode():
        spent = operations(model_call(cut(model, UNEVEN), 2, 6, 0))
    predicted = predicted_milliseconds(UNEVEN, mha.fit(), ffn.fit())
    # Up to the smallest measured number of neurons the latency is taken to be flat.
    fewer = 7 * (ffn.costs[1] / 10)
    assert model_milliseconds(predicted, mha, ffn) - fewer == pytest.approx(spent)
    assert mha.measured_with == ffn.measured_with == conditions(model, 2, 6)


@pytest.mark.parametrize("family", FAMILIES)
def test_blocks_are_those_of_the_cut_model(family: str) -> None:
    model = tiny(family)
    first = Plan(((0, 1),) * 2, (tuple(range(20)),) * 2)
    layer = anatomy.layers(cut(model, first))[0]
    hidden, block = torch.randn(2, 6, 24), sized(model, 2, 20)
    with torch.inference_mode():
        call = record(model, {name: torch.ones(2, 6, dtype=torch.long) for name in ("input_ids", "attention_mask")})[1][
            0
        ]
        mine = feed_forward_block(block, attention_block(block, hidden, call))
        torch.testing.assert_close(mine, call(layer.module, hidden))
    assert all(linear.weight.is_contiguous() for linear in block.linears.values())


def test_the_model_stays_whole() -> None:
    model = tiny("bert").train()
    before = {name: parameter.clone() for name, parameter in model.named_parameters()}
    counted(model)
    assert model.training
    assert all(parameter.requires_grad for parameter in model.parameters())
    for name, parameter in model.named_parameters():
        torch.testing.assert_close(parameter, before[name])


def test_the_median_counts_rounds_after_the_warm_up_in_changing_order() -> None:
    made: list[str] = []
    times = {"fast": iter([900.0, 1.0, 50.0, 2.0]), "slow": iter([900.0, 10.0, 11.0, 12.0])}
    calls: dict[str, Call] = {name: lambda name=name: made.append(name) or name for name in times}  # type: ignore[misc]
    rounds: list[tuple[int, int]] = []
    medians = median_times(
        calls, 3, 1, 0, lambda call: next(times[str(call())]), lambda done, of: rounds.append((done, of))
    )
    assert medians == {"fast": 2.0, "slow": 11.0}
    assert rounds == [(1, 4), (2, 4), (3, 4), (4, 4)]
    turns = [tuple(made[start : start + 2]) for start in range(0, 8, 2)]
    assert all(sorted(turn) == ["fast", "slow"] for turn in turns)
    assert len(set(turns)) == 2


def test_the_clock_tells_milliseconds_of_one_call(monkeypatch: pytest.MonkeyPatch) -> None:
    told = iter([10.0, 10.25])
    monkeypatch.setattr("splora.posttraining.latency.measure.time.perf_counter", lambda: next(told))
    assert clock(torch.device("cpu"))(lambda: None) == 250


def test_the_grid_has_both_ends() -> None:
    assert grid(100, 30) == [0, 30, 60, 90, 100]
    assert grid(96, 4) == list(range(0, 97, 4))


def test_no_token_is_padding() -> None:
    model, seen = tiny("roberta"), []
    model.register_forward_pre_hook(lambda _, __, named: seen.append(named), with_kwargs=True)
    with torch.inference_mode():
        model_call(model, 8, 30, 0)()
    assert not bool((seen[0]["input_ids"] == 1).any())
    assert bool(seen[0]["attention_mask"].all())


def test_conditions_name_the_model_and_the_device() -> None:
    held = conditions(tiny("distilbert").to(torch.bfloat16), 4, 8, seed=3)
    assert (held.model_type, held.layers, held.heads, held.neurons, held.hidden_size, held.head_size) == (
        "distilbert",
        *(2, 3, 40, 24, 8),
    )
    assert (held.dtype, held.batch_size, held.sequence_length, held.seed) == ("bfloat16", 4, 8, 3)
    assert held.device == device_name(torch.device("cpu"))
    assert held.device.startswith("cpu: ")


def test_a_model_with_different_layers_has_no_table() -> None:
    with pytest.raises(InputError, match=r"different numbers of heads and neurons \(0 and 20, 2 and 3\)"):
        counted(cut(tiny("bert"), UNEVEN))
