"""The console commands end to end: fit from YAML gives a row's numbers; validate, test, predict and count follow."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from splora.scripts.write_configs import FOLDER, configurations
from tests import forks

Command = Callable[..., tuple[int, str]]
FIT = ["fit", "--data", "splora.tasks.squad.SquadDataModule", "--data.model_name_or_path", "embedded"]
SHORT = [
    *("--data.init_args.max_train_examples", "24", "--data.init_args.train_batch_size", "4"),
    *("--trainer.max_epochs", "1", "--trainer.max_steps", "3", "--trainer.accelerator", "cpu"),
]


def splora(*arguments: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    """Run `splora` in a process of its own."""
    return forks.run([sys.executable, "-m", "splora.scripts.cli", *arguments], cwd=cwd)


def result(folder: Path) -> dict[str, Any]:
    """What a run measured."""
    return dict(json.loads((folder / "result.json").read_text(encoding="utf-8")))


@pytest.mark.parametrize(("stem", "text"), list(configurations()), ids=lambda value: str(value)[:30])
def test_every_shipped_configuration_is_its_row(stem: str, text: str) -> None:
    assert (FOLDER / f"{stem}.yaml").read_text(encoding="utf-8") == text


def test_no_other_configuration_is_shipped() -> None:
    assert {path.stem for path in FOLDER.glob("*.yaml")} == {stem for stem, _ in configurations()}


@pytest.mark.slow
def test_a_row_and_its_yaml_give_the_same_numbers(
    root: Path, tmp_path: Path, command: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    short = ["--set", "max_train_examples=24", "--set", "per_gpu_train_batch_size=4", "--set", "max_steps=3"]
    row = ["--exp-id", "1", *short, "--set", "pruning_method=topK", "--set", "final_threshold=0.5"]
    row += ["--set", "mask_scores_learning_rate=0.1", "--set", "adapter=splopa", "--output-dir", str(tmp_path / "row")]
    script = [sys.executable, str(root / "scripts" / "run_from_sheet.py"), *row]
    assert forks.run(script, cwd=tmp_path).returncode == 0
    assert (tmp_path / "runs" / "results.csv").read_text(encoding="utf-8").count("\n") == 2
    config = yaml.safe_load((tmp_path / "row" / "config.yaml").read_text(encoding="utf-8"))
    text = yaml.safe_dump(config).replace(str(tmp_path / "row"), str(tmp_path / "yaml"))
    (tmp_path / "config.yaml").write_text(text, encoding="utf-8")
    monkeypatch.chdir(root)
    status, said = command("fit", "--config", str(tmp_path / "config.yaml"))
    assert status == 0, said
    one, other = result(tmp_path / "row"), result(tmp_path / "yaml")
    assert other["metrics"] == one["metrics"]
    assert other["remaining_weights_percent"] == one["remaining_weights_percent"]

    status, said = command("count", str(tmp_path / "row"), str(tmp_path / "yaml"))
    assert status == 0, said
    assert f"{one['remaining_weights_percent']:.2f}" in said.splitlines()[1]
    assert f"{one['learned_weights_percent']:.3f}" in said.splitlines()[2]


def test_fit_goes_on_and_knows_its_folder(tmp_path: Path, command: Command) -> None:
    text = (FOLDER / "demo_movement_splopa.yaml").read_text(encoding="utf-8")
    (tmp_path / "demo.yaml").write_text(
        text.replace("runs/demo_movement_splopa", str(tmp_path / "run")), encoding="utf-8"
    )
    fit = ["fit", "--config", str(tmp_path / "demo.yaml"), *SHORT]
    assert command(*fit)[0] == 0
    assert result(tmp_path / "run")["remaining_weights_percent"] == 50
    for arguments, status, told in (
        ([], 0, "this run is finished"),
        (["--model.optimizer.learning_rate", "0.5"], 2, "belongs to a run with other settings"),
        (
            ["--trainer.default_root_dir", str(tmp_path / "other"), "--trainer.callbacks", "null"],
            2,
            "has no splora.callbacks.SparsitySchedule",
        ),
    ):
        ended, said = command(*fit, *arguments)
        assert (ended, told in said) == (status, True), said


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["count", "no-such-run"], "no-such-run: no finished run is here"),
        (["fit", "--config", "no.yaml"], "no.yaml"),
        ([*FIT, "--model.task", "squat"], "model.task is 'squat'; allowed are squad, squad_v2"),
    ],
)
def test_mistakes_end_with_2(command: Command, arguments: list[str], told: str) -> None:
    status, said = command(*arguments)
    assert (status, told in said) == (2, True), said


def test_a_mistake_ends_the_process_with_2_and_no_traceback(root: Path) -> None:
    done = splora("fit", "--model.task", "squad", cwd=root)
    assert done.returncode == 2
    assert "the following arguments are required: fit.data" in done.stderr
    assert "Traceback" not in done.stderr
