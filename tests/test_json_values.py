"""Settings and measurements as JSON: what is read, and what is refused in a moment."""

from __future__ import annotations

import json
import time
from pathlib import Path

import pytest

from splora.json_values import LARGEST_CONTENT, LARGEST_FILE, read_object
from splora.reading import json_cost


def test_the_plan_of_a_model_of_seven_billion_weights_is_read(tmp_path: Path) -> None:
    layer = {"heads_kept": 32, "heads_of": 32, "heads": [*range(32)], "neurons": [*range(16_384)]}
    text = json.dumps({"layers": [layer] * 32}, indent=2)
    assert (7_000_000 < len(text) < LARGEST_FILE, json_cost(text) < LARGEST_CONTENT / 2) == (True, True)
    (tmp_path / "plan.json").write_text(text, encoding="utf-8")
    read = read_object(tmp_path / "plan.json")
    assert read is not None
    assert read["layers"][31]["neurons"][-1] == 16_383


@pytest.mark.parametrize("part", ["[],", "{},", '"",', "[[]],", "0,"])
@pytest.mark.parametrize("size", [LARGEST_FILE - 100, 60_000_000])
def test_what_would_take_all_memory_is_refused_in_a_moment(tmp_path: Path, part: str, size: int) -> None:
    path = tmp_path / "config.json"
    path.write_text(f'{{"a": [{part * (size // len(part))}0]}}', encoding="utf-8")
    begun = time.process_time()
    with pytest.raises(ValueError, match="set SPLORA_LIMITS=4 to allow four times as much"):
        read_object(path)
    assert time.process_time() - begun < 2


def test_limits_are_raised_by_the_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "result.json"
    path.write_text(json.dumps({"a": " " * LARGEST_FILE}), encoding="utf-8")
    with pytest.raises(ValueError, match="has 16 MB; at most 16 MB are read"):
        read_object(path)
    monkeypatch.setenv("SPLORA_LIMITS", "2")
    assert len((read_object(path) or {})["a"]) == LARGEST_FILE
