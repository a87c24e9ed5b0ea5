"""Run folders in which anything may stand: --status, plot, report and count end in lines and sentences, in no crash."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.numpy import save_file

from splora.errors import InputError
from splora.json_values import LARGEST_NUMBER, impossible, number, one_line, read_object
from splora.launch.status import print_status
from splora.report.build import write_report
from splora.report.charts import Axis, Chart, Series
from splora.report.collect import collect
from splora.report.density import draw, read_points, table
from splora.report.svg import draw as draw_svg
from splora.scripts.cli import main as splora
from splora.scripts.run_from_sheet import main as sheet
from tests.report.made_up import pruning, spec_of, training_run, write

STRANGE: list[Any] = [
    *(None, True, "x", "\ud800", "\x1b[2J\nx", "9" * 5000, [], [1], {}, {"a": []}, [[]]),
    *(float("nan"), float("inf"), 1e308, -1e308, 1e-320, -1, 0, 10**400, 2**63, 0.5),
]
FILES = ("result.json", "spec.json", "state.json", "metrics.csv", "plan.json", "adapter/adapter_config.json")
WEIGHTS = "adapter/adapter_model.safetensors"


def folders(root: Path) -> list[Path]:
    """A finished run with its masks, one under way, and a pruning, each with every file."""
    run = training_run(root / "SQuAD" / "1", 1)
    mask = "base_model.model.bert.encoder.layer.0.attention.self.query.splopa_mask"
    norm = "base_model.model.bert.encoder.layer.0.attention.output.LayerNorm.weight"
    (run / "adapter").mkdir()
    save_file({mask: np.array([0b1010_0000], np.uint8), norm: np.ones(12, np.float32)}, run / WEIGHTS)
    write(run / "adapter" / "adapter_config.json", {"block_shape": [6, 6], "block_shapes": {}})
    under_way = root / "SQuAD" / "2"
    write(under_way / "spec.json", spec_of(2))
    state = {"state": "running", "exp_id": 2, "sheet": "SQuAD", "step": 5, "steps": 10, "loss": 0.5, "density": 0.5}
    state |= {"since": "2025-01-01T00:00:00+00:00", "pid": 1, "host": "x", "log": "log.txt", "seconds_left": 5.0}
    for folder in (run, under_way):
        write(folder / "state.json", state)
    return [run, under_way, pruning(root / "sst2", 0.5, 88.5, 62.5)]


def look(root: Path, capsys: pytest.CaptureFixture[str]) -> str:
    """All that looks at runs, without what draws by matplotlib; each ends in lines or in sentences."""
    told = []
    for command in (
        lambda: print_status(root),
        lambda: write_report(root, root / "report.html"),
        lambda: print(table(read_points(root), ["f1", "exact_match"])),
    ):
        try:
            done = command()
            told += getattr(done, "notices", ())
        except InputError as error:
            told += error.problems
    said = capsys.readouterr().out
    said.encode()
    assert all(len(line) < 1500 for line in [*said.splitlines(), *told])
    assert "\x1b" not in said
    return said


def changed(value: Any, draw: Callable[..., Any]) -> Any:
    """A JSON value with one of its parts replaced, removed or added."""
    if isinstance(value, dict) and value and draw(st.integers(0, 3)):
        name = draw(st.sampled_from(sorted(value)))
        if draw(st.integers(0, 5)) == 0:
            return {key: of for key, of in value.items() if key != name}
        return value | {name: changed(value[name], draw)}
    if isinstance(value, list) and value and draw(st.booleans()):
        return [changed(value[0], draw), *value[1:]]
    return draw(st.sampled_from(STRANGE))


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.data())
def test_no_damage_ends_in_a_crash(
    tmp_path_factory: pytest.TempPathFactory, capsys: pytest.CaptureFixture[str], data: st.DataObject
) -> None:
    root = tmp_path_factory.mktemp("runs")
    for folder in folders(root):
        for file in (*FILES, WEIGHTS):
            path = folder / file
            if not path.exists() or data.draw(st.integers(0, 2)):
                continue
            content = path.read_bytes()
            how = data.draw(st.sampled_from(["cut", "flip", "remove", "folder", "strange", "strange", "strange"]))
            if how == "strange" and file.endswith(".json"):
                value = json.loads(content)
                for _ in range(data.draw(st.integers(1, 3))):
                    value = changed(value, data.draw)
                path.write_text(json.dumps(value), encoding="utf-8")
            elif how == "strange" and file.endswith(".csv"):
                cells = data.draw(
                    st.lists(st.sampled_from(["1e308", "nan", "", "x", "1e-320", '"', "\0", "-1"]), max_size=9)
                )
                path.write_text(f"{content.decode()}{','.join(cells)}\n9,1e308,1,2,3,4\n", encoding="utf-8")
            elif how in ("cut", "strange"):
                path.write_bytes(content[: data.draw(st.integers(0, len(content)))])
            elif how == "flip":
                at = data.draw(st.integers(0, len(content) - 1))
                path.write_bytes(
                    content[:at] + bytes([content[at] ^ data.draw(st.integers(1, 255))]) + content[at + 1 :]
                )
            else:
                path.unlink()
                if how == "folder":
                    path.mkdir()
    look(root, capsys)


@pytest.mark.parametrize("file", [*FILES, WEIGHTS])
@pytest.mark.parametrize("kind", ["empty", "list", "deep", "UTF-16", "pipe", "dangling link", "sparse"])
def test_what_stands_in_a_file_s_place_ends_in_a_sentence(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], file: str, kind: str
) -> None:
    for folder in folders(tmp_path):
        path = folder / file
        if not path.exists() or (kind == "sparse" and not file.endswith(".json")):
            continue
        path.unlink()
        {
            "empty": path.touch,
            "list": lambda path=path: path.write_text("[1, 2]"),
            "deep": lambda path=path: path.write_text("[" * 100_000),
            "UTF-16": lambda path=path: path.write_bytes("{}".encode("utf-16")),
            "pipe": lambda path=path: os.mkfifo(path),
            "dangling link": lambda path=path: path.symlink_to("nowhere"),
            "sparse": lambda path=path: (path.touch(), os.truncate(path, 2**40)),
        }[kind]()
    look(tmp_path, capsys)


@pytest.mark.parametrize("content", ["", "[]", '{"metrics": 1}', '{"metrics"'])
def test_a_damaged_result_is_told_as_such_and_hides_no_other_run(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, content: str
) -> None:
    training_run(tmp_path / "1", 1)
    path = training_run(tmp_path / "2", 2) / "result.json"
    path.write_text(content)
    sheet(["--status", "--output-dir", str(tmp_path)])
    said = capsys.readouterr().out
    assert f"{path}: " in said
    assert said.splitlines()[-1] == "1 finished, 1 unreadable."
    monkeypatch.chdir(tmp_path)
    splora(["plot", ".", "--output", "a.png"])
    told = capsys.readouterr()
    assert told.out.splitlines()[-1] == "a.png: 1 runs."
    assert told.err.startswith("warning: 2/result.json: ")
    with pytest.raises(SystemExit) as ended:
        splora(["count", "2", "nowhere"])
    assert ended.value.code == 2
    assert [line.partition(":")[0] for line in capsys.readouterr().err.splitlines()] == ["error", "error"]


def test_numbers_that_no_measurement_gives_are_left_out_and_told(tmp_path: Path) -> None:
    training_run(tmp_path / "1", 1, metrics={"f1": 1e308, "exact_match": 60.0}, seconds=float("nan"))
    found = collect(tmp_path)
    assert found.runs[0].metrics == {"exact_match": 60.0}
    (notice,) = found.notices
    assert "metrics.f1 is 1e+308, seconds is nan; such numbers are left out" in notice
    assert write_report(tmp_path, tmp_path / "a.html").runs == 1


_VALUES = st.floats(-LARGEST_NUMBER, LARGEST_NUMBER) | st.sampled_from(
    [0.0, LARGEST_NUMBER, -LARGEST_NUMBER, 1e-30, 5e-324]
)


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(_VALUES, _VALUES), min_size=1, max_size=5), st.booleans(), st.booleans())
def test_every_number_has_a_place_on_an_axis(points: list[tuple[float, float]], x_log: bool, y_log: bool) -> None:
    kept = [(number(x) or 0.0, number(y) or 0.0) for x, y in points]
    if (x_log and min(x for x, _ in kept) <= 0) or (y_log and min(y for _, y in kept) <= 0):
        return
    series = Series("a", tuple(kept), 0, line=tuple(kept))
    drawn = draw_svg(Chart("a", "a", "a", Axis("x, %", x_log), Axis("y", y_log), (series,)))
    assert "nan" not in drawn
    assert "inf" not in drawn.replace("info", "")


def test_pictures_of_the_largest_numbers_are_drawn(tmp_path: Path) -> None:
    for exp_id, value in enumerate((LARGEST_NUMBER, -LARGEST_NUMBER, 1e-30)):
        metrics = {"f1": value, "exact_match": 1.0}
        training_run(tmp_path / str(exp_id), exp_id, metrics=metrics, remaining_weights_percent=value)
    draw(read_points(tmp_path), "f1", tmp_path / "a.png")
    write_report(tmp_path, tmp_path / "a.html", pictures=tmp_path / "pictures")


@given(st.recursive(st.sampled_from(STRANGE), lambda of: st.dictionaries(st.text(max_size=3), of, max_size=3)))
def test_values_come_back_printable(tmp_path_factory: pytest.TempPathFactory, value: Any) -> None:
    path = tmp_path_factory.mktemp("json") / "a.json"
    write(path, {"a": value})
    found = read_object(path)
    assert found is not None
    one_line(str(found)).encode()
    assert all(len(told) < 120 for told in impossible(found))
