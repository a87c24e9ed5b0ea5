"""Files are old or new, never half; mistakes leave with 2 and one sentence."""

from __future__ import annotations

import json
import os
import signal
from pathlib import Path

import pytest

from splora.errors import DiskFull, InputError, exit_on_input_error, in_words_of_command, nearest
from splora.files import remove_leftovers, replacing, replacing_folder, write_json, write_text
from splora.interruption import ending_tidily
from splora.locks import claiming, is_held


def test_a_failed_write_leaves_the_old_file_and_no_scraps(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    write_text(path, "old")

    def write_half() -> None:
        with replacing(path) as beside:
            beside.write_text("half")
            raise RuntimeError("killed")

    with pytest.raises(RuntimeError, match="killed"):
        write_half()
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]
    write_json(path, {"ä": 1})
    assert json.loads(path.read_text(encoding="utf-8")) == {"ä": 1}
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("error", [OSError(5, "Input/output error"), KeyboardInterrupt()])
def test_a_folder_that_nothing_can_replace_is_put_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: BaseException
) -> None:
    path = tmp_path / "model"
    write_text(path / "a.txt", "old")
    rename = Path.rename

    def fails_for_the_new_one(self: Path, target: Path) -> Path:
        if self.name.endswith(".tmp"):
            raise error
        return rename(self, target)

    def replace() -> None:
        with replacing_folder(path) as beside:
            write_text(beside / "a.txt", "new")
            monkeypatch.setattr(Path, "rename", fails_for_the_new_one)

    with pytest.raises(InputError if isinstance(error, OSError) else KeyboardInterrupt):
        replace()
    assert (path / "a.txt").read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]
    monkeypatch.undo()
    with replacing_folder(path) as beside:
        write_text(beside / "a.txt", "new")
    assert (path / "a.txt").read_text() == "new"
    assert list(tmp_path.iterdir()) == [path]


def test_what_a_kill_left_behind_is_removed_or_put_back(tmp_path: Path) -> None:
    for name in ("model", ".model.0123abcd.tmp", ".model.0123abcd.old", ".adapter.0123abcd.old"):
        write_text(tmp_path / name / "a.txt", name)
    (tmp_path / ".a.txt.0123abcd.tmp").touch()
    remove_leftovers(tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["adapter", "model"]
    assert (tmp_path / "model" / "a.txt").read_text() == "model"


def test_what_a_living_process_writes_is_no_leftover(tmp_path: Path) -> None:
    write_text(tmp_path / ".killed.0123abcd.tmp" / "a.txt", "x")
    write_text(tmp_path / ".model.0123abcd.notes" / "a.txt", "of somebody else")
    (tmp_path / ".link.0123abcd.tmp").symlink_to(tmp_path / ".model.0123abcd.notes")
    with replacing_folder(tmp_path / "model") as beside, replacing(tmp_path / "a.txt") as file:
        write_text(beside / "a.txt", "new")
        file.write_text("new")
        remove_leftovers(tmp_path)
    left = sorted(path.name for path in tmp_path.iterdir())
    assert left == [".model.0123abcd.notes", "a.txt", "model"]
    assert (tmp_path / ".model.0123abcd.notes" / "a.txt").read_text() == "of somebody else"


def test_a_claimed_folder_has_one_owner_and_leaves_nothing(tmp_path: Path) -> None:
    lock = tmp_path / "new" / "deep" / ".out.lock"
    with claiming(lock, "out: another command is writing here"):
        assert is_held(lock)
        for _ in range(2):
            with (
                pytest.raises(InputError, match=rf"^out: another.* \(process {os.getpid()} on host .*\); wait"),
                claiming(lock, "out: another command is writing here"),
            ):
                pass
    assert not list(tmp_path.iterdir())
    lock.parent.mkdir(parents=True)
    lock.write_text("99999999 nowhere\n")  # a killed one's
    with pytest.raises(RuntimeError), claiming(lock, "out"):  # noqa: PT012
        write_text(lock.parent / "kept.txt", "x")
        raise RuntimeError
    assert [path.name for path in lock.parent.iterdir()] == ["kept.txt"]


def test_problems_are_told_in_the_words_of_the_command() -> None:
    with (
        pytest.raises(DiskFull, match=r"^give --data$"),
        in_words_of_command({"--train-file and --predict-file": "--data", "--train-file": "no"}),
    ):
        raise DiskFull("give --train-file and --predict-file")


@pytest.mark.usefixtures("heard_signals")
@pytest.mark.parametrize("kind", [signal.SIGINT, signal.SIGHUP, signal.SIGTERM])
def test_a_signal_unwinds_and_ends_with_its_number(
    kind: signal.Signals, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = signal.getsignal(kind)

    def write() -> None:
        with ending_tidily(), claiming(tmp_path / ".a.lock", "a"), replacing_folder(tmp_path / "a") as beside:
            write_text(beside / "half.txt", "x")
            os.kill(os.getpid(), kind)
            os.kill(os.getpid(), kind)  # as a closed terminal does

    with pytest.raises(SystemExit) as left:
        write()
    assert left.value.code == 128 + kind
    assert not list(tmp_path.iterdir())
    (line,) = capsys.readouterr().err.strip().splitlines()
    assert line.startswith("stopped (")
    assert signal.getsignal(kind) == before


def test_what_cannot_be_written_is_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match=r"file/a\.txt: cannot be written"):
        write_text(tmp_path / "file" / "a.txt", "x")


def test_json_that_no_utf8_can_hold_is_written_all_the_same(tmp_path: Path) -> None:
    value = {"half \ud83d": ["\udcff", "ä", float("inf")]}
    write_json(tmp_path / "a.json", value)
    assert json.loads((tmp_path / "a.json").read_text(encoding="utf-8")) == value


def test_a_full_disk_is_one_sentence() -> None:
    full = Path("/dev/full")
    if not full.exists():
        pytest.skip("this system has no /dev/full")
    with pytest.raises(InputError, match=r"cannot be written \(No space left on device\)"), replacing("/tmp/x"):
        full.write_text("x")


def test_the_nearest_name_is_offered() -> None:
    assert nearest("topk", ["magnitude", "topK"]) == "; did you mean 'topK'?"
    assert nearest("xyz", ["magnitude", "topK"]) == ""


def test_problems_are_printed_and_end_with_2(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as left, exit_on_input_error():
        raise InputError(["first.", "second."])
    assert left.value.code == 2
    assert capsys.readouterr().err == "error: first.\nerror: second.\n"
