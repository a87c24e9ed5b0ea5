"""The picture and the table hold every finished run."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from splora.errors import InputError
from splora.report.density import draw, read_points, table
from splora.scripts.plot import main


def _run(folder: Path, exp_id: int, **changes: Any) -> None:
    folder.mkdir(parents=True)
    result = {
        "exp_id": exp_id,
        "method": "topK",
        "adapter": "splopa",
        "metrics": {"f1": 70.125, "exact_match": 60.0},
        "remaining_weights_percent": 50.0,
        "learned_weights_percent": 3.25,
        "adapter_bytes": 2**20,
        "seconds": 90,
    }
    (folder / "result.json").write_text(json.dumps(result | changes), encoding="utf-8")


def test_every_run_is_in_table_and_picture(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    _run(tmp_path / "SQuAD" / "11", 11, remaining_weights_percent=30.0)
    _run(tmp_path / "SQuAD" / "2", 2)
    _run(tmp_path / "SQuAD" / "1", 1, method="none", adapter="none", metrics={"f1": 75.0})
    main([str(tmp_path), "--output", str(tmp_path / "f1.png"), "--title", "SQuAD"])
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "| EXP ID | method | adapter | exact_match | f1 | remaining % | learned % | stored | minutes |"
    assert lines[2] == "| 1 | dense | none | – | 75.00 | 50.0 | 3.25 | 1.00 MiB | 1.5 |"
    assert [line.split(" | ")[0] for line in lines[2:5]] == ["| 1", "| 2", "| 11"]
    assert (tmp_path / "f1.png").read_bytes().startswith(b"\x89PNG")


def test_what_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no finished run is below"):
        read_points(tmp_path)
    _run(tmp_path / "1", 1)
    with pytest.raises(InputError, match="no run has 'accuracy'; they have exact_match, f1"):
        draw(read_points(tmp_path), "accuracy", tmp_path / "x.png")
    assert table(read_points(tmp_path), ["f1"]).count("\n") == 2
    (tmp_path / "1" / "result.json").write_text("{}", encoding="utf-8")
    with pytest.raises(InputError, match="is not the result of a run"):
        read_points(tmp_path)
