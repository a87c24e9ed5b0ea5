"""The command: what it prints, what it refuses, and that it needs no torch to do so."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import yaml

from splora.launch import run_row
from splora.scripts.run_from_sheet import main


def refused(capsys: pytest.CaptureFixture[str], *arguments: str) -> list[str]:
    with pytest.raises(SystemExit) as caught:
        main(arguments)
    assert caught.value.code == 2
    output = capsys.readouterr()
    assert output.out == ""
    return output.err.splitlines()


def test_list_shows_every_sheet_or_one(capsys: pytest.CaptureFixture[str]) -> None:
    main(["--list"])
    everything = capsys.readouterr().out
    assert all(f"{name}: " in everything for name in ("Demo", "SQuAD", "MNLI", "QQP"))
    main(["--list", "--sheet", "SQuAD", "--method", "topK"])
    some = capsys.readouterr().out.splitlines()
    assert "SQuAD" in some[0]
    assert all("topK" in line for line in some[2:])
    (line,) = [line for line in some if line.startswith("30 ")]
    assert "50 %" in line
    assert "EM 77.6, F1 85.8" in line


def test_check(capsys: pytest.CaptureFixture[str], tmp_path: Path, sheets: SimpleNamespace) -> None:
    main(["--check"])
    assert "no problems" in capsys.readouterr().out
    path = sheets.write(tmp_path / "a.xlsx", {"SQuAD": [{"learning_rate": "x"}, {"exp_id": 2, "task": "sqad"}]})
    assert len(refused(capsys, "--workbook", str(path), "--check")) == 2
    path = sheets.write(tmp_path / "b.xlsx", {"SQuAD": [{"train_file": "no.json"}]})
    (line,) = refused(capsys, "--workbook", str(path), "--check")
    assert f"cell {sheets.cell_of('train_file')} (train_file): is 'no.json'; there is no such file" in line


def test_dry_run_prints_configurations_with_typed_numbers(capsys: pytest.CaptureFixture[str]) -> None:
    main(["--exp-id", "12", "--dry-run", "--set", "num_train_epochs=2", "--output-dir", "runs/try"])
    text = capsys.readouterr().out
    assert text.startswith("# SQuAD, EXP ID 12: runs/try\n")
    configuration = yaml.safe_load(text)
    assert configuration["model"]["optimizer"]["learning_rate"] == 3e-5
    assert configuration["trainer"]["max_epochs"] == 2
    main(["--exp-id", "12", "14-18", "--dry-run", "--output-dir", "runs/try"])
    documents = list(yaml.safe_load_all(capsys.readouterr().out))
    assert [document["trainer"]["default_root_dir"] for document in documents] == [
        f"runs/try/{number}" for number in (12, 14, 15, 16, 17, 18)
    ]


def test_rows_run_in_their_folders(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    runs: list[Any] = []
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(run_row, "run", lambda spec, folder, *rest: runs.append((spec.exp_id, str(folder), *rest)))
    main(["--exp-id", "12", "13", "--force", "--devices", "2", "--strategy", "ddp"])
    machine = {"devices": 2, "strategy": "ddp"}
    assert [row[:4] for row in runs] == [
        (12, "runs/SQuAD/12", True, machine),
        (13, "runs/SQuAD/13", True, machine),
    ]
    assert [row[4] for row in runs] == [
        f"python scripts/run_from_sheet.py --exp-id {number} --devices 2 --strategy ddp" for number in (12, 13)
    ]


def test_rows_that_others_build_on_run_first_and_once(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    runs: list[Any] = []
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(run_row, "run", lambda spec, folder, force, *_: runs.append((spec, str(folder), force)))
    main(["--all", "--sheet", "Demo", "--method", "l0", "--force", "--set", "precision=bf16-mixed"])
    assert [spec.exp_id for spec, _, _ in runs] == [1, 8, 9]
    assert [force for _, _, force in runs] == [False, True, True]
    assert {spec.model_name_or_path for spec, _, _ in runs[1:]} == {"runs/Demo/1/model"}
    assert {spec.precision for spec, _, _ in runs} == {"bf16-mixed"}
    runs.clear()
    main(["--exp-id", "8", "--output-dir", "runs/try", "--set", "learning_rate=1"])
    assert [folder for _, folder, _ in runs] == ["runs/try-needs-1", "runs/try"]
    assert runs[0][0].learning_rate != 1


def test_nothing_starts_while_a_cell_of_the_row_is_wrong(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path, sheets: SimpleNamespace
) -> None:
    monkeypatch.setattr(run_row, "run", lambda *_: pytest.fail("started"))
    path = sheets.write(
        tmp_path / "a.xlsx", {"SQuAD": [{}, {"exp_id": 2, "learning_rate": "0,1"}], "MNLI": [{"exp_id": 3}]}
    )
    (line,) = refused(capsys, "--workbook", str(path), "--exp-id", "2")
    assert line.startswith(f"error: {path}, sheet 'SQuAD', cell {sheets.cell_of('learning_rate', 3)} (learning_rate)")
    assert len(refused(capsys, "--exp-id", "12", "--train-file", "no.json", "--set", "seeds=1")) == 1
    assert "no such file" in refused(capsys, "--exp-id", "12", "--train-file", "no.json")[0]
    assert "did you mean 'topK'?" in refused(capsys, "--list", "--method", "topk")[0]
    assert "did you mean 'SQuAD'?" in refused(capsys, "--list", "--sheet", "Squad")[0]
    assert "choose one with --sheet" in refused(capsys, "--workbook", str(path), "--all")[0]


@pytest.mark.slow
@pytest.mark.parametrize("arguments", [["--list"], ["--check"], ["--exp-id", "12", "--dry-run"]])
def test_no_torch_and_no_pandas_is_imported(root: Path, arguments: list[str]) -> None:
    code = (
        "import sys; from splora.scripts.run_from_sheet import main; main(sys.argv[1:]); "
        "heavy = {'torch', 'lightning', 'transformers', 'pandas'}; "
        "print(sorted(heavy & {*sys.modules}), file=sys.stderr)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, *arguments], cwd=root, capture_output=True, text=True, check=True
    )
    assert done.stderr.strip() == "[]"


@pytest.mark.slow
def test_a_closed_pipe_ends_quietly(root: Path) -> None:
    # The reader is gone long before the first line is written.
    script = f"{sys.executable} scripts/run_from_sheet.py --list | true; exit ${{PIPESTATUS[0]}}"
    done = subprocess.run(["bash", "-c", script], cwd=root, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
