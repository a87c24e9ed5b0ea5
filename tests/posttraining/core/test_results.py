"""What prunings and quantizations leave: stored types, bytes before and after, one writer, nothing of killed ones."""

from __future__ import annotations

import dataclasses
import json
import os
import signal
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from splora import load_pruned
from splora.errors import InputError
from splora.posttraining import pipeline
from splora.posttraining.core import outcome
from splora.posttraining.core.states import States
from splora.scratch import FOLDER
from splora.scripts import count, prune, prune_bert, prune_fisher, prune_opt, quantize, quantize_opt
from tests.posttraining.test_pipeline import request_for


def _stored(request: Any, dtype: torch.dtype) -> None:
    """Store the request's checkpoint in a type."""
    path = Path(request.model) / "model.safetensors"
    save_file({name: tensor.to(dtype) for name, tensor in load_file(path).items()}, path, metadata={"format": "pt"})


@pytest.mark.parametrize(
    ("stored", "asked", "result_type"),
    [
        (torch.float16, "auto", torch.float16),
        (torch.bfloat16, "auto", torch.bfloat16),
        (torch.float32, "auto", torch.float32),
        (torch.float64, "auto", torch.float32),
        (torch.float16, "fp32", torch.float32),
        (torch.float32, "bf16", torch.bfloat16),
    ],
)
def test_a_result_is_stored_in_the_type_that_its_checkpoint_came_in(
    tmp_path: Path, stored: torch.dtype, asked: str, result_type: torch.dtype
) -> None:
    request = request_for(tmp_path, dtype=asked)
    _stored(request, stored)
    result = pipeline.prune(request)
    weights = request.output / "model.safetensors"
    assert {tensor.dtype for tensor in load_file(weights).values()} == {result_type}
    assert result["bytes"] == {
        "dense": (Path(request.model) / "model.safetensors").stat().st_size,
        "pruned": weights.stat().st_size,
    }
    if stored.itemsize <= 2 and asked == "auto":
        assert result["bytes"]["pruned"] < result["bytes"]["dense"]
    assert " MiB, latency " in outcome.summary_line(result, request.output)
    again = pipeline.prune(dataclasses.replace(request, model=str(request.output), output=tmp_path / "again"))
    assert again["dense"] == result["pruned"], "what was judged is what was stored"
    assert {tensor.dtype for tensor in load_file(tmp_path / "again" / "model.safetensors").values()} == {result_type}


def test_weights_that_outgrow_their_type_are_stored_in_fp32_and_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    request = request_for(tmp_path)
    _stored(request, torch.float16)
    stages = pipeline.run_method

    def grown(*arguments: Any) -> Any:
        for stage in stages(*arguments):
            if stage.last:
                with torch.no_grad():
                    next(stage.model.parameters())[0, 0] = 1e6
            yield stage

    monkeypatch.setattr(pipeline, "run_method", grown)
    result = pipeline.prune(request)
    assert result["dtype"] == "fp32"
    assert result["notes"]["rescale"]["stored"] == "weights grew too large for fp16: all are stored in fp32."
    assert "too large for fp16" in caplog.text
    assert float(next(load_pruned(request.output).parameters()).detach()[0, 0]) == 1e6


def test_a_type_that_cannot_hold_the_checkpoint_is_refused_before_anything_costly(tmp_path: Path) -> None:
    request = request_for(tmp_path, dtype="fp16")
    path = Path(request.model) / "model.safetensors"
    tensors = load_file(path)
    tensors["classifier.bias"][0] = 1e6
    save_file(tensors, path, metadata={"format": "pt"})
    with pytest.raises(InputError, match="holds values that are too large for fp16; leave out --dtype"):
        pipeline.prune(request)
    with pytest.raises(
        InputError, match=r"--dtype is 'fp61'; allowed are auto, fp32, fp16, bf16; did you mean 'fp16'\?"
    ):
        dataclasses.replace(request, dtype="fp61").check()


def test_of_two_prunings_into_one_folder_one_wins_and_the_other_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    request = request_for(tmp_path)
    told: list[str] = []
    prepare = pipeline.prepare

    def while_another_starts(*arguments: Any) -> Any:
        with pytest.raises(InputError) as refused:
            pipeline.prune(request)
        told.extend(refused.value.problems)
        return prepare(*arguments)

    monkeypatch.setattr(pipeline, "prepare", while_another_starts)
    pipeline.prune(request)
    (sentence,) = told
    assert sentence.startswith(f"--output: another command is just making {request.output} (process {os.getpid()} on")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["data", "model", "out", "output"]


def test_what_killed_prunings_left_goes_with_the_next_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    request = request_for(tmp_path)
    temporary = tmp_path / "temporary"
    monkeypatch.setattr("tempfile.tempdir", str(temporary))
    left = [tmp_path / ".out.0123abcd.tmp", tmp_path / ".else.0123abcd.tmp", temporary / f".{FOLDER}.0123abcd.tmp"]
    for folder in left:
        folder.mkdir(parents=True)
        (folder / "model.safetensors").write_text("half")
    mine = tmp_path / ".notes.0123abcd.tmp"
    mine.write_text("a file of somebody else")
    (tmp_path / ".out.lock").write_text("99999999 nowhere\n")
    pipeline.prune(dataclasses.replace(request, options={"storage": "disk"}))
    assert not [folder for folder in left if folder.exists()]
    assert mine.exists()
    assert not (tmp_path / ".out.lock").exists()
    assert not list(temporary.iterdir())


