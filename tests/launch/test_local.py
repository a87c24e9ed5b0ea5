"""Real sweeps on this machine: killed, interrupted and given again, they end as if nothing had happened."""

from __future__ import annotations

import json
import os
import signal
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from splora.locks import RUN_LOCK, is_held
from splora.training.run import run
from splora.training.specification import RunSpecification
from tests import forks

#: Rows that build on no other.
ALONE = ("--set", "model_name_or_path=embedded", "--set", "teacher_name_or_path=")
SWEEP = ("--exp-id", "2", "4", "--jobs", "2", "--set", "teacher_name_or_path=", "--set")
ROWS = (2, 4)


def wait_for(condition: Callable[[], Any], seconds: float = 120.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it did not come to that"
        time.sleep(0.02)


def has_checkpoint(sweep: SimpleNamespace, *, newer_than: float = 0.0) -> bool:
    files = [sweep.folder / str(row) / "checkpoints" / "last.ckpt" for row in ROWS]
    return all(file.exists() and file.stat().st_mtime > newer_than for file in files)


def assert_no_worker_lives(sweep: SimpleNamespace) -> None:
    wait_for(lambda: not any(is_held(sweep.folder / str(row) / RUN_LOCK) for row in ROWS), seconds=5.0)


def measured(folder: Path) -> dict[str, float]:
    return dict(json.loads((folder / "result.json").read_text(encoding="utf-8"))["metrics"])


@pytest.fixture
def small_model(tmp_path: Path) -> Path:
    """One layer of the embedded model, a quarter as wide."""
    from transformers import BertModel

    from splora.tasks.embedded.model import embedded_config
    from splora.tasks.embedded.tokenizer import build_tokenizer

    torch.manual_seed(0)
    sizes = {"hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 64}
    BertModel(embedded_config(**sizes)).save_pretrained(tmp_path / "small")
    build_tokenizer().save_pretrained(tmp_path / "small")
    return tmp_path / "small"


@pytest.mark.slow
def test_killed_stopped_and_given_again_a_sweep_ends_like_a_quiet_one(
    sweep: SimpleNamespace, small_model: Path, tmp_path: Path
) -> None:
    steps, sweep_of = 150, (*SWEEP, f"model_name_or_path={small_model}")
    # The driver is killed: its workers end with it, and nothing is in the way of the next one.
    process = sweep.start(*sweep_of, steps=steps)
    wait_for(lambda: has_checkpoint(sweep) or process.poll() is not None)
    refused = sweep.finish(*sweep_of, steps=steps)
    assert refused.status == 2
    assert f"another command runs rows here (process {process.pid} on host" in refused.lines[0]
    process.kill()
    process.communicate()
    assert_no_worker_lives(sweep)
    told = sweep.finish("--status").lines
    assert [line.split()[1] for line in told[1:3]] == ["interrupted", "interrupted"]
    # A worker is killed, and then somebody presses Ctrl-C.
    killed_at = time.time()
    process = sweep.start(*sweep_of, steps=steps)
    wait_for(lambda: has_checkpoint(sweep, newer_than=killed_at) or process.poll() is not None)
    os.kill(sweep.state(2)["pid"], signal.SIGKILL)
    wait_for(lambda: sweep.state(2)["state"] == "interrupted")
    assert "SIGKILL" in sweep.state(2)["reason"]
    process.send_signal(signal.SIGINT)
    output, _ = process.communicate(timeout=60)
    assert process.returncode == 130
    assert output.splitlines()[-1] == ("2 rows: 0 finished, 0 failed, 2 interrupted; the same command goes on."), (
        "the runs were over before they were stopped"
    )
    assert sweep.state(4)["reason"] == "stopped by the user"
    step = sweep.state(4)["step"]
    for place in ("", "checkpoints"):
        (sweep.folder / "2" / place / ".result.json.01234567.tmp").write_text("half a", encoding="utf-8")
    done = sweep.finish(*sweep_of, steps=steps)
    assert done.status == 0, done.lines
    assert done.lines[-1] == "2 rows: 2 finished, 0 failed."
    for row in ROWS:
        folder = sweep.folder / str(row)
        spec = RunSpecification(**json.loads((folder / "spec.json").read_text(encoding="utf-8")))
        run(spec, tmp_path / "quiet" / str(row))
        assert measured(folder) == pytest.approx(measured(tmp_path / "quiet" / str(row)), abs=1e-6)
        assert sweep.state(row)["state"] == "finished"
        assert sweep.state(row)["step"] == steps > step > 0
        assert not list(folder.rglob(".*.tmp"))
    assert "going on from the last checkpoint" in (sweep.folder / "2" / "log.txt").read_text(encoding="utf-8")
    again = sweep.finish(*sweep_of, steps=steps)
    assert again.lines == ["2 rows finished before.", "2 rows: 2 finished, 0 failed."]


@pytest.mark.slow
def test_a_row_that_fails_says_why_and_stops_no_other(sweep: SimpleNamespace, tmp_path: Path) -> None:
    # Row 2 starts from a folder that is no model; row 1 is well.
    broken = sweep.place / "runs" / "Demo" / "1" / "model"
    first = sweep.finish("--exp-id", "1", "--jobs", "1", steps=2)
    assert first.status == 0, first.lines
    (broken / "config.json").write_text("{}", encoding="utf-8")
    done = sweep.finish("--exp-id", "1", "2", "--jobs", "auto", steps=2)
    assert done.status == 1
    assert done.lines[-1].startswith("2 rows: 1 finished, 1 failed; --retry-failed")
    state = sweep.state(2)
    assert (state["state"], state["log"]) == ("failed", "log.txt")
    assert state["reason"]
    assert state["reason"] in " ".join(done.lines)
    assert state["command"].startswith("python scripts/run_from_sheet.py --exp-id 2 --set")


@pytest.mark.slow
def test_two_processes_of_torchrun_run_one_row(sweep: SimpleNamespace, root: Path) -> None:
    words = sweep.command("--exp-id", "2", steps=6)
    settings = words[words.index("--exp-id") :]
    command = [words[0], "-m", "torch.distributed.run", "--nproc-per-node=2", "--standalone", words[1], *settings]
    both = ["--strategy", "ddp", "--devices", "2", "--accelerator", "cpu", *ALONE]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = forks.run([*command, *both], cwd=sweep.place, env=environment)
    assert done.returncode == 0, done.stdout + done.stderr
    result = json.loads((sweep.folder / "2" / "result.json").read_text(encoding="utf-8"))
    assert result["settings"]["trainer"]["devices"] == 2
    assert sweep.state(2)["state"] == "finished"
    assert done.stdout.count("EXP ID 2: Movement") == 1
