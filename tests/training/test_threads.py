"""Threads: they wait passively unless the user said otherwise, and are as many as the work keeps busy."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning import Callback, LightningModule, Trainer

from splora import machine
from splora.launch import worker
from splora.scripts import (
    cli,
    generate_lut,
    opt_eval,
    prune_bert,
    prune_fisher,
    prune_opt,
    quantize_opt,
    run_from_sheet,
    train_small_llama,
    train_small_opt,
)
from splora.training.run import run
from splora.training.specification import RunSpecification
from splora.training.threads import largest_product

COMMANDS = {
    "splora": lambda: cli.main(["--version"]),
    "run_from_sheet": lambda: run_from_sheet.main(["--help"]),
    "worker": lambda: worker.main(["--help"]),
    **{
        module.__name__: lambda module=module: module.main(["--help"])
        for module in (
            generate_lut,
            opt_eval,
            prune_bert,
            prune_fisher,
            prune_opt,
            quantize_opt,
            train_small_llama,
            train_small_opt,
        )
    },
}


@pytest.fixture(autouse=True)
def unset(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody has chosen anything."""
    for name in ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT", "KMP_BLOCKTIME", "KMP_LIBRARY", "OMP_NUM_THREADS"):
        monkeypatch.setenv(name, "")  # so that it is put back
        monkeypatch.delenv(name)
    monkeypatch.delenv("MKL_NUM_THREADS", raising=False)


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_waits_passively(
    name: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    import os

    monkeypatch.chdir(tmp_path)

    def call() -> None:
        try:
            COMMANDS[name]()
        except (SystemExit, Exception):
            return

    call()
    assert os.environ["OMP_WAIT_POLICY"] == "PASSIVE"
    for own, value in {"OMP_WAIT_POLICY": "ACTIVE", "GOMP_SPINCOUNT": "1000", "KMP_BLOCKTIME": "1"}.items():
        monkeypatch.delenv("OMP_WAIT_POLICY")
        monkeypatch.setenv(own, value)
        call()
        assert os.environ[own] == value
        assert not [*tmp_path.iterdir()]
        assert own == "OMP_WAIT_POLICY" or "OMP_WAIT_POLICY" not in os.environ
        monkeypatch.delenv(own)
        monkeypatch.setenv("OMP_WAIT_POLICY", "")


@pytest.mark.parametrize("content", [None, "{}", "[]", "", '{"no such column": 1}'])
def test_a_worker_without_its_specification_trains_nothing(
    content: str | None, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "row"
    if content is not None:
        folder.mkdir()
        (folder / "spec.json").write_text(content, encoding="utf-8")
    assert worker.main([str(folder)]) == 2
    (told,) = capsys.readouterr().err.splitlines()
    assert told.startswith(f"error: {folder / 'spec.json'}: ")
    assert [path.name for path in tmp_path.rglob("*.*")] == ([] if content is None else ["spec.json"])


def test_no_command_imports_torch_before_it_says_so(root: Path) -> None:
    """OpenMP reads its settings when it is loaded."""
    names = [f"splora.scripts.{path.stem}" for path in sorted((root / "scripts").glob("*.py"))]
    names = [name for name in names if not name.endswith(("__init__", "lightning_cli"))]
    program = (
        "import importlib, sys\n"
        f"for name in {[*names, 'splora.launch.worker']!r}:\n"
        "    importlib.import_module(name)\n"
        "    assert 'torch' not in sys.modules, name\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(
    ("multiplications", "most", "threads"),
    [(0, 2, 1), (4e6, 2, 1), (31e6, 2, 1), (32e6, 2, 2), (134e6, 2, 2), (134e6, 16, 8), (1e10, 16, 16), (1e10, 1, 1)],
)
def test_threads_grow_with_the_work(multiplications: float, most: int, threads: int) -> None:
    assert machine.threads_for(multiplications, most) == threads


class Threads(Callback):
    """How many threads there are in training."""

    seen = 0

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, *_: Any) -> None:
        """Look."""
        self.seen = torch.get_num_threads()


@pytest.mark.parametrize("own", [None, "OMP_NUM_THREADS", "MKL_NUM_THREADS"])
def test_a_small_row_takes_one_thread_unless_told_otherwise(
    tiny_spec: Callable[..., RunSpecification], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, own: str | None
) -> None:
    before = torch.get_num_threads()
    if own is not None:
        monkeypatch.setenv(own, "2")
    seen = Threads()
    torch.set_num_threads(2)
    try:
        run(tiny_spec(max_steps=1), tmp_path, callbacks=[seen])
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)
    assert seen.seen == (1 if own is None else 2)


def test_the_largest_product_counts_adapted_weights_too() -> None:
    network = torch.nn.Sequential(torch.nn.Linear(3, 5), torch.nn.Sequential(torch.nn.Linear(5, 7)))
    assert largest_product(network, 11) == 11 * 35
