"""The command that measures: options, files, and what it says about mistakes."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import transformers

from splora.posttraining.latency import measure as latency_measure
from splora.posttraining.latency.table import budget_milliseconds, read_table
from splora.scripts import generate_lut
from splora.tasks.model_inputs import positions

TASK = ["--task_name", "sst2"]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with a configuration and nothing else."""
    config = transformers.BertConfig(
        hidden_size=16, num_hidden_layers=2, num_attention_heads=2, intermediate_size=48, vocab_size=50
    )
    config.max_position_embeddings = 24
    config.save_pretrained(tmp_path / "model")
    return tmp_path / "model"


@pytest.fixture(autouse=True)
def ticking(monkeypatch: pytest.MonkeyPatch) -> None:
    """A clock whose time is the number of operations of a call; no test depends on the machine."""

    def clock(_: torch.device) -> latency_measure.Stopwatch:
        from torch.utils.flop_counter import FlopCounterMode

        def count(call: latency_measure.Call) -> float:
            with FlopCounterMode(display=False) as counter:
                call()
            return 1.0 + counter.get_total_flops()

        return count

    monkeypatch.setattr(latency_measure, "clock", clock)


def test_the_published_flags_write_both_tables(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    luts = tmp_path / "luts"
    published = ["--model_name", str(folder), "--task_name", "squad", "--batch_size", "2", "--output_dir", str(luts)]
    generate_lut.main([*published, "--repeats", "1", "--neuron_step", "16"])
    mha, ffn = read_table(luts / "mha.json", "mha"), read_table(luts / "ffn.json", "ffn")
    assert (mha.sizes, ffn.sizes) == ((0, 1, 2), (0, 16, 32, 48))
    assert (mha.measured_with.batch_size, mha.measured_with.sequence_length) == (2, 24)
    assert budget_milliseconds(0.5, mha, ffn) > 0
    said = capsys.readouterr()
    assert f"{luts / 'mha.json'} and {luts / 'ffn.json'}: written." in said.out
    assert f"feed-forward {48:>7} {ffn.milliseconds[-1]:>10.3f}" in said.out
    assert "round 3 of 3" in said.err


def test_numbers_of_half_the_size_and_shorter_sequences(folder: Path, tmp_path: Path) -> None:
    options = ["--seq_len", "8", "--precision", "bf16", "--repeats", "1", "--batch_size", "2"]
    generate_lut.main(["--ckpt_dir", str(folder), *TASK, *options, "--output_dir", str(tmp_path)])
    held = json.loads((tmp_path / "ffn.json").read_text(encoding="utf-8"))["measured_with"]
    assert (held["dtype"], held["sequence_length"]) == ("bfloat16", 8)


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["--task_name", "sst2"], "--model_name: is missing"),
        (["--model_name", "x", "--task_name", "squat"], "'squat'; allowed are squad, .*; did you mean 'squad'"),
        (["--model_name", "x", *TASK, "--precision", "fp16"], "--precision: is 'fp16'; allowed are fp32, bf16"),
        (["--model_name", "x", *TASK, "--batch_size", "0"], "--batch_size: is 0; it must be 1 or larger"),
        (["--model_name", "/no/such", *TASK], "/no/such: there is no such folder"),
    ],
)
def test_mistakes_end_with_2_and_write_nothing(
    arguments: list[str], told: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    import re

    with pytest.raises(SystemExit) as raised:
        generate_lut.main([*arguments, "--output_dir", str(tmp_path / "luts")])
    assert raised.value.code == 2
    assert re.search(told, capsys.readouterr().err)
    assert not (tmp_path / "luts").exists()


def test_more_tokens_than_positions_are_refused(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        generate_lut.main(["--ckpt_dir", str(folder), *TASK, "--seq_len", "25"])
    assert f"--seq_len: is 25; {folder} has 24 positions." in capsys.readouterr().err


def test_a_pruned_model_is_refused(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    config["per_layer_config"] = {"1": {"num_attention_heads": 1, "intermediate_size": 7}}
    (folder / "config.json").write_text(json.dumps(config), encoding="utf-8")
    with pytest.raises(SystemExit) as raised:
        generate_lut.main(["--ckpt_dir", str(folder), *TASK])
    assert raised.value.code == 2
    assert f"{folder}: its layers have different numbers of heads and neurons" in capsys.readouterr().err


def test_roberta_loses_positions_to_padding() -> None:
    assert positions(transformers.RobertaConfig(max_position_embeddings=514)) == 512
    assert positions(transformers.BertConfig()) == 512


def test_help_imports_neither_torch_nor_transformers(root: Path) -> None:
    program = (
        "import sys; from splora.scripts import generate_lut\n"
        "try: generate_lut.main(['--help'])\n"
        "except SystemExit: pass\n"
        "assert not {'torch', 'transformers'} & sys.modules.keys()"
    )
    done = subprocess.run([sys.executable, "-c", program], cwd=root, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "--model_name" in done.stdout
