"""Whole prunings of tiny checkpoints: every task, every family, both budgets, what is written, and what is refused."""

from __future__ import annotations

import dataclasses
import json
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from safetensors.torch import load_file, save_file

from splora import load_pruned
from splora.errors import InputError
from splora.export.plan import Plan
from splora.posttraining import pipeline
from splora.posttraining.core.budget import Budget
from splora.posttraining.core.request import PruneRequest
from splora.posttraining.fisher.method import FisherOptions
from splora.tasks.embedded.classification import write_glue
from splora.tasks.embedded.corpus import corpus
from splora.tasks.embedded.tokenizer import build_tokenizer
from splora.tasks.glue_tasks import TASKS as GLUE
from tests import forks

_BERT = {"hidden_size": 24, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 20}
SETTINGS: dict[str, dict[str, Any]] = {
    "Bert": _BERT,
    "Roberta": _BERT | {"type_vocab_size": 1},
    "DistilBert": {"dim": 24, "n_layers": 2, "n_heads": 4, "hidden_dim": 20},
}


def checkpoint(folder: Path, family: str, task: str) -> Path:
    """A random model of a task with the embedded tokenizer."""
    tokenizer = build_tokenizer()
    labels = {} if task.startswith("squad") else {"num_labels": len(GLUE[task].labels) or 1}
    config = getattr(transformers, f"{family}Config")(
        vocab_size=len(tokenizer),
        max_position_embeddings=66,
        pad_token_id=tokenizer.pad_token_id,
        **SETTINGS[family],
        **labels,
    )
    head = "QuestionAnswering" if task.startswith("squad") else "SequenceClassification"
    torch.manual_seed(5)
    model = getattr(transformers, f"{family}For{head}")(config)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    if family != "Bert":  # these have one kind of token
        settings = json.loads((folder / "tokenizer_config.json").read_text(encoding="utf-8"))
        settings["model_input_names"] = ["input_ids", "attention_mask"]
        (folder / "tokenizer_config.json").write_text(json.dumps(settings), encoding="utf-8")
    return folder


def data(folder: Path, task: str) -> Path:
    """A few examples of the embedded data as files."""
    folder.mkdir()
    if task.startswith("squad"):
        for split, name in (("train", "train.json"), ("dev", "dev.json")):
            content = corpus(split, 24, impossible=task == "squad_v2")
            (folder / name).write_text(json.dumps(content), encoding="utf-8")
        return folder
    for path in write_glue(folder, task).iterdir():
        lines = path.read_text(encoding="utf-8").splitlines(keepends=True)
        path.write_text("".join(lines[:40]), encoding="utf-8")
    return folder


def request_for(tmp_path: Path, family: str = "Bert", task: str = "sst2", **changes: Any) -> PruneRequest:
    request = PruneRequest(
        method="fisher",
        model=str(checkpoint(tmp_path / "model", family, task)),
        task=task,
        data=str(data(tmp_path / "data", task)),
        budget=Budget("mac", 0.5),
        output=tmp_path / "out",
        samples=16,
        max_seq_length=60,
        doc_stride=16,
        precision="fp32",
        device="cpu",
        latency_batch_size=1,
        latency_tokens=8,
        summary=tmp_path / "output" / "line.txt",
        options={},
    )
    return dataclasses.replace(request, **changes)


@pytest.mark.parametrize(
    ("family", "task"),
    [
        *(("Bert", task) for task in ("mnli", "qqp", "qnli", "sst2", "stsb", "mrpc", "squad", "squad_v2")),
        *((family, task) for family in ("Roberta", "DistilBert") for task in ("sst2", "squad")),
    ],
)
def test_every_task_and_family_is_pruned_saved_and_loaded(tmp_path: Path, family: str, task: str) -> None:
    request = request_for(tmp_path, family, task)
    result = pipeline.prune(request)
    wanted = {"task", "metric", "dense", "pruned", "stages", "macs_kept", "latency_ms", "seconds", "peak_memory_bytes"}
    assert wanted | {"seed", "samples"} <= set(result)
    assert list(result["stages"]) == ["search", "rearrange", "rescale"]
    assert set(result["latency_ms"]) >= {"dense", "pruned"}
    assert 0.4 < result["macs_kept"] <= 0.5
    assert result["parameters"]["pruned"] < result["parameters"]["dense"]
    assert json.loads((request.output / "result.json").read_text(encoding="utf-8")) == result
    plan = Plan.load(request.output)
    assert plan.head_counts == result["heads_kept"]
    masks = load_file(request.output / "masks.safetensors")
    assert [int(masks[f"layer.{number}.neurons"].sum()) for number in range(2)] == plan.neuron_counts
    network = load_pruned(request.output)
    assert Plan.dense(network).neuron_counts == plan.neuron_counts
    assert request.summary is not None
    assert f"{result['metric']} {result['pruned']:.2f}" in request.summary.read_text(encoding="utf-8")


