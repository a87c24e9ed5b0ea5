"""Early stopping, the best evaluation's weights, and loggers that a row asks for."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from lightning import Callback, LightningModule
from torch.nn import Parameter

from splora.callbacks import SparsitySchedule
from splora.callbacks.best_score import BEST, BestWeights
from splora.errors import InputError
from splora.training.checkpoint_files import previous
from splora.training.checkpoint_io import ReplacingCheckpointIO
from splora.training.configuration import lightning_config
from splora.training.logger_choice import KNOWN, entry, problem
from splora.training.options import OptimizerOptions
from splora.training.run import run
from splora.training.specification import RunSpecification, check

Make = Callable[..., RunSpecification]


def result(folder: Path) -> dict[str, Any]:
    """What a run measured."""
    return dict(json.loads((folder / "result.json").read_text(encoding="utf-8")))


class Kept(Callback):
    """Remembers a trained weight at each evaluation."""

    def __init__(self) -> None:
        self.weights: list[Any] = []

    def on_validation_end(self, trainer: Any, pl_module: Any) -> None:
        """Remember it."""
        if trainer.state.fn == "fit":
            self.weights.append(pl_module.network.qa_outputs.weight.detach().clone())


def test_training_stops_early_and_the_best_weights_are_kept(
    tiny_spec: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from safetensors.torch import load_file

    length = {"max_steps": None, "num_train_epochs": 6.0, "max_train_examples": 8}
    kept, scores = Kept(), iter((10.0, 30.0, 20.0, 20.0, 30.0))  # the last one: that of the weights put back
    monkeypatch.setattr("splora.training.evaluation.OutputCollector.score", lambda *_: {"f1": next(scores)})
    run(tiny_spec(early_stopping=2, best_checkpoint=True, **length), tmp_path, callbacks=[kept])
    told = capsys.readouterr().out
    assert "stopping early after step 8: val/f1 was 30.00 at best, 2 evaluations ago" in told
    assert "val/f1 was best after step 4: 30.00; these weights are kept" in told
    assert (result(tmp_path)["steps"], result(tmp_path)["metrics"], len(kept.weights)) == (8, {"f1": 30.0}, 4)
    saved = load_file(tmp_path / "model" / "model.safetensors")["qa_outputs.weight"]
    assert [saved.equal(weight) for weight in kept.weights] == [False, True, False, False]
    with (tmp_path / "metrics.csv").open(encoding="utf-8", newline="") as file:
        curve = [float(line["val/f1"]) for line in csv.DictReader(file) if line["val/f1"]]
    assert curve == [10.0, 30.0, 20.0, 20.0]


@pytest.mark.parametrize("kept", ["last", "previous"])
def test_damaged_best_weights_end_no_run(kept: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    module = LightningModule()
    module.weight = Parameter(torch.zeros(2))
    path = tmp_path / BEST
    checkpoint_io = ReplacingCheckpointIO()
    for value in (1.0, 2.0):
        checkpoint_io.save_checkpoint({"state_dict": {"weight": torch.full((2,), value)}}, path)
    path.write_bytes(path.read_bytes()[:-9])
    if kept == "last":
        previous(path).unlink()
    best = BestWeights("val/f1")
    best.best, best.step = 50.0, 7
    stand_in: Any = SimpleNamespace(
        default_root_dir=tmp_path,
        global_step=9,
        is_global_zero=True,
        strategy=SimpleNamespace(checkpoint_io=checkpoint_io, broadcast=lambda path: path),
    )
    assert best.restore(stand_in, module) == (kept == "previous")
    assert module.weight.tolist() == ([1.0, 1.0] if kept == "previous" else [0.0, 0.0])
    told = capsys.readouterr()
    assert told.out == ""
    assert (
        f"best.ckpt: is missing or damaged; {'the last weights' if kept == 'last' else 'those of the best'}" in told.err
    )


@pytest.mark.parametrize(("step", "over"), [(0, False), (79, False), (80, True), (99, True)])
def test_evaluations_count_from_the_final_threshold(step: int, over: bool) -> None:
    schedule = SparsitySchedule(1.0, 0.5, 1.0, 2.0)
    module = SimpleNamespace(optimizer_options=OptimizerOptions(warmup_steps=100, schedule_total_steps=1000))
    trainer: Any = SimpleNamespace(global_step=step, estimated_stepping_batches=100)
    assert schedule.is_over(trainer, module) == over


@pytest.mark.parametrize(
    ("logger", "told"),
    [
        ("wandb", "needs the package wandb"),
        ("lightning.pytorch.loggers.WandbLogger", "needs the package wandb"),
        ("csv, comet", "needs the package comet_ml"),
        ("wanbd", "did you mean 'wandb'?"),
        ("no_such_package.Logger", "needs the package no_such_package"),
    ],
)
def test_a_logger_that_cannot_be_is_one_sentence_before_the_run(
    monkeypatch: pytest.MonkeyPatch, logger: str, told: str
) -> None:
    from splora.training import logger_choice

    found = logger_choice.find_spec
    optional = {package for _, package, _ in KNOWN.values()}
    monkeypatch.setattr(logger_choice, "find_spec", lambda name: None if name in optional else found(name))
    (only,) = check(RunSpecification(logger=logger))
    assert only.field == "logger"
    assert told in only.message


def test_every_known_logger_takes_what_it_is_given() -> None:
    import inspect

    from lightning.pytorch import loggers

    for short, (name, _, _) in KNOWN.items():
        made = entry(short, "a run")
        assert made == entry(f"lightning.pytorch.loggers.{name}", "a run")
        assert set(made["init_args"]) <= set(inspect.signature(getattr(loggers, name)).parameters)
    assert problem(None) is problem("csv") is None
    with pytest.raises(InputError, match="cannot be imported"):
        entry("lightning.pytorch.loggers.NoLogger", "a run")


def test_a_lightning_logger_writes_into_the_run_s_folder(tiny_spec: Make, tmp_path: Path) -> None:
    spec = tiny_spec(logger="csv,lightning.pytorch.loggers.csv_logs.CSVLogger", max_steps=2)
    assert str(tmp_path) not in json.dumps(lightning_config(spec, str(tmp_path))["trainer"]["logger"])
    run(spec, tmp_path)
    logged = sorted(str(path.relative_to(tmp_path)) for path in tmp_path.rglob("metrics.csv"))
    assert logged == ["csv/version_0/metrics.csv", "lightning_logs/version_0/metrics.csv", "metrics.csv"]
