"""The cache of prepared arrays."""

from __future__ import annotations

import logging
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from splora.tasks.cache import Arrays, cached, default_folder, digest, load


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
