"""The cache of prepared arrays."""

from __future__ import annotations

import logging
import os
import shutil
import subprocess
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from safetensors import SafetensorError

from splora.errors import DiskFull
from splora.tasks.cache import Arrays, cached, default_folder, digest, load, save


def arrays(seed: int = 0) -> Arrays:
    rng = np.random.default_rng(seed)
    return {
        "ids": rng.integers(0, 9, 40).astype(np.int32),
        "none": np.zeros(0, np.int64),
        "columns": rng.integers(0, 9, (8, 2)).astype(np.int32)[:, 0],  # not contiguous
    }


def equal(a: Arrays, b: Arrays) -> bool:
    return a.keys() == b.keys() and all(np.array_equal(a[k], b[k]) and a[k].dtype == b[k].dtype for k in a)


def never() -> Arrays:
    raise AssertionError("made again")


def test_made_once_and_read_back(tmp_path: Path) -> None:
    assert equal(cached(tmp_path / "new", "squad", "key", arrays), arrays())
    assert equal(cached(tmp_path / "new", "squad", "key", never), arrays())
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["squad-key.safetensors"]


def test_another_key_is_made_anew(tmp_path: Path) -> None:
    cached(tmp_path, "squad", "a", arrays)
    assert equal(cached(tmp_path, "squad", "b", lambda: arrays(1)), arrays(1))
    assert equal(cached(tmp_path, "squad", "a", never), arrays())


@pytest.mark.parametrize("damage", ["cut", "empty", "flipped", "text", "header"])
def test_a_damaged_file_is_made_again(tmp_path: Path, caplog: pytest.LogCaptureFixture, damage: str) -> None:
    cached(tmp_path, "squad", "key", arrays)
    path = tmp_path / "squad-key.safetensors"
    content = bytearray(path.read_bytes())
    if damage == "flipped":
        content[-3] ^= 1
    changed = {"cut": content[:-3], "empty": b"", "text": b"not arrays", "header": b"\xff" * 64 + content[64:]}
    path.write_bytes(bytes(changed.get(damage, content)))
    with caplog.at_level(logging.WARNING):
        assert equal(cached(tmp_path, "squad", "key", arrays), arrays())
    assert "made again" in caplog.text
    assert equal(cached(tmp_path, "squad", "key", never), arrays())


def test_a_file_of_another_program_is_made_again(tmp_path: Path) -> None:
    from safetensors.numpy import save_file

    save_file({"ids": np.zeros(3, np.int32)}, tmp_path / "squad-key.safetensors")
    assert equal(cached(tmp_path, "squad", "key", arrays), arrays())


def test_many_at_once_leave_one_whole_file(tmp_path: Path) -> None:
    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(lambda _: cached(tmp_path, "squad", "key", arrays), range(32)))
    assert all(equal(one, arrays()) for one in found)
    assert [path.name for path in tmp_path.iterdir()] == ["squad-key.safetensors"]


def test_a_folder_that_cannot_be_written_costs_only_time(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "file").write_text("in the way")
    with caplog.at_level(logging.WARNING):
        assert equal(cached(tmp_path / "file", "squad", "key", arrays), arrays())
    assert "are not kept" in caplog.text


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A folder on a disk of 16 kB."""
    if os.geteuid() != 0 or shutil.which("mount") is None:
        pytest.skip("no small disk: to mount one takes root")
    folder = tmp_path / "disk"
    folder.mkdir()
    done = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=16k", "tmpfs", str(folder)], check=False)
    if done.returncode != 0:
        pytest.skip("no small disk: a container's root without the right to mount")
    yield folder
    subprocess.run(["umount", "--lazy", str(folder)], check=True)


def large() -> Arrays:
    return {"ids": np.zeros(100_000, np.int32)}


def test_a_full_disk_under_the_cache_costs_only_time(small_disk: Path, caplog: pytest.LogCaptureFixture) -> None:
    for _ in range(2):
        with caplog.at_level(logging.WARNING):
            assert equal(cached(small_disk, "squad", "key", large), large())
        assert "Prepared data are not kept: " in caplog.text
        assert "No space left on device" in caplog.text
    assert not [path for path in small_disk.rglob("*") if path.is_file()]
    with pytest.raises(DiskFull):
        save(small_disk / "a.safetensors", large())


def test_what_safetensors_cannot_write_costs_only_time(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*arguments: object, **options: object) -> None:
        raise SafetensorError("Error while serializing: I/O error: No space left on device (os error 28)")

    monkeypatch.setattr("safetensors.numpy.save_file", refuse)
    with caplog.at_level(logging.WARNING):
        assert equal(cached(tmp_path, "squad", "key", arrays), arrays())
    assert "No space left on device" in caplog.text
    with pytest.raises(DiskFull):
        save(tmp_path / "a.safetensors", arrays())


def test_a_missing_file_is_nothing(tmp_path: Path) -> None:
    assert load(tmp_path / "nothing.safetensors") is None


def test_digests_tell_parts_apart() -> None:
    made = [digest("a", "b"), digest("ab"), digest("a", b"b"), digest("b", "a"), digest("a", 1), digest("a", "1")]
    assert len(set(made)) == len(made)
    assert digest("a", "\ud800") == digest("a", "\ud800")


def test_the_default_folder_follows_the_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("SPLORA_CACHE", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert default_folder() == tmp_path / "splora"
    monkeypatch.setenv("SPLORA_CACHE", str(tmp_path / "own"))
    assert default_folder() == tmp_path / "own"
