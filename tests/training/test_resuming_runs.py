"""Killed with kill -9 and started again with the same command, a run ends as if it had never been killed."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning import Callback, Trainer
from safetensors.torch import load_file

from splora.training.run import run
from splora.training.specification import RunSpecification
from tests.forks import Program

Make = Callable[..., RunSpecification]
PROGRAM = """
import json, sys
from pathlib import Path
from safetensors.torch import save_file
from splora.training.module import PruningModule
from splora.training.run import run
from splora.training.specification import RunSpecification

def save_masks(self):
    masks = {str(number): mask.binary() for number, mask in enumerate(self.block_masks)}
    save_file(masks, Path(sys.argv[2]).with_name(f"masks_of_rank_{self.global_rank}.safetensors"))

PruningModule.on_fit_end = save_masks
run(RunSpecification(**json.loads(sys.argv[1])), Path(sys.argv[2]), trainer=json.loads(sys.argv[3]))
"""


def start(spec: RunSpecification, folder: Path, root: Path, **trainer: Any) -> subprocess.Popen[bytes]:
    """A run in a process of its own; a file, because ddp starts its other processes from it."""
    program = folder.with_name("run_one.py")
    program.write_text(PROGRAM, encoding="utf-8")
    arguments = [json.dumps(asdict(spec)), str(folder), json.dumps(trainer)]
    return Program(
        [sys.executable, str(program), *arguments], cwd=root, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )


def result(folder: Path) -> dict[str, Any]:
    """What the run measured."""
    return dict(json.loads((folder / "result.json").read_text(encoding="utf-8")))


def assert_same_end(first: Path, second: Path, tolerance: float = 1e-6) -> None:
    """Both runs end with the same scores (to 1e-6), the same masks and the same weights (to `tolerance`)."""
    for name, value in result(first)["metrics"].items():
        assert result(second)["metrics"][name] == pytest.approx(value, abs=1e-6), name
    one, other = (load_file(folder / "adapter" / "adapter_model.safetensors") for folder in (first, second))
    assert one.keys() == other.keys()
    for name, tensor in one.items():
        # Sums over processes round differently, and Adam makes steps of full size of a gradient that is only rounding:
        # that of biases of queries and keys, on which almost nothing depends. They are compared where nothing rounds.
        if tolerance <= 1e-6 or tensor.ndim > 1:
            torch.testing.assert_close(other[name], tensor, rtol=0, atol=0 if "mask" in name else tolerance)


@pytest.mark.slow
def test_kill_9_and_start_again(tiny_spec: Make, tmp_path: Path, root: Path) -> None:
    # 12 batches of an epoch: the run is killed in the middle of one. Dropout shows whether randomness is repeated.
    spec = tiny_spec(
        pruning_method="l0",
        adapter="splopa",
        max_train_examples=48,
        max_steps=30,
        dropout=0.1,
        checkpoint_every_n_steps=7,
    )
    quiet, killed = tmp_path / "quiet", tmp_path / "killed"
    run(spec, quiet)
    for _ in range(2):
        process = start(spec, killed, root)
        last = killed / "checkpoints" / "last.ckpt"
        before = last.stat().st_mtime_ns if last.exists() else 0
        while process.poll() is None and not (last.exists() and last.stat().st_mtime_ns > before):
            time.sleep(0.005)
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
        assert not (killed / "result.json").exists(), "the run was over before it was killed"
    assert start(spec, killed, root).wait() == 0
    assert_same_end(quiet, killed)
    steps = [line.split(",")[0] for line in (killed / "metrics.csv").read_text(encoding="utf-8").splitlines()[1:]]
    wanted = [line.split(",")[0] for line in (quiet / "metrics.csv").read_text(encoding="utf-8").splitlines()[1:]]
    assert steps == wanted


class Stopped(Exception):
    """The end that a test makes."""


class StopAt(Callback):
    """Ends a run after a step, without a word."""

    def __init__(self, step: int) -> None:
        self._step = step

    def on_train_batch_start(self, trainer: Trainer, *_: Any) -> None:
        """End it."""
        if trainer.global_step == self._step:
            raise Stopped


@pytest.mark.parametrize(
    ("method", "length", "stops"),
    [
        ("topK", {"max_steps": 12}, (3,)),
        ("topK_global", {"max_steps": None, "num_train_epochs": 2.0}, (6,)),
        ("magnitude", {"max_steps": 12}, (7, 8, 11)),
        ("topK", {"max_steps": 8, "pruning_units": "hybrid_filled", "warmup_steps": 2}, (4, 7)),
    ],
)
def test_runs_go_on_alike_whether_counted_in_steps_or_epochs(
    tiny_spec: Make, tmp_path: Path, method: str, length: dict[str, Any], stops: tuple[int, ...]
) -> None:
    # Six batches an epoch, a checkpoint after every one: within an epoch, at its end and in the next.
    spec = tiny_spec(pruning_method=method, adapter="splopa", checkpoint_every_n_steps=1, **length)
    run(spec, tmp_path / "quiet")
    for step in stops:
        with pytest.raises(Stopped):
            run(spec, tmp_path / "stopped", callbacks=[StopAt(step)])
    run(spec, tmp_path / "stopped")
    assert_same_end(tmp_path / "quiet", tmp_path / "stopped")
    told = [(tmp_path / name / "metrics.csv").read_text(encoding="utf-8") for name in ("quiet", "stopped")]
    steps = [[line.split(",")[0] for line in text.splitlines()] for text in told]
    assert steps[1] == steps[0]


def test_a_healing_row_goes_on_alike(tiny_spec: Make, tmp_path: Path) -> None:
    """Pruned once, judged by the same examples at the same steps, and with the same state kept."""
    run(tiny_spec(max_steps=2), tmp_path / "dense")
    dense = str(tmp_path / "dense" / "model")
    spec = tiny_spec(
        model_name_or_path=dense,
        prune_first="stat",
        prune_first_budget="0.6",
        teacher_name_or_path=dense,
        alpha_hidden=1.0,
        adapter="splopa",
        held_out=4,
        best_checkpoint=True,
        evaluate_every_n_steps=2,
        checkpoint_every_n_steps=1,
        max_steps=6,
    )
    run(spec, tmp_path / "quiet")
    for step in (1, 4):
        with pytest.raises(Stopped):
            run(spec, tmp_path / "stopped", callbacks=[StopAt(step)])
    run(spec, tmp_path / "stopped")
    assert_same_end(tmp_path / "quiet", tmp_path / "stopped")
    one, other = (result(tmp_path / name)["chosen"] for name in ("quiet", "stopped"))
    assert one["scores"].keys() == other["scores"].keys() == {"0", "2", "4", "6"}
    assert one["step"] == other["step"]
    assert list(one["scores"].values()) == pytest.approx(list(other["scores"].values()), abs=1e-6)


def test_a_run_killed_after_its_last_step_is_still_scored(tiny_spec: Make, tmp_path: Path) -> None:
    spec = tiny_spec(pruning_method="topK", adapter="splopa", checkpoint_every_n_steps=6)
    run(spec, tmp_path)
    wanted = result(tmp_path)["metrics"]
    (tmp_path / "result.json").unlink()
    run(spec, tmp_path)
    assert result(tmp_path)["metrics"] == pytest.approx(wanted, abs=1e-6)


#: Gates that are drawn, over blocks and neurons; heads and neurons of a model that one process pruned, with a teacher,
#: known scores and a judge.
OF_TWO: dict[str, dict[str, Any]] = {
    "l0": {"pruning_method": "l0", "pruning_units": "hybrid", "adapter": "splopa", "mask_scale": 0.2},
    "macs": {
        **{"pruning_method": "topK_global", "pruning_units": "heads_and_neurons", "threshold_of": "macs"},
        **{"mask_init": "stat", "mask_scale": 0.5, "final_threshold": 0.6, "prune_first": "stat", "held_out": 4},
        **{
            "prune_first_budget": "0.8",
            "alpha_hidden": 1.0,
            "adapter": "splopa",
            "best_checkpoint": True,
            "evaluate_every_n_steps": 4,
        },
    },
}


@pytest.mark.slow
@pytest.mark.parametrize("kind", OF_TWO)
def test_two_processes_give_what_one_gives(tiny_spec: Make, tmp_path: Path, root: Path, kind: str) -> None:
    settings = {**OF_TWO[kind], "max_steps": 8}
    if "prune_first" in settings:
        run(tiny_spec(max_steps=2), tmp_path / "dense")
        settings |= dict.fromkeys(("model_name_or_path", "teacher_name_or_path"), str(tmp_path / "dense" / "model"))
    run(tiny_spec(**settings, per_gpu_train_batch_size=4), tmp_path / "one")
    spec = tiny_spec(**settings, per_gpu_train_batch_size=2)
    assert start(spec, tmp_path / "two", root, devices=2, strategy="ddp", accelerator="cpu").wait() == 0
    one, two = result(tmp_path / "one"), result(tmp_path / "two")
    assert two["settings"]["trainer"]["devices"] == 2
    assert two["remaining_weights_percent"] == pytest.approx(one["remaining_weights_percent"], abs=1e-6)
    assert_same_end(tmp_path / "one", tmp_path / "two", tolerance=1e-4)
    first, second = (load_file(tmp_path / f"masks_of_rank_{rank}.safetensors") for rank in range(2))
    assert len(first) == 12
    assert not all(mask.all() for mask in first.values())
    assert all(torch.equal(mask, second[number]) for number, mask in first.items())