def test_the_same_seed_gives_the_same_result_and_another_draws_other_samples(tmp_path: Path) -> None:
    request = request_for(tmp_path)
    first = pipeline.prune(request)
    weights = load_file(request.output / "model.safetensors")
    again = pipeline.prune(request)
    for name, tensor in load_file(request.output / "model.safetensors").items():
        assert torch.equal(tensor, weights[name])
    assert first["kl_divergence"] == again["kl_divergence"]
    other = dataclasses.replace(request, seed=1, output=tmp_path / "other")
    rows = [pipeline.prepare(one, pipeline.silent).calibration.batches for one in (request, other)]
    assert [batch.tolist() for batch in rows[0]] != [batch.tolist() for batch in rows[1]]
    assert pipeline.prune(other)["kl_divergence"] != first["kl_divergence"]


def test_published_options_run_too(tmp_path: Path) -> None:
    options = {
        "gradient_batch_size": 4,
        "labels": "data",
        "teacher": "sqrt",
        "damping": 2.0,
        "bias_correction": "on",
        "storage": "disk",
    }
    assert set(options) == {field.name for field in dataclasses.fields(FisherOptions)}
    result = pipeline.prune(request_for(tmp_path, options=options))
    assert result["settings"]["labels"] == "data"
    assert result["notes"]["rescale"]["hidden_state_bytes"] > 0


def test_a_latency_budget_uses_measured_tables(tmp_path: Path) -> None:
    from splora.posttraining.latency.measure import measure

    request = request_for(tmp_path, budget=Budget("latency", 0.6))
    with pytest.raises(InputError, match="needs measured tables"):
        pipeline.prune(request)
    model = pipeline.prepare(request, pipeline.silent).model
    calls = iter(range(10**6))
    # Times that a clock might have told: blocks of more units take longer.
    tables = measure(model, 1, 8, repeats=1, warmup=0, stopwatch=lambda call: 5.0 + 0 * next(calls))
    sized = [
        dataclasses.replace(
            table,
            milliseconds=tuple(1.0 + 0.5 * size for size in table.sizes),
            model_milliseconds=30.0,
            overhead_milliseconds=2.0,
        )
        for table in tables
    ]
    for table in sized:
        table.save(tmp_path / f"{table.kind}.json")
    request = dataclasses.replace(request, tables=(str(tmp_path / "mha.json"), str(tmp_path / "ffn.json")))
    result = pipeline.prune(request)
    assert result["settings"]["budget"] == "latency=0.6"
    kept = sum(result["heads_kept"]) + sum(result["neurons_kept"])
    # 30 ms: 2 of overhead, 28 for 2 · (4 + 20) units alike; 0.6 of 30 leaves 16 of these 28.
    assert 0.9 * 16 / 28 * 48 <= kept <= 16 / 28 * 48
    other = dataclasses.replace(request, latency_tokens=9, output=tmp_path / "other")
    with pytest.raises(InputError, match="sequence length"):
        pipeline.prune(other)
    assert not (tmp_path / "other").exists()


def test_nothing_else_is_replaced(tmp_path: Path) -> None:
    request = request_for(tmp_path)
    request.output.mkdir()
    (request.output / "notes.txt").write_text("mine", encoding="utf-8")
    with pytest.raises(InputError, match="holds other files"):
        pipeline.prune(request)
    (request.output / "notes.txt").unlink()
    pipeline.prune(request)
    other = dataclasses.replace(request, budget=Budget("mac", 0.7))
    with pytest.raises(InputError, match=r"holds another result \(budget 'mac=0.5', here 'mac=0.7'\)"):
        pipeline.prune(other)
    assert pipeline.prune(dataclasses.replace(other, force=True))["macs_kept"] > 0.5


