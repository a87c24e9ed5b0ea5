"""Runs in every state, of every version, and folders that are none."""

from __future__ import annotations

import json
import shlex
from pathlib import Path
from typing import Any

import pytest

from splora.errors import InputError
from splora.report.collect import collect
from splora.scripts.cli import main as splora
from splora.training.state import now
from tests.report.made_up import pruning, spec_of, training_run, write


def test_a_finished_run_is_read_whole(tmp_path: Path) -> None:
    training_run(tmp_path / "SQuAD" / "12", 12)
    (run,) = collect(tmp_path).runs
    assert (run.name, run.label, run.state, run.sheet, run.title) == ("SQuAD/12", "12", "finished", "SQuAD", "row 12")
    assert (run.metrics["f1"], run.reported, run.reported_density) == (70.125, {"f1": 71.5}, 50.0)
    assert (run.density, run.learned, run.seed, run.step) == (50.0, 3.25, "92", 300)
    found = run.environment
    assert (found.precision, found.device, found.devices, found.threads) == ("32-true", "CPU", "1", "2")
    assert ("torch", "2.13.0") in found.versions
    assert run.settings == {"learning_rate": "0.0005"}
    assert run.blocks == ((6, 6), (4, 6))
    assert run.log.curves["loss"].logged == 30
    assert run.derived
    words = ["--sheet", "SQuAD", "--exp-id", "12", "--output-dir", str(tmp_path / "SQuAD" / "12")]
    assert shlex.split(run.command) == ["python", "scripts/run_from_sheet.py", *words]
    (tmp_path / "SQuAD" / "12" / "config.yaml").write_text("{}", encoding="utf-8")
    assert collect(tmp_path).runs[0].command.startswith("lightning fit --config ")


@pytest.mark.parametrize("state", ["queued", "running", "failed", "interrupted"])
def test_a_run_without_a_result_has_the_state_on_disk(tmp_path: Path, state: str) -> None:
    write(tmp_path / "7" / "spec.json", spec_of(7))
    told = {"state": state, "reason": "out of memory", "step": 120, "steps": 500, "log": "logs/7.log", "host": "node-1"}
    write(tmp_path / "7" / "state.json", told | {"command": "python again.py", "heartbeat": (beat := now())})
    (run,) = collect(tmp_path).runs
    assert (run.state, run.reason, run.step, run.steps) == (state, "out of memory", 120, 500)
    log = f"{(tmp_path / '7').as_posix()}/logs/7.log"
    assert (run.log_file, run.environment.host, run.heartbeat) == (log, "node-1", beat)
    assert (run.command, run.derived) == ("python again.py", False)
    assert (run.method, run.adapter, run.density) == ("topK", "splopa", None)


@pytest.mark.parametrize(
    ("heartbeat", "state"),
    [("2025-01-01T00:00:00+00:00", "interrupted"), ("2025-01-01T00:00:00", "interrupted"), ("soon", "running")],
)
def test_a_run_that_has_long_been_silent_is_not_running(tmp_path: Path, heartbeat: str, state: str) -> None:
    write(tmp_path / "7" / "state.json", {"state": "running", "exp_id": 7, "heartbeat": heartbeat})
    (run,) = collect(tmp_path).runs
    assert run.state == state


def test_a_run_that_nobody_launched_is_unfinished(tmp_path: Path) -> None:
    write(tmp_path / "7" / "spec.json", spec_of(7))
    (tmp_path / "7" / "metrics.csv").write_text("step,loss\n9,1.5\n19,1.0\n", encoding="utf-8")
    (run,) = collect(tmp_path).runs
    assert (run.state, run.step) == ("unfinished", 19)


BROKEN: list[tuple[bytes, str]] = [
    (b"", "is not JSON"),
    (b'{"exp_id": 1, "meth', "is not JSON"),
    (b"\xff\xfe\x00", "is not JSON"),
    (b"[1, 2]", "holds no JSON object"),
    (b"null", "holds no JSON object"),
    (b"[" * 100_000, "is not JSON"),
    (b'{"versions": {"splora": "9.1"}}', "is not the result of a run of splora 9.1"),
    (b'{"method": ["topK"]}', "is not the result of a run"),
]


@pytest.mark.parametrize(("content", "told"), BROKEN)
def test_a_broken_result_is_one_notice_that_names_the_file(tmp_path: Path, content: bytes, told: str) -> None:
    training_run(tmp_path / "1", 1)
    training_run(tmp_path / "2", 2)
    (tmp_path / "2" / "result.json").write_bytes(content)
    found = collect(tmp_path)
    assert [run.state for run in found.runs] == ["finished", "unreadable"]
    (notice,) = found.notices
    assert notice.startswith(f"{tmp_path / '2' / 'result.json'}: {told}")


