"""A damaged checkpoint is never gone on from; the one before is, or a sentence ends the run; nothing is unpickled."""

from __future__ import annotations

import json
import pickle
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from lightning import Callback, Trainer

from splora.errors import InputError
from splora.training import checkpoint_io, configuration, csv_logger
from splora.training.checkpoint_files import CHECKPOINT, checkpoint_of, damage, previous
from splora.training.checkpoint_io import ReplacingCheckpointIO
from splora.training.run import run
from splora.training.specification import RunSpecification

Make = Callable[..., RunSpecification]


def _save(folder: Path, *steps: int) -> Path:
    for step in steps:
        state = {"weights": torch.full((300,), float(step)), "step": step, "name": "x"}
        ReplacingCheckpointIO().save_checkpoint(state, folder / CHECKPOINT)
    return folder / CHECKPOINT


def _flip(path: Path, place: int) -> None:
    content = bytearray(path.read_bytes())
    content[place] ^= 1 << (place % 8)
    path.write_bytes(content)


def test_the_checkpoint_before_is_kept_and_stock_torch_reads_both(tmp_path: Path) -> None:
    last = _save(tmp_path, 1, 2, 3)
    assert torch.load(last, weights_only=True)["step"] == 3
    assert torch.load(previous(last), weights_only=True)["step"] == 2
    assert sorted(path.name for path in last.parent.iterdir()) == ["last.ckpt", "last.previous.ckpt"]
    assert checkpoint_of(tmp_path) == last
    ReplacingCheckpointIO().remove_checkpoint(last)
    assert not any(last.parent.iterdir())
    assert checkpoint_of(tmp_path) is None


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(place=st.floats(0, 1, exclude_max=True), cut=st.booleans())
def test_any_byte_that_differs_and_any_cut_is_noticed(tmp_path: Path, place: float, cut: bool) -> None:
    shutil.rmtree(tmp_path / "checkpoints", ignore_errors=True)
    last = _save(tmp_path, 1, 2)
    where = int(place * last.stat().st_size)
    if cut:
        last.write_bytes(last.read_bytes()[:where])
    else:
        _flip(last, where)
    assert damage(last)
    assert checkpoint_of(tmp_path) == previous(last)
    # What is damaged does not become the one before when the run goes on.
    _save(tmp_path, 3)
    assert torch.load(previous(last), weights_only=True)["step"] == 1
    assert torch.load(last, weights_only=True)["step"] == 3


@pytest.mark.parametrize("end", range(-110, 0))
def test_every_byte_of_the_end_is_checked(tmp_path: Path, end: int) -> None:
    last = _save(tmp_path, 1)
    _flip(last, last.stat().st_size + end)
    assert damage(last)


def test_weights_of_a_checkpoint_without_checksum_are_judged_by_the_archives_own(tmp_path: Path) -> None:
    path = tmp_path / CHECKPOINT
    path.parent.mkdir()
    torch.save({"weights": torch.full((300,), 7.0)}, path)
    assert checkpoint_of(tmp_path) == path
    _flip(path, path.read_bytes().index(torch.tensor([7.0, 7.0]).numpy().tobytes()))
    with pytest.raises(InputError, match=r"last\.ckpt: is damaged \(the checksum of .*--force"):
        checkpoint_of(tmp_path)


def test_two_damaged_ones_are_one_sentence(tmp_path: Path) -> None:
    last = _save(tmp_path, 1, 2)
    last.write_bytes(b"")
    previous(last).write_bytes(b"no archive")
    with pytest.raises(InputError, match=r"last\.ckpt: is damaged .*previous\.ckpt: is damaged .*--force") as told:
        checkpoint_of(tmp_path)
    assert len(told.value.problems) == 1
    with pytest.raises(InputError, match="is damaged"):
        ReplacingCheckpointIO().load_checkpoint(last)
    with pytest.raises(InputError, match="no such checkpoint"):
        ReplacingCheckpointIO().load_checkpoint(tmp_path / "none.ckpt")


class _Evil:
    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (Path("evil"),)


@pytest.mark.parametrize("sealed", [True, False])
def test_no_foreign_code_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, sealed: bool) -> None:
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "last.ckpt"
    if sealed:
        ReplacingCheckpointIO().save_checkpoint({"evil": _Evil()}, path)
    else:
        torch.save({"evil": _Evil()}, path)
    with pytest.raises(InputError, match=r"last\.ckpt: is no checkpoint that can be gone on from"):
        ReplacingCheckpointIO().load_checkpoint(path)
    path.write_bytes(pickle.dumps(_Evil()))
    with pytest.raises(InputError, match="is damaged"):
        ReplacingCheckpointIO().load_checkpoint(path)
    assert not Path("evil").exists()