def test_nothing_is_written_where_something_is_wrong(tmp_path: Path) -> None:
    request = request_for(tmp_path)
    table = Path(request.data or "") / "train.tsv"
    content = table.read_text(encoding="utf-8")
    table.write_text("sentence\tlabel\nwell\t7\n", encoding="utf-8")
    with pytest.raises(InputError, match=r"train\.tsv: line 2: unknown label '7'"):
        pipeline.prune(request)
    table.write_text(content, encoding="utf-8")
    weights = load_file(Path(request.model) / "model.safetensors")
    weights["classifier.weight"][0, 0] = float("nan")
    save_file(weights, Path(request.model) / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(InputError, match=r"classifier\.weight"):
        pipeline.prune(request)
    assert not request.output.exists()
    assert not (tmp_path / "output").exists()


def test_all_samples_are_used_where_fewer_are_there(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    result = pipeline.prune(request_for(tmp_path, samples=1000))
    assert result["samples"] == 39
    assert "1000 samples were asked for and the training data hold 39" in caplog.text


def test_a_pruned_checkpoint_can_be_pruned_further(tmp_path: Path) -> None:
    request = request_for(tmp_path, budget=Budget("mac", 0.7))
    pipeline.prune(request)
    again = dataclasses.replace(
        request, model=str(request.output), output=tmp_path / "smaller", budget=Budget("mac", 0.5)
    )
    result = pipeline.prune(again)
    assert 0.4 < result["macs_kept"] <= 0.5
    assert sum(result["neurons_kept"]) <= sum(Plan.load(request.output).neuron_counts)


@pytest.mark.parametrize(
    ("command", "label"),
    [
        (["scripts/prune_fisher.py", "--model_name", "bert-tiny", "--task_name", "SST-2", "--constraint", "0.5",
          "--ckpt_dir", "MODEL", "--data_dir", "DATA"], "bert-tiny"),
        (["-m", "splora.scripts.cli", "prune", "fisher", "--model", "MODEL", "--task", "sst2", "--data", "DATA",
          "--budget", "mac=0.5"], "model"),
    ],
)  # fmt: skip
@pytest.mark.slow
def test_both_commands_write_the_result_and_the_line(
    tmp_path: Path, root: Path, command: list[str], label: str
) -> None:
    request = request_for(tmp_path)
    words = [{"MODEL": request.model, "DATA": str(request.data)}.get(word, word) for word in command]
    if words[0].startswith("scripts/"):
        words[0] = str(root / words[0])
    shared = ["--num_samples", "16", "--max_seq_length", "60", "--latency_batch_size", "1", "--latency_seq_len", "8"]
    done = forks.run([sys.executable, *words, *shared, "--threads", "1"], cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "rescale" in done.stderr
    assert "MiB at most" in done.stdout
    lines = (tmp_path / "output" / label / "sst2.txt").read_text(encoding="utf-8").splitlines()
    assert len(lines) == 1
    folder = tmp_path / "output" / label / "sst2" / "fisher-mac-0.5-seed-0"
    assert json.loads((folder / "result.json").read_text(encoding="utf-8"))["seed"] == 0


def test_all_that_is_wrong_with_the_options_is_told_at_once(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    from splora.scripts.cli import main

    (tmp_path / "file").touch()
    with pytest.raises(SystemExit) as left:
        main(["prune", "fisher", "--model", "x", "--task", "sts2", "--budget", "mac=2", "--gradients", "some",
              "--teacher", "dens", "--device", "kuda", "--precision", "bf61", "--num_samples", "0",
              "--output", str(tmp_path / "file"), "--column", "label", "--mha_lut", "x"])  # fmt: skip
    assert left.value.code == 2
    told = capsys.readouterr().err
    for words in ("'stsb'", "larger than 0", "'some'", "'dense'", "'kuda'", "'bf16'", "--num_samples", "is a file",
                  "NAME=COLUMN", "--ffn_lut"):  # fmt: skip
        assert words in told
    assert "Traceback" not in told


@pytest.mark.real
def test_real_sst2_at_half_the_macs_loses_little(tmp_path: Path, shared: Path, few_sentences: Path) -> None:
    result = pipeline.prune(
        PruneRequest(
            method="fisher",
            model=str(shared / "models/minilm-sst2"),
            task="sst2",
            data=str(few_sentences),
            budget=Budget("mac", 0.5),
            output=tmp_path / "out",
            samples=128,
            latency_batch_size=1,
            latency_tokens=8,
        )
    )
    assert result["dense"] == 88.0  # 176 of these 200
    assert result["pruned"] > 84
    assert result["kl_divergence"]["rescale"] < result["kl_divergence"]["search"]


@pytest.mark.parametrize(
    ("method", "options"),
    [("fisher", {}), ("fisher", {"teacher": "sqrt"}), ("stat", {}), ("stat", {"exact_paper": True})],
    ids=["fisher", "fisher sqrt", "stat", "stat exact"],
)
def test_a_budget_of_everything_keeps_everything(method: str, options: dict[str, Any], tmp_path: Path) -> None:
    request = request_for(tmp_path, method=method, budget=Budget.parse("mac=1"), options=options)
    result = pipeline.prune(request)
    assert result["macs_kept"] == 1
    assert result["heads_kept"] == [4, 4]
    assert result["pruned"] == result["dense"]
