"""`splora prune`: what it takes a model's name for, where the result's line goes, and what it prints."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from splora.posttraining import command, pipeline
from splora.posttraining.core import outcome
from splora.posttraining.core.request import PruneRequest
from splora.scripts import prune, prune_opt


def requested(main: Any, arguments: list[str], monkeypatch: pytest.MonkeyPatch) -> PruneRequest:
    """The request that a command would carry out."""
    found: list[PruneRequest] = []
    for module in (prune, prune_opt):
        monkeypatch.setattr(module, "carry_out", found.append)
    main(arguments)
    (request,) = found
    return request


def test_both_commands_mean_the_same_model_and_the_same_summary(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    fixed = ["--num_samples=8", "--seed=3"]
    published = requested(
        prune_opt.main, ["--model_name=opt-125M", "--task=wikitext2", "--mu=0.7", *fixed], monkeypatch
    )
    for task in ("wikitext2", "WikiText-2"):
        given = ["stat", "--model=opt-125M", "--task", task, "--budget=mac=0.7", *fixed]
        request = requested(prune.main, given, monkeypatch)
        assert request.model == "facebook/opt-125m"
        assert request.summary == Path("output/opt/opt-125M.txt")
        assert request == published


def test_a_folder_and_an_encoder_are_what_they_are_called(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "opt-125M").mkdir()
    given = ["stat", "--model=opt-125M", "--task=ptb", "--budget=mac=1"]
    assert requested(prune.main, given, monkeypatch).model == "opt-125M"
    given = ["fisher", "--model=some/bert", "--task=sst2", "--budget=mac=0.5"]
    request = requested(prune.main, given, monkeypatch)
    assert (request.model, request.summary) == ("some/bert", Path("output/bert/sst2.txt"))


def test_dependent_channels_are_told_with_what_was_done(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    notes = {"neurons": {"dependent_channels": {"layer.0.neurons": "12 of 20 kept channels are independent"}}}
    monkeypatch.setattr(pipeline, "prune", lambda request, report: {"notes": notes, "peak_memory_bytes": 2**20})
    monkeypatch.setattr(outcome, "summary_line", lambda result, output: "done")
    request = requested(
        prune.main, ["stat", "--model=x", "--task=sst2", "--budget=mac=0.5", f"--output={tmp_path / 'o'}"], monkeypatch
    )
    command.carry_out(request)
    assert (
        "neurons: layer.0.neurons: 12 of 20 kept channels are independent, so an eigenvalue factorization, whose "
        "least-norm solution spreads over all of them, was used instead of Cholesky's.\n"
    ) in capsys.readouterr().out
