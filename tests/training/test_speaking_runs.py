"""A run without a terminal says where it goes on and how far an evaluation is; `--status` tells it from training."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from lightning import Callback, Trainer

from splora.callbacks import Heartbeat
from splora.launch.status import cells
from splora.training import state as states
from splora.training.run import run
from splora.training.specification import RunSpecification
from splora.training.state import RunState, StateKeeper, initial


class Stopped(Exception):
    """The end that a test makes."""


class StopBefore(Callback):
    """Ends a run before a step, without a word."""

    def __init__(self, step: int) -> None:
        self._step = step

    def on_train_batch_start(self, trainer: Trainer, *_: Any) -> None:
        """End it."""
        if trainer.global_step == self._step:
            raise Stopped


def test_evaluations_and_resumed_runs_speak(
    tiny_spec: Callable[..., RunSpecification],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    spec, seen = tiny_spec(per_gpu_eval_batch_size=100), []

    def note(folder: Path, state: RunState) -> bool:
        seen.append(cells(state))
        return True

    monkeypatch.setattr(states, "write_state", note)
    keeper = StateKeeper(tmp_path, initial("running", spec))
    with pytest.raises(Stopped):
        run(spec, tmp_path, callbacks=[StopBefore(4)])
    assert "going on" not in capsys.readouterr().out
    run(spec, tmp_path, callbacks=[Heartbeat(keeper, seconds=0.0)])
    told = capsys.readouterr().out.splitlines()
    assert "going on from step 4 of 6" in told
    batches = [line for line in told if re.fullmatch(r"evaluation after step 6: batch 1 of \d+", line)]
    assert len(batches) == 1
    doing = [line[-1] for line in seen]
    assert doing[-1] == ""  # after the evaluation
    number = batches[0].rpartition(" ")[2]
    assert f"evaluating, batch {number} of {number}" in doing
    first = doing.index("evaluating")
    assert set(doing[:first]) == {""}
    assert seen[first][2] == "6 of 6"