class Killed(BaseException):
    """The end that a test makes."""


class StopAt(Callback):
    """Ends a run after a step, without a word."""

    def __init__(self, step: int) -> None:
        self._step = step

    def on_train_batch_start(self, trainer: Trainer, *_: Any) -> None:
        """End it."""
        if trainer.global_step == self._step:
            raise Killed


def _table(folder: Path) -> list[list[str]]:
    """`metrics.csv`, without what the clock says."""
    return [line.split(",") for line in (folder / "metrics.csv").read_text(encoding="utf-8").splitlines()]


def _result(folder: Path) -> dict[str, Any]:
    return dict(json.loads((folder / "result.json").read_text(encoding="utf-8")))


@pytest.fixture
def spec(tiny_spec: Make, tmp_path: Path) -> RunSpecification:
    """Two epochs of two steps, each of which logs a row and leaves a checkpoint; eight questions."""
    text = "the red house stands near the old river"
    questions = [
        {
            "id": str(n),
            "question": "where is the house ?",
            "answers": [{"text": word, "answer_start": text.index(word)}],
        }
        for n, word in enumerate(text.split()[1:4] + text.split()[6:] + ["near", "old river", "red house"])
    ]
    data = {"version": "1.1", "data": [{"title": "t", "paragraphs": [{"context": text, "qas": questions}]}]}
    (tmp_path / "few.json").write_text(json.dumps(data), encoding="utf-8")
    return tiny_spec(
        pruning_method="topK", adapter="splopa", max_train_examples=None, max_steps=None, num_train_epochs=2.0,
        checkpoint_every_n_steps=1, max_seq_length=48,
        train_file=str(tmp_path / "few.json"), predict_file=str(tmp_path / "few.json"),
    )  # fmt: skip


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """Settings of the Trainer for runs that log each step; nothing is drawn."""

    def bare(spec: RunSpecification, folder: str) -> dict[str, Any]:
        config = configuration.lightning_config(spec, folder)
        trainer = config["trainer"]
        drawn = ("MaskPictures", "TensorBoardLogger", "RunProgressBar")
        for kind in ("callbacks", "logger"):
            trainer[kind] = [item for item in trainer[kind] if not item["class_path"].endswith(drawn)]
        trainer["enable_progress_bar"] = False
        return config

    monkeypatch.setattr("splora.training.run.lightning_config", bare)
    return {"log_every_n_steps": 1}


@pytest.mark.parametrize("damaged", ["cut", "flipped"])
def test_a_run_goes_on_from_the_checkpoint_before(
    spec: RunSpecification, quick: dict[str, Any], tmp_path: Path, capsys: pytest.CaptureFixture[str], damaged: str
) -> None:
    run(spec, tmp_path / "quiet", trainer=quick)
    folder = tmp_path / "damaged"
    with pytest.raises(Killed):
        run(spec, folder, trainer=quick, callbacks=[StopAt(3)])
    last = folder / CHECKPOINT
    if damaged == "cut":
        last.write_bytes(last.read_bytes()[:-1000])
    else:
        _flip(last, last.stat().st_size // 2)
    run(spec, folder, trainer=quick)
    assert "last.ckpt: is damaged" in capsys.readouterr().err
    assert _table(folder) == _table(tmp_path / "quiet")
    assert _result(folder)["metrics"] == _result(tmp_path / "quiet")["metrics"]


def test_metrics_have_every_point_wherever_a_run_is_killed(
    spec: RunSpecification, quick: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Killed between any two things that it brings to the disk."""
    writes = 0
    dies_at: int | None = None

    def dying(write: Callable[..., None]) -> Callable[..., None]:
        def wrapped(*arguments: Any, **named: Any) -> None:
            nonlocal writes
            writes += 1
            if dies_at is not None and writes >= dies_at:
                raise Killed  # and from there on: the dead write nothing
            write(*arguments, **named)

        return wrapped

    monkeypatch.setattr(csv_logger, "write_text", dying(csv_logger.write_text))
    save = dying(checkpoint_io.ReplacingCheckpointIO.save_checkpoint)
    monkeypatch.setattr(checkpoint_io.ReplacingCheckpointIO, "save_checkpoint", save)
    run(spec, tmp_path / "quiet", trainer=quick)
    wanted, number = _table(tmp_path / "quiet"), writes
    assert [row[0] for row in wanted] == ["step", "0", "1", "1", "2", "3", "3"]
    assert number >= 9
    for place in range(1, number + 1):
        writes, dies_at = 0, place
        with pytest.raises(Killed):
            run(spec, tmp_path / str(place), trainer=quick)
        dies_at = None
        run(spec, tmp_path / str(place), trainer=quick)
        assert _table(tmp_path / str(place)) == wanted, place
