"""How budgets read, what is refused, and that a budget of everything keeps everything."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
import transformers

from splora.errors import InputError
from splora.posttraining import pipeline
from splora.posttraining.budget import Budget
from splora.posttraining.request import PruneRequest
from splora.tasks.embedded.classification import write_glue
from splora.tasks.embedded.tokenizer import build_tokenizer


@pytest.mark.parametrize("text", ["mac=0.5", "MACs = 0.5", "latency=.6"])
def test_budgets_read_as_people_write_them(text: str) -> None:
    assert 0 < Budget.parse(text).fraction < 1


@pytest.mark.parametrize("text", ["mac=1", "MAC=1.0"])
def test_all_macs_may_stay(text: str) -> None:
    assert Budget.parse(text) == Budget("mac", 1.0)


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("mac", "reads mac=0.5"),
        ("mac=0", "0 is out of range; .* larger than 0 and at most 1"),
        ("mac=1.01", "larger than 0 and at most 1"),
        ("mac=0,5", "larger than 0 and at most 1"),
        ("mac=nan", "larger than 0 and at most 1"),
        ("latency=0", "larger than 0 and smaller than 1"),
        ("latency=1", "1 of the dense model's latency asks for no speed-up at all; .* mac=1 keeps everything"),
        ("latency=2", "larger than 0 and smaller than 1"),
        ("latensy=0.5", "did you mean 'latency'"),
    ],
)
def test_other_budgets_are_refused(text: str, told: str) -> None:
    with pytest.raises(InputError, match=told) as raised:
        Budget.parse(text)
    assert len(raised.value.problems) == 1


@pytest.mark.parametrize(
    ("method", "choices"),
    [("fisher", {}), ("fisher", {"teacher": "sqrt"}), ("stat", {}), ("stat", {"exact_paper": True})],
    ids=["fisher", "fisher sqrt", "stat", "stat exact"],
)
def test_a_budget_of_everything_keeps_everything(method: str, choices: dict[str, Any], tmp_path: Path) -> None:
    tokenizer = build_tokenizer()
    config = transformers.BertConfig(
        vocab_size=len(tokenizer),
        max_position_embeddings=66,
        hidden_size=24,
        num_hidden_layers=2,
        num_attention_heads=4,
        intermediate_size=20,
        num_labels=2,
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(5)
        model = transformers.BertForSequenceClassification(config)
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.add_(0.1 * torch.randn_like(parameter))
    model.save_pretrained(tmp_path / "model")
    tokenizer.save_pretrained(tmp_path / "model")
    for path in write_glue(tmp_path / "data", "sst2").iterdir():
        lines = path.read_text(encoding="utf-8").splitlines(keepends=True)
        path.write_text("".join(lines[:40]), encoding="utf-8")
    request = PruneRequest(
        method=method,
        model=str(tmp_path / "model"),
        task="sst2",
        data=str(tmp_path / "data"),
        budget=Budget.parse("mac=1"),
        output=tmp_path / "out",
        samples=16,
        max_seq_length=60,
        precision="fp32",
        device="cpu",
        latency_batch_size=1,
        latency_tokens=8,
        choices=choices,
    )
    result = pipeline.prune(request)
    assert result["macs_kept"] == 1
    assert result["heads_kept"] == [4, 4]
    assert result["pruned"] == result["dense"]
    assert all(value == pytest.approx(0, abs=1e-6) for value in result["kl_divergence"].values())
