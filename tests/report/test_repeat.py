"""The command that the report gives for a pruning or a quantization is understood, and asks for the same thing."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from splora.report.repeat import pruning_command
from splora.scripts import prune, quantize

MODEL = ["--model", "x", "--task", "sst2", "--data", "d", "--output", "new"]


@pytest.mark.parametrize(
    "given",
    [
        ["prune", "fisher", "--budget", "mac=0.4", "--gradients", "32", "--teacher", "sqrt", "--column", "label=gold"],
        ["prune", "stat", "--budget", "mac=0.25", "--head_factors", "1,0.5", "--no_reconstruction", "--seed", "3"],
        ["prune", "stat", "--budget", "mac=0.25", "--exact_paper", "--states", "disk", "--max_seq_length", "64"],
        ["quantize", "--bits", "3", "--group-size", "-1", "--symmetric", "--act-order", "--half", "--seed", "1"],
        ["quantize", "--method", "rtn", "--damping", "0.02", "--num-samples", "7"],
    ],
    ids=lambda words: " ".join(words[:2]),
)
def test_the_command_asks_for_the_same(given: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    asked: list[Any] = []
    for module in (prune, quantize):
        monkeypatch.setattr(module, "carry_out", asked.append)
    programs = {"prune": prune.main, "quantize": quantize.main}
    programs[given[0]]([*given[1:], *MODEL])
    settings = asked[0].settings()
    words = pruning_command({"method": asked[0].method, "settings": settings}, Path("new")).split()
    assert words[0] == "splora"
    programs[words[1]](words[2:])
    assert asked[1].settings() == settings