def test_values_of_other_types_are_left_out_and_crash_nothing(tmp_path: Path) -> None:
    strange: list[Any] = [None, "x", [], {}, True, float("nan"), 10**400, {"a": []}]
    result = json.loads((training_run(tmp_path / "0", 0) / "result.json").read_text(encoding="utf-8"))
    for number, name in enumerate(result, 1):
        for other, value in enumerate(strange):
            write(tmp_path / f"{number}-{other}" / "result.json", result | {name: value})
    for number, (name, part) in enumerate((name, part) for name in result["settings"] for part in strange):
        write(tmp_path / f"s{number}" / "result.json", result | {"settings": result["settings"] | {name: part}})
    found = collect(tmp_path)
    assert len(found.runs) > 50
    assert all(str(tmp_path) in notice for notice in found.notices)


def test_results_of_earlier_and_later_versions_are_read(tmp_path: Path) -> None:
    write(tmp_path / "old" / "result.json", {"exp_id": 5, "method": "movement_v0", "metrics": {"f1": 60}})
    training_run(tmp_path / "new", 6, versions={"splora": "7.0"}, invented={"later": [1]})
    runs = collect(tmp_path).runs
    assert [(run.label, run.method, run.state) for run in runs] == [
        ("5", "movement_v0", "finished"),
        ("6", "topK", "finished"),
    ]
    assert runs[0].environment.versions == ()


def test_a_pruning_and_its_command(tmp_path: Path) -> None:
    pruning(tmp_path / "sst2 half", 0.5, 88.5, 62.5)
    (one,) = collect(tmp_path).pruned
    assert (one.macs, one.latency, one.dense, one.pruned) == (50.0, (100.0, 62.5), 90.0, 88.5)
    assert one.heads == ((True, False, False, True), (False,) * 4)
    assert one.neurons == (0.75, 0.75)
    words = shlex.split(one.command)
    assert words[:3] == ["splora", "prune", "fisher"]
    given = dict(zip(words[3::2], words[4::2], strict=True))
    assert given["--data"] == "data/sst 2"
    assert given["--column"] == "label=gold"
    assert given["--output"] == str(tmp_path / "sst2 half")
    assert given["--latency_batch_size"] == "32"
    assert "--seq_len" not in given


PRUNINGS = [
    ["--model", "a model", "--task", "sst2", "--budget", "mac=0.5"],
    [
        *("--model", "m", "--task", "squad", "--data", "d", "--budget", "mac=0.35", "--num_samples", "64"),
        *("--seed", "7", "--seq_len", "99", "--max_seq_length", "200", "--doc_stride", "64", "--precision", "bf16"),
        *("--device", "cpu", "--column", "label=gold", "--column", "text=words here", "--gradients", "8"),
        *("--fisher_labels", "data", "--teacher", "sqrt", "--damping", "0.25", "--states", "disk"),
        *("--bias_correction", "off"),
    ],
]


@pytest.mark.parametrize("arguments", PRUNINGS, ids=["defaults", "everything"])
def test_the_command_of_a_pruning_asks_for_the_same_again(
    tmp_path: Path, arguments: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[Any] = []
    monkeypatch.setattr("splora.scripts.prune.carry_out", seen.append)
    splora(["prune", "fisher", *arguments, "--output", str(tmp_path / "a")])
    pruning(tmp_path / "a", 0.5, 88.5, 62.5, settings=seen[0].settings())
    splora(shlex.split(collect(tmp_path).pruned[0].command)[1:])
    assert seen[1].settings() == seen[0].settings()
    assert seen[1].output == seen[0].output


def test_a_pruning_that_lacks_what_it_is_about_is_named(tmp_path: Path) -> None:
    pruning(tmp_path / "a", 0.5, 88.5, 62.5)
    pruning(tmp_path / "b", 0.5, 88.5, 62.5, pruned=None)
    pruning(tmp_path / "c", 0.5, 88.5, 62.5)
    write(tmp_path / "c" / "plan.json", {"layers": [{"heads": 3}]})
    found = collect(tmp_path)
    assert [one.name for one in found.pruned] == ["a", "c"]
    assert [notice.partition(":")[0] for notice in found.notices] == [
        str(tmp_path / "b" / "result.json"),
        str(tmp_path / "c" / "plan.json"),
    ]


def test_no_folder_and_no_runs(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="there is no such folder"):
        collect(tmp_path / "nowhere")
    with pytest.raises(InputError, match="no run is below this folder"):
        collect(tmp_path)
    write(tmp_path / "x" / "result.json", {"perplexity": 12.0})
    with pytest.raises(InputError, match=r"no run is below this folder.*names no method"):
        collect(tmp_path)
    with pytest.raises(InputError, match="is a file"):
        collect(tmp_path / "x" / "result.json")


@pytest.mark.parametrize("arguments", [["nowhere"], ["."]])
def test_the_command_ends_with_one_sentence_and_code_2(
    tmp_path: Path, arguments: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit) as ended:
        splora(["report", *arguments])
    assert ended.value.code == 2
    assert capsys.readouterr().err.count("\n") == 1
    assert not (tmp_path / "report.html").exists()


@pytest.mark.parametrize("name", ["model", "masks", "checkpoints"])
def test_a_sheet_called_as_a_part_of_a_run_is_not_left_out(tmp_path: Path, name: str) -> None:
    training_run(tmp_path / name / "1", 1)
    training_run(tmp_path / name / "1" / name / "2", 2)
    assert [run.name for run in collect(tmp_path).runs] == [f"{name}/1"]
