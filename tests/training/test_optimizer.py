"""Groups: every trained parameter once, scores and norms without decay, each kind at its own rate."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from transformers import BertConfig, BertForQuestionAnswering

from splora.training.model import prepare
from splora.training.optimizer import parameter_groups, rate_factor
from splora.training.options import AdapterOptions, OptimizerOptions, PruningOptions

TINY = {"vocab_size": 50, "hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16}
OPTIONS = OptimizerOptions(
    learning_rate=1.0,
    mask_scores_learning_rate=2.0,
    position_weights_learning_rate=3.0,
    adapter_learning_rate=4.0,
    weight_decay=0.1,
)


@pytest.mark.parametrize("adapter", ["none", "splopa", "splora"])
def test_every_trained_parameter_has_its_group(adapter: str) -> None:
    base = BertForQuestionAnswering(BertConfig(**TINY))
    pruning = PruningOptions(method="topK", attention_block=(8, 8), ffn_block=(8, 8))
    network, _ = prepare(base, AdapterOptions(kind=adapter, num_prototypes=2, rank=2), pruning)
    groups = {group["name"]: group for group in parameter_groups(network, OPTIONS)}
    listed = [id(parameter) for group in groups.values() for parameter in group["params"]]
    assert sorted(listed) == sorted(id(p) for p in network.parameters() if p.requires_grad)
    names = {id(parameter): name for name, parameter in network.named_parameters()}
    in_group = {kind: {names[id(p)] for p in group["params"]} for kind, group in groups.items()}
    assert all(name.endswith("scores") for name in in_group["scores"])
    assert len(in_group["scores"]) == 6
    assert any("LayerNorm" in name for name in in_group["no_decay"])
    assert any("bias" in name for name in in_group["no_decay"])
    assert any("qa_outputs" in name and name.endswith("weight") for name in in_group["weights"])
    assert {kind: group["weight_decay"] for kind, group in groups.items() if kind in ("scores", "no_decay")} == {
        "scores": 0.0,
        "no_decay": 0.0,
    }
    assert groups["weights"]["weight_decay"] == 0.1
    assert groups["scores"]["lr"] == 2.0
    if adapter == "splopa":
        assert all("position_weights" in name for name in in_group["position_weights"])
        assert groups["position_weights"]["lr"] == 3.0
        assert all("splopa_columns" in name or "splopa_rows" in name for name in in_group["adapter"])
    if adapter != "none":
        assert groups["adapter"]["lr"] == 4.0


def test_empty_rates_mean_the_learning_rate() -> None:
    base = BertForQuestionAnswering(BertConfig(**TINY))
    pruning = PruningOptions(method="topK", attention_block=(8, 8), ffn_block=(8, 8))
    network, _ = prepare(base, AdapterOptions(kind="splopa", num_prototypes=2), pruning)
    assert {group["lr"] for group in parameter_groups(network, OptimizerOptions(learning_rate=0.5))} == {0.5}


@given(warmup=st.integers(0, 50), total=st.integers(1, 200), step=st.integers(0, 250))
def test_the_rate_rises_to_one_and_falls_to_zero(warmup: int, total: int, step: int) -> None:
    factor = rate_factor(step, warmup, total)
    assert 0 <= factor <= 1
    if warmup and step <= warmup < total:
        assert factor == pytest.approx(step / warmup)
    if warmup <= total <= step:
        assert factor == 0 or step < warmup
    if warmup < total:
        assert rate_factor(warmup, warmup, total) == 1
