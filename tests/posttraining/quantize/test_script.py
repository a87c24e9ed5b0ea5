"""The commands that quantize: whole runs on tiny checkpoints, what they write, and what they refuse."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers

from splora import load_quantized
from splora.errors import InputError
from splora.export.cut import cut
from splora.export.folder import save_pruned
from splora.export.packing import WEIGHTS
from splora.export.plan import Plan
from splora.posttraining.quantize import pipeline as quantize_pipeline
from splora.posttraining.quantize.request import _widest_row
from splora.scripts import cli, quantize, quantize_opt
from splora.tasks.embedded.classification import write_glue
from splora.tasks.embedded.tokenizer import build_tokenizer
from splora.training.small_decoder import SmallOPT, write_untrained

KEYS = {"task", "metric", "dense", "pruned", "quantized", "stages", "kl_divergence", "seconds", "peak_memory_bytes"}
KEYS |= {"seed", "samples", "bytes", "bits_per_weight", "settings", "versions"}
TEXT = "the cat sat on the mat and looked at the dog that ran . it was a fine day for all of them .\n" * 60
SHORT = ["--num-samples", "8", "--group-size", "16", "--threads", "1", "--device", "cpu"]


@pytest.fixture
def opt(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with an untrained OPT, and text; the working folder is another one."""
    sizes = SmallOPT(vocabulary=300, positions=24, layers=2, hidden=32, heads=4, neurons=48)
    model: Any = write_untrained(sizes, TEXT, tmp_path / "opt-tiny")
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.2 * torch.randn(parameter.shape, generator=torch.Generator().manual_seed(1)))
    model.eval().save_pretrained(tmp_path / "opt-tiny")
    (tmp_path / "text").mkdir()
    for split in ("train", "test"):
        (tmp_path / "text" / f"{split}.txt").write_text(TEXT, encoding="utf-8")
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    return tmp_path / "opt-tiny"


def result(folder: Path) -> dict[str, Any]:
    """What a run measured."""
    return dict(json.loads((folder / "result.json").read_text(encoding="utf-8")))


def run(opt: Path, *more: str) -> None:
    """`splora quantize` with few samples."""
    quantize.main(["--model", str(opt), "--data", str(opt.parent / "text"), *SHORT, *more])


@pytest.mark.parametrize("method", ["gptq", "rtn"])
def test_a_language_model_is_quantized_and_judged(opt: Path, method: str) -> None:
    run(opt, "--bits", "4", "--method", method, "--output", "out", "--seed", "3")
    found = result(Path("out"))
    assert set(found) >= KEYS
    assert (found["task"], found["metric"], found["method"]) == ("wikitext2", "perplexity", method)
    assert found["quantized"] == found["pruned"] == found["stages"]["quantize"]
    assert found["quantized"] != found["dense"]
    assert 0 < found["kl_divergence"]["quantize"] < 0.1
    assert (found["seed"], found["samples"]) == (3, 8)
    assert found["bytes"]["quantized"] == (Path("out") / WEIGHTS).stat().st_size < found["bytes"]["dense"]
    assert found["bits_per_weight"] == pytest.approx(4 + (16 + 4) / 16)
    line = (Path("output") / "opt" / "opt-tiny.txt").read_text(encoding="utf-8")
    assert f"perplexity {found['quantized']:.2f} (dense {found['dense']:.2f})" in line
    assert len(transformers.AutoTokenizer.from_pretrained("out")) <= 304
    with torch.no_grad():
        assert load_quantized("out")(input_ids=torch.tensor([[5, 6]])).logits.isfinite().all()


def test_more_bits_lose_less_and_half_is_smaller(opt: Path) -> None:
    found = {}
    for bits in (2, 3, 4, 8):
        run(opt, "--bits", str(bits), "--output", f"{bits}", "--precision", "fp32")
        found[bits] = result(Path(str(bits)))
    losses = [found[bits]["kl_divergence"]["quantize"] for bits in (2, 3, 4, 8)]
    assert losses == sorted(losses, reverse=True)
    sizes = [found[bits]["bytes"]["quantized"] for bits in (2, 3, 4, 8)]
    assert sizes == sorted(sizes)
    run(opt, "--bits", "4", "--output", "half", "--half", "--symmetric", "--act-order")
    assert result(Path("half"))["bytes"]["quantized"] < 0.7 * found[4]["bytes"]["quantized"]
    assert result(Path("half"))["bits_per_weight"] == 5


