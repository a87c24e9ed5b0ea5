"""A run's folder from somebody else, or damaged: nothing outside of it is touched, and each damage is a sentence."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from splora.errors import InputError
from splora.files import appending, inside, replacing, replacing_folder
from splora.launch.worker import main as worker
from splora.locks import RUN_LOCK, holding, is_held
from splora.scripts.count import main as count
from splora.training.result_file import read_result
from splora.training.run import claim_folder, run
from splora.training.specification import RunSpecification

SPEC = RunSpecification(exp_id=12, sheet="SQuAD")
RESULT: dict[str, Any] = {"metrics": {"f1": 70.0}}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A finished run, with a file of somebody else beside it."""
    found = tmp_path / "runs" / "12"
    claim_folder(SPEC, found)
    (found / "result.json").write_text(json.dumps(RESULT), encoding="utf-8")
    (tmp_path / "thesis.json").write_text("years of work")
    return found


def test_force_removes_files_of_the_run_and_nothing_else(folder: Path, tmp_path: Path) -> None:
    mine = folder / "predictions.json"
    kept = [folder / "notes.txt", folder / "sub" / "a.json", tmp_path / "thesis.json"]
    kept[1].parent.mkdir()
    for path in (mine, *kept):
        path.write_text("x")
    strange = ["../../thesis.json", str(tmp_path / "thesis.json"), "notes.txt", "sub/a.json", "sub", "", "..", 5, None]
    names = ["predictions.json", *strange, "a\0b.json", "..\\..\\thesis.json", {"a": 1}]
    (folder / "result.json").write_text(json.dumps(RESULT | {"artifacts": names}), encoding="utf-8")
    assert claim_folder(SPEC, folder)
    assert not claim_folder(SPEC, folder, force=True)
    assert not mine.exists()
    assert all(path.exists() for path in kept)


@pytest.mark.parametrize(
    "name", ["..", ".", "", "a/..", "a/../../b", "/a", "a\\b", "C:a", "a\0", "link/a", None, 5, ["a"]]
)
def test_a_name_that_leads_out_is_none_inside(name: object, tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(tmp_path)
    assert inside(tmp_path, name) is None
    assert inside(tmp_path, "..a") == tmp_path / "..a"
    assert inside(tmp_path, "a/b") == tmp_path / "a" / "b"


DAMAGED = {
    "empty": b"",
    "cut": b'{"metrics": {"f1"',
    "a list": b"[1, 2]",
    "no metrics": b"{}",
    "metrics of another type": b'{"metrics": [1]}',
    "not UTF-8": b"\xff\xfe{}",
    "too deep": b'{"a":' * 50_000,
}


@pytest.mark.parametrize("content", DAMAGED.values(), ids=DAMAGED)
def test_a_damaged_result_is_a_sentence_and_no_obstacle_to_force(folder: Path, content: bytes) -> None:
    path = folder / "result.json"
    path.write_bytes(content)
    with pytest.raises(InputError, match=r"result\.json: ") as caught:
        claim_folder(SPEC, folder)
    (told,) = caught.value.problems
    assert "--force to start it anew" in told
    assert len(told) < 600
    with pytest.raises(InputError):
        read_result(folder)
    assert not claim_folder(SPEC, folder, force=True)
    assert not path.exists()


def test_strange_values_in_a_result_end_nothing(folder: Path) -> None:
    path = folder / "result.json"
    path.write_text(
        '\ufeff{"metrics": {"f1": 1e308, "n": ' + "9" * 5000 + '}, "artifacts": {}, "a": "\\ud800"}', "utf-8"
    )
    assert read_result(folder)["a"] == "\ufffd"
    assert claim_folder(SPEC, folder)
    assert not claim_folder(SPEC, folder, force=True)


@pytest.mark.parametrize("content", [b"", b"[]", b'"x"', b"{", b"\xff"])
def test_a_damaged_specification_is_a_sentence(folder: Path, content: bytes) -> None:
    (folder / "spec.json").write_bytes(content)
    with pytest.raises(InputError, match=r"spec\.json"):
        claim_folder(SPEC, folder)
    assert not claim_folder(SPEC, folder, force=True)


NAMES = ["checkpoints", "adapter", "masks", "tensorboard", "log.txt", "metrics.csv", "result.json", "state.json"]


@pytest.mark.parametrize("name", [*NAMES, "checkpoints/last.ckpt"])
@pytest.mark.parametrize("target", ["out", "dangling", "loop"])
def test_a_link_that_leads_out_is_refused_and_removed_by_force(
    folder: Path, tmp_path: Path, name: str, target: str
) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "last.ckpt").write_text("x")
    link = folder / name
    link.parent.mkdir(exist_ok=True)
    link.unlink(missing_ok=True)
    link.symlink_to({"out": outside, "dangling": tmp_path / "nowhere", "loop": link}[target])
    with pytest.raises(InputError, match=rf"{name}: is a link to "):
        claim_folder(SPEC, folder)
    assert not claim_folder(SPEC, folder, force=True)
    assert not link.is_symlink()
    assert (outside / "last.ckpt").read_text() == "x"
    assert not (tmp_path / "nowhere").exists()


def test_what_stands_where_a_run_writes_is_a_sentence(folder: Path) -> None:
    (folder / "checkpoints").touch()
    with pytest.raises(InputError, match="checkpoints: is a file where a run has a folder"):
        claim_folder(SPEC, folder)
    assert not claim_folder(SPEC, folder, force=True)
    (folder / "metrics.csv").mkdir()
    (folder / "metrics.csv" / "a").touch()
    for force in (False, True):
        with pytest.raises(InputError, match=r"metrics\.csv: "):
            claim_folder(SPEC, folder, force=force)