def test_hidden_states_of_living_processes_stay(tiny: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    ids = torch.randint(5, 60, (2, 6), generator=torch.Generator().manual_seed(1))
    batches = [{"input_ids": ids, "attention_mask": torch.ones_like(ids)}]
    one, other = (States(tiny("BertForQuestionAnswering"), batches, "disk") for _ in range(2))
    assert len(list(tmp_path.iterdir())) == 2
    assert torch.equal(one[0], other[0])
    del one, other
    assert not list(tmp_path.iterdir())


@pytest.mark.usefixtures("heard_signals")
@pytest.mark.parametrize("kind", [signal.SIGINT, signal.SIGHUP])
def test_a_signal_ends_a_pruning_in_one_line_and_leaves_nothing(
    kind: signal.Signals, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    request = request_for(tmp_path)
    before = sorted(tmp_path.rglob("*"))
    monkeypatch.setattr(outcome, "write_json", lambda *_: os.kill(os.getpid(), kind))  # as the folder is written
    given = ["fisher", "--model", request.model, "--task", "sst2", "--data", str(request.data), "--budget", "mac=0.5"]
    given += ["--output", str(request.output), "--num_samples", "16", "--latency_batch_size=1", "--latency_seq_len=8"]
    with pytest.raises(SystemExit) as left:
        prune.main(given)
    assert left.value.code == 128 + kind
    assert capsys.readouterr().err.splitlines()[-1].startswith("stopped (")
    assert sorted(tmp_path.rglob("*")) == before


@pytest.mark.parametrize(
    ("command", "first"),
    [
        (prune.main, ["fisher", "--model", "m", "--task", "sst2", "--budget", "mac=0.5"]),
        (prune.main, ["stat", "--model", "m", "--task", "sst2", "--budget", "mac=0.5"]),
        (prune_fisher.main, ["--model_name", "m", "--task_name", "sst2", "--constraint", "0.5"]),
        (prune_bert.main, ["--model_name", "m", "--task_name", "sst2", "--mu", "0.5"]),
        (prune_opt.main, ["--model_name", "m", "--mu", "0.5"]),
        (quantize_opt.main, ["--model_name", "m", "--mu", "0.5"]),
        (quantize.main, ["--model", "m", "--task", "sst2"]),
    ],
    ids=["prune fisher", "prune stat", "prune_fisher", "prune_bert", "prune_opt", "quantize_opt", "quantize"],
)
def test_every_option_that_shared_rooms_name_is_one_of_the_command(
    command: Any, first: list[str], root: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit):
        command([*first, "--help"] if command is not prune.main else [first[0], "--help"])
    own = _options(capsys.readouterr().out)
    quantizes = "quantize" in command.__module__
    named: dict[str, str] = {}
    for room in ("posttraining", "export", "tasks"):
        for path in (root / "splora" / room).glob("*.py"):
            if (path.stem.startswith("quantiz") and not quantizes) or path.stem == "card":  # which names other commands
                continue
            for name in _options_in_texts(path):
                named[name] = path.name
    for word, said in pipeline.WORDS.items():
        for name in _options(word):
            named.pop(name, None)
        named |= dict.fromkeys(_options(said), "pipeline.py")
    of_others = {"budget", "mha-lut", "ffn-lut", "seq-len", "latency-batch-size", "latency-seq-len"}  # see below
    if command is not prune.main:
        named.pop("budget")  # `Budget.parse`, which they do not call
    if command is quantize.main:
        named = {name: path for name, path in named.items() if name not in of_others}  # of budgets and latencies
    assert not {name: path for name, path in named.items() if name not in own}


def _options(text: str) -> set[str]:
    import re

    return {name.replace("_", "-") for name in re.findall(r"--([a-z][a-z_-]*[a-z])", text)}


def _options_in_texts(path: Path) -> set[str]:
    """Options in the strings of a file that are no docstrings."""
    import ast

    tree = ast.parse(path.read_text(encoding="utf-8"))
    documents = {
        id(node.body[0].value)
        for node in ast.walk(tree)
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef)
        and node.body
        and isinstance(node.body[0], ast.Expr)
    }
    return {
        name
        for node in ast.walk(tree)
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in documents
        for name in _options(node.value)
    }


def test_pruned_and_plain_folders_are_counted(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    request = request_for(tmp_path)
    result = pipeline.prune(request)
    capsys.readouterr()
    count.main([str(request.output), request.model])
    pruned, plain = (line.split() for line in capsys.readouterr().out.splitlines()[1:])
    encoder = 2 * (4 * 24 * 24 + 2 * 24 * 20)
    kept = sum(4 * 24 * 6 * heads for heads in result["heads_kept"]) + sum(2 * 24 * n for n in result["neurons_kept"])
    assert (int(pruned[1].replace(",", "")), int(plain[1].replace(",", ""))) == (encoder, encoder)
    assert int(pruned[2].replace(",", "")) == kept
    assert pruned[3:] == [f"{100 * kept / encoder:.2f}", "–", "–"]
    assert json.loads((request.output / "config.json").read_text())["intermediate_size"] == 20