def test_an_encoder_is_quantized_for_its_task(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    tokenizer = build_tokenizer()
    config = transformers.BertConfig(
        vocab_size=len(tokenizer), hidden_size=24, num_hidden_layers=2, num_attention_heads=4, intermediate_size=32
    )
    transformers.BertForSequenceClassification(config).save_pretrained("bert-tiny")
    tokenizer.save_pretrained("bert-tiny")
    Path("data").mkdir()
    for path in write_glue(Path("data"), "sst2").iterdir():
        path.write_text("".join(path.read_text(encoding="utf-8").splitlines(keepends=True)[:30]), encoding="utf-8")
    arguments = ["--model", "bert-tiny", "--task", "SST-2", "--data", "data", "--group-size", "-1", "--bits", "3"]
    cli.main(["quantize", *arguments, "--num-samples", "16", "--precision", "fp32"])
    folder = Path("output") / "bert-tiny" / "sst2" / "gptq-3-bits-rows-seed-0"
    found = result(folder)
    assert found["metric"] == "accuracy"
    assert found["kl_divergence"]["quantize"] > 0
    assert "accuracy" in (Path("output") / "bert-tiny" / "sst2.txt").read_text(encoding="utf-8")
    assert type(load_quantized(folder)) is transformers.BertForSequenceClassification


def test_the_same_request_replaces_and_another_does_not(opt: Path) -> None:
    run(opt, "--output", "out")
    run(opt, "--output", "out")
    with pytest.raises(InputError, match=r"out holds another result \(bits 4, here 3\)"):
        run(opt, "--output", "out", "--bits", "3")
    run(opt, "--output", "out", "--bits", "3", "--force")
    assert result(Path("out"))["settings"]["bits"] == 3


def test_a_quantized_checkpoint_is_not_quantized_again(opt: Path) -> None:
    run(opt, "--output", "out")
    with pytest.raises(InputError, match="out: this model is quantized already; pass the one that it was made from"):
        quantize.main(["--model", "out", "--data", str(opt.parent / "text"), *SHORT, "--output", "again"])
    assert not Path("again").exists()


def test_all_mistakes_are_told_at_once(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stopped:
        cli.main(
            ["quantize", "--model", "x", "--task", "wikitex2", "--bits", "5", "--group-size", "12", "--method", "gtpq",
             "--damping", "-1", "--states", "fp16", "--num-samples", "0", "--precision", "bf61", "--device", "kuda"]
        )  # fmt: skip
    assert stopped.value.code == 2
    told = capsys.readouterr().err
    for text in ("did you mean 'wikitext2'", "--bits is 5; allowed are 2, 3, 4, 8.", "--group-size is 12", "'gptq'",
                 "--damping is -1", "--states is 'fp16'", "--num_samples is 0", "'bf16'", "'kuda'"):  # fmt: skip
        assert text in told
    assert "Traceback" not in told


def test_what_does_not_fit_the_model_or_the_text_leaves_nothing_behind(opt: Path) -> None:
    with pytest.raises(InputError, match="--group-size is 128, but the widest row has 48 weights"):
        run(opt, "--group-size", "128", "--output", "out")
    (opt.parent / "text" / "test.txt").write_text("short", encoding="utf-8")
    with pytest.raises(InputError, match="fewer than one window"):
        run(opt, "--output", "out")
    with pytest.raises(InputError, match="no such folder"):
        quantize.main(["--model", str(opt), "--data", "nowhere", *SHORT, "--output", "out"])
    assert list(Path.cwd().iterdir()) == []


def published(opt: Path, *more: str) -> None:
    """`scripts/quantize_opt.py` with few samples."""
    shared = ["--data_dir", str(opt.parent / "text"), "--num_samples", "16", "--group_size", "16", "--bits", "3"]
    short = ["--latency_seq_len", "8", "--threads", "1", "--device", "cpu"]
    quantize_opt.main(["--model_name", str(opt), "--task", "wikitext2", "--seed", "0", *shared, *short, *more])


def test_the_published_command_prunes_first_where_need_be(opt: Path, capsys: pytest.CaptureFixture[str]) -> None:
    published(opt, "--mu", "0.7", "--exact-paper")
    folder = Path("output") / "opt-tiny" / "wikitext2"
    pruned = result(folder / "stat-mac-0.7-seed-0")
    found = result(folder / "mac-0.7-gptq-3-bits-groups-16-seed-0")
    assert found["dense"] == pruned["pruned"]
    assert found["heads_kept"] == pruned["heads_kept"]
    assert found["settings"]["model"] == str(folder / "stat-mac-0.7-seed-0")
    loaded: Any = load_quantized(folder / "mac-0.7-gptq-3-bits-groups-16-seed-0")
    ids = torch.tensor([[5, 9, 12]])
    written = [loaded.generate(ids, max_new_tokens=8, do_sample=False, use_cache=cache) for cache in (True, False)]
    assert torch.equal(*written)
    assert len((Path("output") / "opt" / "opt-tiny.txt").read_text(encoding="utf-8").splitlines()) == 2

    # What is there is used.
    published(opt, "--mu", "0.7", "--exact-paper", "--bits", "4", "--output_dir", "four")
    assert result(Path("four"))["dense"] == pruned["pruned"]
    assert len((Path("output") / "opt" / "opt-tiny.txt").read_text(encoding="utf-8").splitlines()) == 3
    # Unless it was made otherwise.
    capsys.readouterr()
    with pytest.raises(SystemExit) as stopped:
        published(opt, "--mu", "0.7", "--output_dir", "other")
    assert stopped.value.code == 2
    assert "was pruned with other options (exact_paper True, here False)" in capsys.readouterr().err


def test_a_group_that_no_row_fills_is_told_before_anything_is_pruned_or_judged(
    opt: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    judged: list[str] = []
    monkeypatch.setattr(quantize_pipeline, "predicted", lambda name, *others: judged.append(name))
    with pytest.raises(InputError, match="--group-size is 128, but the widest row has 48 weights"):
        run(opt, "--group-size", "128")
    with pytest.raises(SystemExit) as stopped:
        published(opt, "--mu", "0.7", "--group_size", "128")
    assert stopped.value.code == 2
    assert "--group-size is 128, but the widest row has 48 weights" in capsys.readouterr().err
    assert not judged
    assert list(Path.cwd().iterdir()) == []


def test_the_widest_row_of_a_pruned_model_is_that_of_its_own_layers(tmp_path: Path) -> None:
    settings: dict[str, Any] = {"hidden_size": 24, "num_hidden_layers": 2, "num_attention_heads": 4, "vocab_size": 50}
    models = (
        transformers.BertForQuestionAnswering(transformers.BertConfig(intermediate_size=40, **settings)),
        transformers.OPTForCausalLM(transformers.OPTConfig(ffn_dim=40, **settings)),
    )
    for model in models:
        assert _widest_row(model.config) == 40
        for neurons, widest in ((30, 30), (5, 24)):
            smaller = cut(model, Plan(((0,), ()), (tuple(range(neurons)), ())))
            save_pruned(smaller, None, tmp_path / f"{model.config.model_type}-{neurons}")
            config = transformers.AutoConfig.from_pretrained(tmp_path / f"{model.config.model_type}-{neurons}")
            assert _widest_row(config) == widest


def test_with_mu_1_the_dense_model_is_quantized(opt: Path) -> None:
    published(opt, "--mu", "1")
    found = result(Path("output") / "opt-tiny" / "wikitext2" / "gptq-3-bits-groups-16-seed-0")
    assert found["settings"]["model"] == str(opt)
    assert not (Path("output") / "opt-tiny" / "wikitext2" / "stat-mac-1-seed-0").exists()


def test_mistakes_of_both_steps_are_told_before_either(opt: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stopped:
        published(opt, "--mu", "1.5", "--bits", "7", "--damping", "nan", "--head_factors", "x")
    assert stopped.value.code == 2
    told = capsys.readouterr().err
    for text in ("--mu is 1.5", "--bits is 7", "--damping is nan", "--head_factors is 'x'"):
        assert text in told
    assert list(Path.cwd().iterdir()) == []
