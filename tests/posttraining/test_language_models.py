"""From a text and an OPT to a smaller OPT: the published commands, what they write, and what they refuse."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers

from splora import load_pruned
from splora.checkpoints.checkpoint import load_checkpoint
from splora.errors import InputError
from splora.export.quantized import save_quantized
from splora.posttraining import pipeline
from splora.posttraining.core.compute import check_compute, find_device
from splora.posttraining.core.layer_grams import beginnings
from splora.posttraining.core.names import checkpoint_name, summary_path
from splora.posttraining.quantize import pipeline as quantize_pipeline
from splora.posttraining.quantize.grid import GridOptions
from splora.report.collect import collect
from splora.scripts import opt_eval, prune, prune_opt, quantize, train_small_opt
from splora.tasks import language_modelling
from splora.tasks.sources import canonical_task, data_sources, make_data_module
from splora.tasks.text_sources import read_text
from splora.training.small_decoder import SmallOPT, write_untrained

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
        opt_eval.make_parser().parse_args(
            ["--model_name", str(output), "--data_dir", "embedded", "--precision", "fp32", "--threads", "1"]
        )
    )
    assert found["wikitext2"] == pytest.approx(result["pruned"], rel=1e-4)
    written = json.loads((tmp_path / "output" / output.name / "wikitext2" / "evaluate" / "result.json").read_text())
    assert written["perplexity"] == found["wikitext2"]
    shared = {"method", "model", "task", "metric", "seconds", "seed", "precision", "device", "threads", "versions"}
    assert shared | {"settings"} <= written.keys() & result.keys()
    assert [one.folder for one in collect(tmp_path).pruned] == [output]  # a report is of what was changed


@pytest.mark.parametrize("more", [[], ["--no_reconstruction"], ["--exact_paper"], ["--head_factors=1,2"]], ids=str)
def test_an_opt_without_biases_is_pruned_and_has_none_after(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, more: list[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    config = transformers.AutoConfig.from_pretrained(folder, enable_bias=False, layer_norm_elementwise_affine=False)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(2)
        model = transformers.OPTForCausalLM(config)
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.add_(0.2 * torch.randn_like(parameter))
    transformers.AutoTokenizer.from_pretrained(folder).save_pretrained("bare")
    model.save_pretrained("bare")
    given = ["--model=bare", "--task=wikitext2", "--data=embedded", "--budget=mac=0.5", "--output=out", *SHORT, *more]
    prune.main(["stat", *given])
    result = json.loads(Path("out/result.json").read_text(encoding="utf-8"))
    assert all(0 <= value < 10 for value in result["kl_divergence"].values())
    smaller: Any = load_pruned("out")
    assert not [name for name, _ in smaller.named_parameters() if name.endswith("bias")]
    prune.main(
        ["stat", "--model=bare", "--task=wikitext2", "--data=embedded", "--budget=mac=1", "--output=whole", *SHORT]
    )
    whole = json.loads(Path("whole/result.json").read_text(encoding="utf-8"))
    assert whole["kl_divergence"].popitem()[1] < 0.01


def test_a_pruned_model_is_pruned_further(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for model, budget, name in ((str(folder), "mac=0.8", "once"), ("once", "mac=0.5", "twice")):
        given = ["--model", model, "--task", "wikitext-2", "--data", "embedded", "--budget", budget, "--output", name]
        prune.main(["stat", *given, *SHORT])
    results = [json.loads((tmp_path / name / "result.json").read_text(encoding="utf-8")) for name in ("once", "twice")]
    assert results[1]["dense"] == pytest.approx(results[0]["pruned"], rel=1e-4)
    # Costs are compared with the dense model's, however often it was pruned.
    assert results[1]["parameters"]["pruned"] < results[0]["parameters"]["pruned"] < results[0]["parameters"]["dense"]
    assert results[1]["parameters"]["dense"] == results[0]["parameters"]["dense"]
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
        InputError, match="is of the family opt, a language model; sst2 needs one of bert, deberta-v2, disti"
    ):
        load_checkpoint(str(folder), "sst2")
    config = transformers.BertConfig(
        vocab_size=50, hidden_size=8, num_hidden_layers=1, num_attention_heads=2, intermediate_size=8
    )
    transformers.BertForSequenceClassification(config).save_pretrained(tmp_path)
    with pytest.raises(
        InputError, match="is of the family bert, no causal language model; ptb needs one of gemma, gpt2, llama"
    ):
        load_checkpoint(str(tmp_path), "ptb")


def test_what_cannot_work_is_told_before_anything_is_loaded(capsys: pytest.CaptureFixture[str]) -> None:
    given = ["--model", "none", "--task", "wikitext2", "--data", "embedded", "--budget", "mac=0.5", "--output", "x"]
    with pytest.raises(InputError, match="--fisher_labels is data, and wikitext2 has no labels"):
        prune.main(["fisher", *given, "--fisher_labels=data"])
    with pytest.raises(SystemExit) as stopped:
        opt_eval.main(["--model_name", "none", "--task", "sst2", "wiki", "--max_seq_length", "1"])
    assert stopped.value.code == 2
    told = capsys.readouterr().err
    for text in ("--task is 'sst2', which is no text", "task is 'wiki'", "--max_seq_length is 1"):
        assert text in told


@pytest.mark.parametrize(
    ("command", "given", "told"),
    [
        (
            opt_eval.main,
            ["--model_name", "none", "--threads", "0", "--device", "kuda", "--seed", "-3", "--precision", "bf61"],
            ["--threads is 0", "--device is 'kuda'", "--seed is -3", "did you mean 'bf16'"],
        ),
        (
            opt_eval.main,
            ["--model_name", "none", "--device", "cuda", "--task", "wiki"],
            ["--device is 'cuda'; torch sees 0 such devices here.", "task is 'wiki'"],
        ),
        (
            train_small_opt.main,
            ["--output_dir", ".", "--threads", "0", "--seed", "-3", "--layers", "0", "--task", "ptbb"],
            ["is not empty", "--threads is 0", "--seed is -3", "layers is 0", "--task is 'ptbb'", "'ptb'"],
        ),
    ],
)
def test_where_and_how_to_compute_is_looked_at_with_the_rest(
    command: Any, given: list[str], told: list[str], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
    with pytest.raises(SystemExit) as stopped:
        command(given)
    assert stopped.value.code == 2
    error = capsys.readouterr().err
    assert all(text in error for text in told), error


def test_values_that_every_command_allows(monkeypatch: pytest.MonkeyPatch) -> None:
    check_compute(device="cpu", precision="bf16", threads=1, seed=2**32 - 1)
    assert find_device("cpu") == torch.device("cpu")
    for given in ({"device": "meta"}, {"device": ""}, {"device": "cuda:-1"}, {"seed": 2**32}, {"threads": -1}):
        with pytest.raises(InputError, match=f"^--{next(iter(given))} is"):
            check_compute(**given)  # type: ignore[arg-type]
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    check_compute(device="cuda:1")
    with pytest.raises(InputError, match="torch sees 2 such devices"):
        check_compute(device="cuda:2")


def test_a_text_that_cannot_be_had_keeps_no_other_from_being_measured(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "test.txt").write_text("a few words of a text\n" * 30, encoding="utf-8")
    read = language_modelling.read_text

    def offline(source: str | None, task: str, *others: Any) -> str:
        if task != "ptb":
            raise InputError(f"{task}: the data set cannot be loaded from the hub.")
        return read(source, task, *others)

    monkeypatch.setattr(language_modelling, "read_text", offline)
    with pytest.raises(SystemExit) as stopped:
        opt_eval.main(["--model_name", str(folder), "--data_dir", ".", "--task", "wikitext2", "ptb", "c4"])
    assert stopped.value.code == 2
    told = capsys.readouterr()
    assert told.err.splitlines()[-2:] == [
        f"error: {task}: the data set cannot be loaded from the hub." for task in ("wikitext2", "c4")
    ]
    lines = Path("output/opt/tiny.txt").read_text(encoding="utf-8").splitlines()
    assert lines == told.out.splitlines()
    assert [line.partition(" on ")[2].partition(",")[0] for line in lines] == ["ptb"]


def test_models_of_other_families_are_named_before_their_data_are_looked_at(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    transformers.T5Config(num_layers=1, d_model=8, d_ff=8, num_heads=2, d_kv=4).save_pretrained("t5")
    with pytest.raises(SystemExit) as stopped:
        prune_opt.main(["--model_name", "./t5", "--data_dir", "embedded", "--mu", "0.5"])
    assert stopped.value.code == 2
    assert "./t5: model type 't5' is not supported; supported are bert," in capsys.readouterr().err


@pytest.mark.parametrize(
    ("name", "told"),
    [
        (
            "BertForSequenceClassification",
            "of the family bert, no causal language model; wikitext2 needs one of gemma, gpt2, llama",
        ),
        ("OPTForSequenceClassification", "has no head for wikitext2; this quantized model is a OPTForSequenceClassif"),
    ],
)
def test_a_quantized_model_without_a_language_models_head(
    name: str, told: str, tiny: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    save_quantized(tiny(name), {}, GridOptions(), None, tmp_path / "model")
    with pytest.raises(SystemExit) as stopped:
        opt_eval.main(["--model_name", str(tmp_path / "model"), "--data_dir", "embedded"])
    assert stopped.value.code == 2
    assert told in capsys.readouterr().err


def test_too_few_tokens_are_told_before_the_dense_model_is_judged(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    sizes = SmallOPT(vocabulary=300, positions=24, layers=1, hidden=16, heads=4, neurons=800)
    write_untrained(sizes, read_text("embedded", "wikitext2", "train"), tmp_path).save_pretrained(tmp_path)  # type: ignore[operator]
    told: list[str] = []
    monkeypatch.setattr(pipeline, "predicted", lambda name, *others: told.append(name))
    monkeypatch.setattr(quantize_pipeline, "predicted", lambda name, *others: told.append(name))
    shared = ["--num_samples=1", "--threads=1", "--device=cpu"]
    with pytest.raises(SystemExit) as stopped:
        prune_opt.main(["--model_name=.", "--data_dir=embedded", "--mu=0.5", "--output_dir=out", *shared])
    assert stopped.value.code == 2
    with pytest.raises(InputError, match=r"hold 24 tokens, but layer\.0\.neurons has 800 channels"):
        quantize.main(["--model=.", "--data=embedded", "--group-size=16", "--output=out", *shared])
    assert not told


def test_a_text_shorter_than_a_window(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "short.txt").write_text("a few words\n", encoding="utf-8")
    with pytest.raises(SystemExit) as stopped:
        opt_eval.main(["--model_name", str(folder), "--data_dir", str(tmp_path / "short.txt")])
    assert stopped.value.code == 2
    assert "fewer than one window of 24" in capsys.readouterr().err


def test_beginnings_are_the_first_tokens() -> None:
    batch = {"input_ids": torch.arange(12).view(2, 6), "attention_mask": torch.ones(2, 6)}
    assert beginnings([batch], 4)[0]["input_ids"].tolist() == [[0, 1, 2, 3], [6, 7, 8, 9]]
