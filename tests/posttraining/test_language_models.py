"""From a text and an OPT to a smaller OPT: the published commands, what they write, and what they refuse."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers

from scripts import opt_eval, prune, prune_opt
from scripts.opt_names import checkpoint_name, summary_path
from splora import load_pruned
from splora.errors import InputError
from splora.posttraining.checkpoint import load_checkpoint
from splora.posttraining.stat_grams import beginnings
from splora.tasks.sources import canonical_task, data_sources, make_data_module
from splora.tasks.text_sources import read_text
from splora.training.small_opt import SmallOPT, write_untrained

TINY = SmallOPT(vocabulary=300, positions=24, layers=2, hidden=16, heads=4, neurons=32)
SHORT = ["--num_samples=24", "--latency_seq_len=8", "--precision=fp32", "--threads=1"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random tiny OPT with a tokenizer of its own."""
    path = tmp_path_factory.mktemp("opt") / "tiny"
    path.mkdir()
    model: Any = write_untrained(TINY, read_text("embedded", "wikitext2", "train"), path)
    with torch.no_grad(), torch.random.fork_rng(devices=[]):
        torch.manual_seed(2)
        for parameter in model.parameters():
            parameter.add_(0.2 * torch.randn_like(parameter))
    model.save_pretrained(path)
    return path


