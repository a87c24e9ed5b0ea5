"""Latency tables as files: written, read, refused where they are broken or hold elsewhere; and what a budget leaves."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest

from splora.errors import InputError
from splora.posttraining.latency.conditions import Conditions
from splora.posttraining.latency.table import (
    Kind,
    LatencyTable,
    budget_milliseconds,
    check,
    model_milliseconds,
    read_table,
    stretch,
)

HELD = Conditions("cpu: a processor", 2, "float32", 32, 128, "bert", 64, 16, 3, 4, 256, "2.13.0", 0, "2025-01-01")


def table(kind: Kind, source: str = "", **changed: Any) -> LatencyTable:
    """A table of 3 layers: 1 ms without units, then 4 heads of 2 ms or 256 neurons of 12 ms in all."""
    sizes, times = ((0, 1, 2, 3, 4), (1.0, 3.0, 5.0, 7.0, 9.0)) if kind == "mha" else ((0, 128, 256), (1.0, 7.0, 13.0))
    return dataclasses.replace(LatencyTable(kind, sizes, times, 70.0, 10.0, HELD, source or f"{kind}.json"), **changed)


def broken(folder: Path, **changed: Any) -> Path:
    """An mha file with other values; None leaves a key out."""
    path = folder / "mha.json"
    table("mha").save(path)
    content = json.loads(path.read_text(encoding="utf-8"))
    for name, value in changed.items():
        of, _, key = name.rpartition("__")
        (content[of] if of else content)[key] = value
        if value is None:
            del (content[of] if of else content)[key]
    path.write_text(json.dumps(content), encoding="utf-8")
    return path


@pytest.mark.parametrize("kind", ["mha", "ffn"])
def test_a_table_is_read_as_it_was_written(kind: Kind, tmp_path: Path) -> None:
    table(kind).save(tmp_path / "luts" / "table.json")
    read = read_table(tmp_path / "luts" / "table.json", kind)
    assert read == table(kind, source=str(tmp_path / "luts" / "table.json"))


def test_costs_and_fit_begin_at_a_block_without_units() -> None:
    assert table("mha").costs == (0.0, 2.0, 4.0, 6.0, 8.0)
    assert table("mha").fit().at(4) == pytest.approx(8.0)
    assert table("ffn").fit().at(256) == pytest.approx(12.0)
    noisy = table("mha", milliseconds=(1.0, 0.5, 5.0, 7.0, 9.0))
    assert noisy.costs[:2] == (0.0, 0.0)


def test_a_budget_is_what_the_blocks_by_themselves_may_take() -> None:
    tables = table("mha"), table("ffn")
    assert stretch(*tables) == pytest.approx((70 - 10) / (3 * (8 + 12)))
    assert budget_milliseconds(0.6, *tables) == pytest.approx(0.6 * 70 - 10)
    stretched = table("mha", model_milliseconds=76.0), table("ffn", model_milliseconds=76.0)
    assert stretch(*stretched) == pytest.approx(1.1)
    assert budget_milliseconds(0.5, *stretched) == pytest.approx((38 - 10) / 1.1)
    assert model_milliseconds(budget_milliseconds(0.5, *stretched), *stretched) == pytest.approx(38)


def test_a_budget_below_the_overhead_tells_the_smallest() -> None:
    with pytest.raises(InputError, match=r"0.1 allows 7 of 70 ms.*alone take 10 ms; the smallest possible.* 0.143"):
        budget_milliseconds(0.1, table("mha"), table("ffn"))
    assert budget_milliseconds(0.143, table("mha"), table("ffn")) >= 0


def test_what_differs_here_is_told_file_by_file() -> None:
    now = dataclasses.replace(HELD, device="cuda: a card", dtype="bfloat16", batch_size=8, layers=6, threads=1)
    with pytest.raises(InputError) as raised:
        check(table("mha"), table("ffn"), now)
    problems = raised.value.problems
    assert len(problems) == 8
    assert problems[0].startswith("mha.json: was measured on the device 'cpu: a processor'; here it is 'cuda: a card';")
    assert any("ffn.json: was measured with a batch size of 32; here it is 8" in problem for problem in problems)
    assert not any("threads" in problem for problem in problems)


@pytest.mark.parametrize(
    "changed", [{"threads": 1}, {"sequence_length": 64}, {"model_type": "opt"}, {"neurons": 128}, {"head_size": 8}]
)
def test_each_condition_counts(changed: dict[str, Any]) -> None:
    with pytest.raises(InputError, match=r"ffn\.json: was measured"):
        check(table("mha"), table("ffn"), dataclasses.replace(HELD, **changed))


def test_another_torch_is_a_warning_and_another_day_is_nothing() -> None:
    assert check(table("mha"), table("ffn"), dataclasses.replace(HELD, date="2025-02-02", seed=1)) == []
    warnings = check(table("mha"), table("ffn"), dataclasses.replace(HELD, torch="2.14.0"))
    assert warnings[0] == "mha.json: was measured with torch 2.13.0; here it is 2.14.0, and latencies may differ."
    assert len(warnings) == 2


def test_files_of_two_measurements_do_not_go_together() -> None:
    with pytest.raises(InputError, match=r"come from two measurements .*70 and 71 ms"):
        check(table("mha"), table("ffn", model_milliseconds=71.0), HELD)


@pytest.mark.parametrize(
    ("changed", "told"),
    [
        ({"sizes": None}, "key 'sizes' is missing"),
        ({"milliseconds": None, "milisecond": []}, "key 'milliseconds' is missing; did you mean 'milisecond'"),
        ({"kind": "ffn"}, "key 'kind' is 'ffn'; a table of kind 'mha' \\(heads\\) is wanted"),
        ({"sizes": [0, 2, 1, 3, 4]}, "key 'sizes' must hold whole numbers in ascending order"),
        ({"sizes": [1, 2, 3, 4, 5]}, "key 'sizes' must hold whole numbers in ascending order, from 0 on"),
        ({"sizes": [0, 1, 2, 3, 5]}, "key 'sizes' ends with 5; the model had 4 heads per layer"),
        ({"milliseconds": [1, 2, 3, 4, 0]}, "key 'milliseconds' must hold positive numbers"),
        ({"milliseconds": [1, 2, 3, 4]}, "key 'milliseconds' holds 4 numbers for the 5 of 'sizes'"),
        ({"milliseconds": "fast"}, "key 'milliseconds' must hold positive numbers"),
        ({"model_milliseconds": -1}, "key 'model_milliseconds' is -1"),
        ({"overhead_milliseconds": 80}, "key 'overhead_milliseconds' is 80; it must be less than"),
        ({"measured_with": 3}, "key 'measured_with' must hold an object"),
        ({"measured_with__threads": "two"}, "key 'measured_with.threads' is 'two'; it must be a whole number"),
        ({"measured_with__dtype": None}, "key 'measured_with.dtype' is missing"),
    ],
)
def test_broken_files_are_refused_by_file_and_key(changed: dict[str, Any], told: str, tmp_path: Path) -> None:
    path = broken(tmp_path, **changed)
    with pytest.raises(InputError, match=told) as raised:
        read_table(path, "mha")
    assert all(problem.startswith(f"{path}: ") for problem in raised.value.problems)


@pytest.mark.parametrize(
    ("text", "told"), [("{", "the latency table is not JSON"), ("[1]", "the latency table holds no JSON object")]
)
def test_what_is_no_table_is_refused(text: str, told: str, tmp_path: Path) -> None:
    (tmp_path / "mha.json").write_text(text, encoding="utf-8")
    with pytest.raises(InputError, match=told):
        read_table(tmp_path / "mha.json", "mha")


def test_a_missing_file_is_named() -> None:
    with pytest.raises(InputError, match=r"no\.json: the latency table is not there"):
        read_table("no.json", "mha")