def test_links_and_impossible_names_of_folders_are_refused(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "real")
    with pytest.raises(InputError, match="link: is a link to"):
        claim_folder(SPEC, tmp_path / "link")
    claim_folder(SPEC, tmp_path / "link" / "12")  # folders above may be links
    with pytest.raises(InputError, match="cannot be used"):
        claim_folder(SPEC, tmp_path / ("x" * 300))


def test_what_other_commands_are_writing_in_the_folder_stays(folder: Path) -> None:
    (folder / "checkpoints").mkdir()
    (folder / "result.json").unlink()
    left = [folder / ".spec.json.0123abcd.tmp", folder / "checkpoints" / ".last.ckpt.0123abcd.tmp"]
    others = folder / ".pruned.0123abcd.tmp"
    for path in (*left, others):
        path.touch()
    claim_folder(SPEC, folder)
    assert [path.exists() for path in (*left, others)] == [False, False, True]


@pytest.mark.parametrize("kind", ["link", "hard link", "other file", "pipe", "folder"])
def test_a_lock_is_never_written_over_something_else(tmp_path: Path, kind: str) -> None:
    thesis, lock = tmp_path / "thesis.tex", tmp_path / RUN_LOCK
    thesis.write_text("years of work")
    {
        "link": lambda: lock.symlink_to(thesis),
        "hard link": lambda: lock.hardlink_to(thesis),
        "other file": lambda: lock.write_text("years of work"),
        "pipe": lambda: os.mkfifo(lock),
        "folder": lock.mkdir,
    }[kind]()
    with pytest.raises(InputError, match=r"is a link|is no lock|cannot be written"), holding(lock, "it"):
        pass
    assert not is_held(lock)
    assert thesis.read_text() == "years of work"


def test_a_lock_of_a_dead_process_and_an_empty_one_are_taken(tmp_path: Path) -> None:
    for content in ("", "4711 host\n"):
        (tmp_path / RUN_LOCK).write_text(content)
        with holding(tmp_path / RUN_LOCK, "it"):
            assert is_held(tmp_path / RUN_LOCK)
            assert (tmp_path / RUN_LOCK).read_text().startswith(f"{os.getpid()} ")


def test_files_and_folders_are_not_written_through_links(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "real.txt").write_text("old")
    (tmp_path / "link").symlink_to(tmp_path / "real")
    (tmp_path / "link.txt").symlink_to(tmp_path / "real.txt")
    with pytest.raises(InputError, match="link: is a link"), replacing_folder(tmp_path / "link"):
        pass
    with pytest.raises(InputError, match=r"link\.txt: is a link"):
        appending(tmp_path / "link.txt")
    with replacing(tmp_path / "link.txt") as beside:
        beside.write_text("new")
    assert (tmp_path / "link").is_symlink()
    assert (tmp_path / "real.txt").read_text() == "old"
    assert not (tmp_path / "link.txt").is_symlink()


@pytest.mark.parametrize("content", ["[1]", '{"no field": 1}', '{"exp_id": 12'])
def test_a_worker_says_what_became_of_its_row(folder: Path, content: str, capsys: pytest.CaptureFixture[str]) -> None:
    (folder / "spec.json").write_text(content)
    assert worker([str(folder)]) == 2
    assert "spec.json: is not the specification of a run" in capsys.readouterr().err


ADAPTER: dict[str, Callable[[Path], object]] = {
    "weights cut": lambda folder: os.truncate(folder / "adapter/adapter_model.safetensors", 300),
    "no weights": lambda folder: (folder / "adapter/adapter_model.safetensors").unlink(),
    "weights of something else": lambda folder: (folder / "adapter/adapter_model.safetensors").write_bytes(b"x" * 99),
    "no configuration": lambda folder: (folder / "adapter/adapter_config.json").unlink(),
    "a list": lambda folder: (folder / "adapter/adapter_config.json").write_text("[]"),
    "another adapter": lambda folder: change(folder / "adapter/adapter_config.json", peft_type="NONE"),
    "blocks of nothing": lambda folder: change(
        folder / "adapter/adapter_config.json", block_shapes={}, block_shape=[0, 0]
    ),
    "prototypes without end": lambda folder: change(folder / "adapter/adapter_config.json", num_prototypes=10**12),
    "no settings": lambda folder: change(folder / "result.json", settings=None),
    "settings of another shape": lambda folder: change(folder / "result.json", settings={"model": {"task": [1]}}),
    "no base": lambda folder: change(folder / "result.json", settings={"model": {"task": "squad"}}),
    "a base that is no name": lambda folder: change(
        folder / "result.json",
        settings={"model": {"task": "squad", "model_name_or_path": {}, "label2id": 5, "seed": "x"}},
    ),
}


def change(path: Path, **values: object) -> None:
    """Replace values of a JSON file."""
    path.write_text(json.dumps(json.loads(path.read_text(encoding="utf-8")) | values), encoding="utf-8")


def test_damaged_weights_are_a_sentence_of_count(
    tiny_spec: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    saved = tmp_path / "saved"
    run(tiny_spec(max_steps=2, adapter="splopa", pruning_method="topK"), saved)
    for name, damage in ADAPTER.items():
        folder = tmp_path / name
        shutil.copytree(saved, folder)
        damage(folder)
        with pytest.raises(InputError) as caught:
            count([str(folder), str(saved)])
        assert len(caught.value.problems) == 1, name
        assert len(caught.value.problems[0]) < 500, name
        assert capsys.readouterr().out.splitlines()[-1].startswith(f"{saved} "), name  # the other one is counted
