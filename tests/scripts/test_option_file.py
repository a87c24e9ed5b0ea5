"""`--config FILE`: YAML says what the command line says, which comes first; what is wrong is one sentence each."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from splora.errors import InputError
from splora.scripts import heal, prune, quantize

SHARED = ["--model=m", "--task=sst2", "--data=d"]
FISHER = "method: fisher\nmodel: m\ntask: sst2\ndata: d\nbudget: mac=0.5\nbias_correction: on\nnum-samples: 64\n"
STAT = "model: m\ntask: sst2\ndata: d\nbudget: mac=0.5\nhead_factors: [1, 0.5]\nno_reconstruction: true\nforce: no\n"


@pytest.fixture
def requested(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """The request of a command."""
    monkeypatch.chdir(tmp_path)
    asked: list[Any] = []
    for module in (prune, quantize, heal):
        monkeypatch.setattr(module, "carry_out", asked.append)

    def request(command: Any, words: list[str]) -> Any:
        command.main(words)
        return asked.pop()

    return request


@pytest.mark.parametrize(
    ("command", "text", "words", "same"),
    [
        (prune, FISHER, [], ["fisher", *SHARED, "--budget=mac=0.5", "--bias_correction=on", "--num_samples=64"]),
        (prune, FISHER, ["--seed=3", "--budget", "mac=0.7"],
         ["fisher", *SHARED, "--budget=mac=0.7", "--bias_correction=on", "--num_samples=64", "--seed=3"]),
        (prune, STAT, ["stat"], ["stat", *SHARED, "--budget=mac=0.5", "--head_factors=1,0.5", "--no_reconstruction"]),
        (prune, STAT + "column: {label: gold, text: said}\nthreads:\n", ["stat", "--force"],
         ["stat", *SHARED, "--budget=mac=0.5", "--head_factors=1,0.5", "--no_reconstruction", "--force",
          "--column=label=gold", "--column=text=said"]),
        (quantize, "model: m\ntask: sst2\nbits: 3\ngroup-size: -1\nsymmetric: true\ndata: d\n", [],
         [*SHARED, "--bits=3", "--group-size", "-1", "--symmetric"]),
    ],
)  # fmt: skip
def test_a_file_says_what_the_command_line_says(
    requested: Any, tmp_path: Path, command: Any, text: str, words: list[str], same: list[str]
) -> None:
    (tmp_path / "options.yaml").write_text(text, encoding="utf-8")
    begin = [word for word in words if not word.startswith("-")][:1] if words[:1] == ["stat"] else []
    rest = words[len(begin) :]
    for spelling in (["--config", "options.yaml"], ["--config=options.yaml"]):
        assert requested(command, [*begin, *spelling, *rest]) == requested(command, same)


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("methd: stat\n", "method is missing; allowed are stat, fisher."),
        ("method: fishr\n", "method is 'fishr'; allowed are stat, fisher; did you mean 'fisher'?"),
        ("method: stat\nbudgt: mac=1\n", "budgt is no option of splora prune stat; did you mean 'budget'?"),
        ("method: stat\nteacher: sqrt\nseed: x\n", "seed is 'x'; it is a whole number."),
        ("method: stat\nforce: maybe\n", "force is 'maybe'; it is true or false."),
        ("method: stat\nmodel: {a: b}\n", "model is {'a': 'b'}; it is one value."),
        ("method: stat\nmax_seq_length: 8\nmax-seq-length: 9\n", "max_seq_length stands there more than once"),
        ("- stat\n", "holds no options by name"),
        ("method: [stat\n", "line 2: is no YAML"),
        ("method: stat\nmodel: m\ntask: sst2\nbudget: mac=2\nstates: disc\n", "--states is 'disc'; allowed are"),
    ],
)
def test_what_is_wrong_in_a_file_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], text: str, told: str
) -> None:
    from splora.scripts.cli import main

    monkeypatch.chdir(tmp_path)
    (tmp_path / "options.yaml").write_text(text, encoding="utf-8")
    with pytest.raises(SystemExit) as stopped:
        main(["prune", "--config", "options.yaml"])
    said = capsys.readouterr().err
    assert (stopped.value.code, told in said) == (2, True), said
    assert "Traceback" not in said


def test_a_file_that_is_not_there_is_told_and_an_abbreviation_is_not_passed_over(tmp_path: Path) -> None:
    for words, told in (
        (["stat", "--config", str(tmp_path / "no.yaml")], r"no\.yaml"),
        (["stat", *SHARED, "--budget=mac=1", "--conf", "a.yaml"], "--config: is to be written in full"),
        (["stat", "--config=a", "--config=b"], "--config is given 2 times"),
    ):
        with pytest.raises(InputError, match=told):
            prune.main(words)
