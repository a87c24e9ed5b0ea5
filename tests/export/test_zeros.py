"""What masks emptied is cut out, and the smaller model computes what the larger one did."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from splora import anatomy
from splora.export.zeros import cut_zeros, fullness
from tests.families import ONE_OF_EACH

FAMILIES = ONE_OF_EACH


@torch.no_grad()
def empty(model: nn.Module, seed: int, share: float) -> nn.Module:
    """Zero random heads and neurons, by rows, by columns or by both; biases stay, and so do constants."""
    generator = torch.Generator().manual_seed(seed)

    def drawn(number: int) -> torch.Tensor:
        return torch.rand(number, generator=generator) < share

    for layer in anatomy.layers(model):
        for units, before, after, rows, columns in (
            (layer.heads, "value", "attention_output", layer.rows_of_head("value"), layer.head_size),
            (layer.neurons, "ffn_in", "ffn_out", 1, 1),
            (layer.neurons, "ffn_gate", "ffn_out", 1, 1),
        ):
            if before in layer.linears:
                layer.linears[before].weight[drawn(units).repeat_interleave(rows)] = 0.0
                layer.linears[after].weight[:, drawn(units).repeat_interleave(columns)] = 0.0
    return model


@pytest.mark.parametrize("family", FAMILIES)
def test_the_cut_model_says_what_the_emptied_one_did(tiny: Any, outputs: Any, family: str) -> None:
    dense = tiny(family)

    @settings(deadline=None, max_examples=12)
    @given(seed=st.integers(0, 999), share=st.sampled_from([0.0, 0.3, 0.7, 1.0]))
    def check(seed: int, share: float) -> None:
        import copy

        model = empty(copy.deepcopy(dense), seed, share)
        wanted = outputs(model)
        served = cut_zeros(model)
        torch.testing.assert_close(outputs(served.model), wanted, atol=1e-5, rtol=1e-5)
        torch.testing.assert_close(outputs(model), wanted)  # it stays as it was
        assert served.is_smaller == (share > 0 and served.plan != served.whole)
        if share == 1:
            assert served.plan.head_counts == served.plan.neuron_counts == [0, 0, 0]
        if share == 0:
            assert served.model is model
            assert served.zeros == 0

    check()


def test_constants_stay_where_no_bias_could_take_them(tiny: Any, outputs: Any) -> None:
    """Without a bias after it, a head that puts out a constant is no empty one."""
    model = tiny("BertForQuestionAnswering")
    layer = anatomy.layers(model)[1]
    with torch.no_grad():
        layer.linears["value"].weight[: layer.head_size] = 0.0
        layer.linears["attention_output"].bias = None
    served = cut_zeros(model)
    assert served.plan == served.whole
    torch.testing.assert_close(outputs(served.model), outputs(model))


def test_what_stays_as_zeros_is_told(tiny: Any) -> None:
    model = tiny("BertForQuestionAnswering")
    layer = anatomy.layers(model)[0]
    with torch.no_grad():
        layer.linears["value"].weight[0, :12] = 0.0  # half a row of 24, of a head of 6 rows
        layer.linears["ffn_in"].weight[3, :18] = 0.0  # three quarters of a neuron's row
    total = sum(linear.weight.numel() for each in anatomy.layers(model) for linear in each.linears.values())
    served = cut_zeros(model)
    assert not served.is_smaller
    assert served.zeros == pytest.approx(30 / total)
    assert fullness(layer) == pytest.approx((1 - 12 / (6 * 24), 0.25))


def test_neurons_go_without_a_trace_where_nothing_has_a_bias(tiny: Any, outputs: Any) -> None:
    model = empty(tiny("OPTForCausalLM", enable_bias=False), 1, 0.5)
    served = cut_zeros(model)
    assert sum(served.plan.neuron_counts) < 60
    torch.testing.assert_close(outputs(served.model), outputs(model), atol=1e-5, rtol=1e-5)