@pytest.mark.parametrize("more", [[], ["--exact_paper"]], ids=["default", "exact"])
def test_the_published_command_prunes_and_the_result_generates_with_and_without_a_cache(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, more: list[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    named = ["--model_name", str(folder), "--task=wikitext2", "--data_dir=embedded", "--mu=0.5", "--seed=0"]
    prune_opt.main([*named, *SHORT, *more])
    output = tmp_path / "output" / "tiny" / "wikitext2" / "stat-mac-0.5-seed-0"
    result = json.loads((output / "result.json").read_text(encoding="utf-8"))
    assert result["metric"] == "perplexity"
    assert 0.4 < result["macs_kept"] <= 0.5
    assert all(0 <= value < 10 for value in result["kl_divergence"].values())
    assert result["samples"] == 24
    assert len((tmp_path / "output" / "opt" / "tiny.txt").read_text(encoding="utf-8").splitlines()) == 1
    model: Any = load_pruned(output)
    ids = torch.randint(10, 290, (2, 5), generator=torch.Generator().manual_seed(1))
    said = [
        model.generate(ids, attention_mask=torch.ones_like(ids), max_new_tokens=8, do_sample=False, use_cache=cache)
        for cache in (True, False)
    ]
    assert torch.equal(*said)

    found = opt_eval.evaluate(
        opt_eval._parser().parse_args(
            ["--model_name", str(output), "--data_dir", "embedded", "--precision", "fp32", "--threads", "1"]
        )
    )
    assert found["wikitext2"] == pytest.approx(result["pruned"], rel=1e-4)


def test_a_pruned_model_is_pruned_further(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for model, budget, name in ((str(folder), "mac=0.8", "once"), ("once", "mac=0.5", "twice")):
        given = ["--model", model, "--task", "wikitext-2", "--data", "embedded", "--budget", budget, "--output", name]
        prune.main(["stat", *given, *SHORT])
    results = [json.loads((tmp_path / name / "result.json").read_text(encoding="utf-8")) for name in ("once", "twice")]
    assert results[1]["dense"] == pytest.approx(results[0]["pruned"], rel=1e-4)
    assert results[1]["parameters"]["pruned"] < results[1]["parameters"]["dense"] == results[0]["parameters"]["pruned"]
    assert 0.4 < results[1]["macs_kept"] <= 0.5


def test_everything_kept_is_the_same_model(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    named = ["--model_name", str(folder), "--data_dir=embedded", "--mu=1", "--output_dir=whole", "--exact_paper"]
    prune_opt.main([*named, *SHORT])
    result = json.loads((tmp_path / "whole" / "result.json").read_text(encoding="utf-8"))
    assert result["pruned"] == result["dense"]
    assert result["kl_divergence"]["heads"] == pytest.approx(0, abs=1e-9)


def test_published_names() -> None:
    assert checkpoint_name("opt-125M") == "facebook/opt-125m"
    assert checkpoint_name("opt-1.3B") == "facebook/opt-1.3b"
    assert checkpoint_name("facebook/opt-350m") == "facebook/opt-350m"
    assert checkpoint_name("some/folder") == "some/folder"
    assert summary_path("opt-125M") == Path("output/opt/opt-125M.txt")


def test_texts_are_tasks(tmp_path: Path) -> None:
    assert [canonical_task(name) for name in ("WikiText-2", "wikitext", "PTB", "c4")] == [
        "wikitext2", "wikitext2", "ptb", "c4",
    ]  # fmt: skip
    (tmp_path / "valid.txt").write_text("a\n", encoding="utf-8")
    (tmp_path / "test.txt").write_text("b\n", encoding="utf-8")
    assert data_sources(str(tmp_path), "ptb") == (str(tmp_path / "valid.txt"), str(tmp_path / "test.txt"))
    assert data_sources(str(tmp_path / "test.txt"), "ptb") == (str(tmp_path / "test.txt"),) * 2
    assert data_sources(None, "c4") == (None, None)
    with pytest.raises(InputError, match=r"this folder has no train.txt.*\n?.*this folder has no test.txt"):
        data_sources(str(tmp_path.parent), "wikitext2")


def test_columns_are_not_for_texts(folder: Path) -> None:
    with pytest.raises(InputError, match="wikitext2 has none"):
        make_data_module("wikitext2", str(folder), "embedded", "embedded", columns={"label": "gold"})


def test_a_decoder_is_for_texts_and_an_encoder_for_the_rest(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(
        InputError, match="is of the family opt, a language model; sst2 needs one of bert, distilbert, rober"
    ):
        load_checkpoint(str(folder), "sst2")
    config = transformers.BertConfig(
        vocab_size=50, hidden_size=8, num_hidden_layers=1, num_attention_heads=2, intermediate_size=8
    )
    transformers.BertForSequenceClassification(config).save_pretrained(tmp_path)
    with pytest.raises(InputError, match="is of the family bert, no causal language model; ptb needs one of opt"):
        load_checkpoint(str(tmp_path), "ptb")


def test_what_cannot_work_is_told_before_anything_is_loaded(capsys: pytest.CaptureFixture[str]) -> None:
    given = ["--model", "none", "--task", "wikitext2", "--data", "embedded", "--budget", "mac=0.5", "--output", "x"]
    with pytest.raises(InputError, match="Fisher pruning is for encoders"):
        prune.main(["fisher", *given])
    with pytest.raises(SystemExit) as stopped:
        opt_eval.main(["--model_name", "none", "--task", "sst2", "wiki", "--max_seq_length", "1"])
    assert stopped.value.code == 2
    told = capsys.readouterr().err
    for text in ("--task is 'sst2', which is no text", "task is 'wiki'", "--max_seq_length is 1"):
        assert text in told


def test_a_text_shorter_than_a_window(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "short.txt").write_text("a few words\n", encoding="utf-8")
    with pytest.raises(SystemExit) as stopped:
        opt_eval.main(["--model_name", str(folder), "--data_dir", str(tmp_path / "short.txt")])
    assert stopped.value.code == 2
    assert "fewer than one window of 24" in capsys.readouterr().err


def test_beginnings_are_the_first_tokens() -> None:
    batch = {"input_ids": torch.arange(12).view(2, 6), "attention_mask": torch.ones(2, 6)}
    assert beginnings([batch], 4)[0]["input_ids"].tolist() == [[0, 1, 2, 3], [6, 7, 8, 9]]
