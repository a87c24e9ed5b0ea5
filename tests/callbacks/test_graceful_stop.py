"""Signals end a run at the end of an optimizer step, with a checkpoint."""

from __future__ import annotations

import os
import signal
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from splora.callbacks import GracefulStop
from splora.errors import Interrupted


@pytest.fixture
def trainer(tmp_path: Path) -> Any:
    """A trainer of one process, at its fifth step, that remembers what it saved."""
    saved: list[tuple[int, str]] = []
    made = SimpleNamespace(
        global_step=5, world_size=1, default_root_dir=str(tmp_path), is_global_zero=True, saved=saved
    )
    made.save_checkpoint = lambda path: saved.append((made.global_step, Path(path).name))
    return made


def batch(stop: GracefulStop, trainer: Any, is_step: bool) -> None:
    stop.on_train_batch_start(trainer, None, None, 0)  # type: ignore[arg-type]
    trainer.global_step += is_step
    stop.on_train_batch_end(trainer, None, None, None, 0)  # type: ignore[arg-type]


@pytest.mark.parametrize("kind", [signal.SIGINT, signal.SIGTERM])
def test_a_run_ends_with_its_step(trainer: Any, kind: signal.Signals, capsys: pytest.CaptureFixture[str]) -> None:
    stop = GracefulStop()
    before = signal.getsignal(kind)
    with stop.listening():
        with pytest.raises(Interrupted):
            os.kill(os.getpid(), kind)  # nothing is trained yet
        signal.signal(signal.SIGTERM, signal.SIG_DFL)  # as Lightning takes it for itself
        stop.on_train_start(trainer, None)  # type: ignore[arg-type]
        batch(stop, trainer, is_step=True)
        os.kill(os.getpid(), kind)
        batch(stop, trainer, is_step=False)  # gradients are still being accumulated
        assert trainer.saved == []
        batch(stop, trainer, is_step=True)  # and is logged before the run stops
        with pytest.raises(Interrupted, match="by the user"):
            batch(stop, trainer, is_step=True)
        with pytest.raises(Interrupted, match="by the user"):
            stop.on_validation_start(trainer, None)  # type: ignore[arg-type]
        with pytest.raises(Interrupted):
            os.kill(os.getpid(), kind)  # the second time at once
    assert trainer.saved == [(7, "last.ckpt")]
    assert "once more stops now" in capsys.readouterr().err
    assert signal.getsignal(kind) == before


@pytest.mark.parametrize(("array", "job"), [({}, "7"), ({"ARRAY_JOB_ID": "6", "ARRAY_TASK_ID": "3"}, "6_3")])
def test_slurm_queues_the_job_again(
    trainer: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, array: dict[str, str], job: str
) -> None:
    program = tmp_path / "scontrol"
    program.write_text(f'#!/bin/sh\necho "$@" >> {tmp_path}/asked\n', encoding="utf-8")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    for name, value in ({"JOB_ID": "7", "NTASKS": "1", "JOB_NAME": "many"} | array).items():
        monkeypatch.setenv(f"SLURM_{name}", value)
    before = signal.getsignal(signal.SIGUSR1)
    stop = GracefulStop()
    try:
        with stop.listening():
            stop.on_train_start(trainer, None)  # type: ignore[arg-type]
            os.kill(os.getpid(), signal.SIGUSR1)
            batch(stop, trainer, is_step=True)
            with pytest.raises(Interrupted, match="queued again"):
                batch(stop, trainer, is_step=True)
    finally:
        signal.signal(signal.SIGUSR1, before)
    assert trainer.saved == [(6, "last.ckpt")]
    assert (tmp_path / "asked").read_text(encoding="utf-8") == f"requeue {job}\n"


def test_several_processes_stop_together(trainer: Any) -> None:
    agreements: list[bool] = []

    def agree(asked: bool, all: bool) -> bool:
        agreements.append(asked)
        return len(agreements) == 2

    trainer.world_size, trainer.strategy = 2, SimpleNamespace(reduce_boolean_decision=agree)
    stop = GracefulStop(every=3)
    for _ in range(6):
        batch(stop, trainer, is_step=True)
        if trainer.global_step == 8:
            break
    assert agreements == [False]  # at step 6; another process asks
    batch(stop, trainer, is_step=True)
    with pytest.raises(Interrupted):
        batch(stop, trainer, is_step=True)
    assert trainer.saved == [(9, "last.ckpt")]
