"""The command with the published flags: what it refuses, and one whole pruning of real weights by both methods."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from splora.errors import InputError
from splora.scripts import prune, prune_bert


def test_all_mistakes_are_told_at_once(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stopped:
        prune_bert.main(
            ["--model_name=bert", "--task_name=sst", "--mu=1.5", "--head_factors=1,x", "--states=fp16"]  # noqa: RUF005
            + ["--sample_batch_size=0", "--mha_lut=a", "--ffn_lut=b"]
        )
    assert stopped.value.code == 2
    told = capsys.readouterr().err
    for text in (
        "task is 'sst'; allowed are",
        "--mu is 1.5; it is the fraction of MACs to keep, above 0 and at most 1.",
        "--head_factors is '1,x'",
        "--states is 'fp16'",
        "--num_samples is 0",
        "STAT counts MACs",
    ):
        assert text in told


@pytest.mark.parametrize("mu", [0.0, -0.1, 1.01, float("nan")])
def test_mu_lies_above_zero_and_not_above_one(mu: float) -> None:
    with pytest.raises(InputError, match="above 0 and at most 1"):
        prune_bert.budget_of(mu)
    assert prune_bert.budget_of(1.0).fraction == 1.0


def test_a_latency_budget_is_refused() -> None:
    with pytest.raises(InputError, match="STAT counts MACs"):
        prune.main(["stat", "--model", "x", "--task", "sst2", "--budget", "latency=0.5"])


@pytest.mark.real
@pytest.mark.slow
def test_real_weights_are_pruned_by_both_methods(
    shared: Path, few_sentences: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    model, data = shared / "models" / "minilm-sst2", few_sentences
    results = {}
    for name, more in (("exact", ["--exact-paper"]), ("default", [])):
        fixed = ["--model_name=minilm", "--task_name=sst2", "--mu=0.3", "--num_samples=128", "--latency_batch_size=1"]
        folders = ["--ckpt_dir", str(model), "--data_dir", str(data), "--output_dir", name]
        prune_bert.main([*fixed, *folders, *more, "--latency_seq_len", "8"])
        results[name] = json.loads((tmp_path / name / "result.json").read_text(encoding="utf-8"))
    exact, default = results["exact"], results["default"]
    assert exact["kl_divergence"].keys() == {"neurons", "heads"}
    assert default["kl_divergence"]["reconstruct"] <= 0.8 * exact["kl_divergence"]["heads"]
    for result in results.values():
        assert 0.29 < result["macs_kept"] <= 0.3
        assert result["pruned"] > 84
    assert len((tmp_path / "output" / "minilm" / "sst2.txt").read_text(encoding="utf-8").splitlines()) == 2
