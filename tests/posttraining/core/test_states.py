"""Hidden states in files: a disk without room for them ends in a sentence, and nothing is left on it."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import pytest
import torch

from splora.errors import DiskFull
from splora.posttraining.core.states import States
from splora.training.small_decoder import SmallOPT, write_untrained
from tests.launch import test_full_disk

mount = test_full_disk.mount


def test_files_are_given_their_room_before_they_are_mapped(
    tiny: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    batch = {"input_ids": torch.randint(5, 60, (3, 9)), "attention_mask": torch.ones(3, 9)}
    asked: list[int] = []

    def reserve(descriptor: int, offset: int, size: int) -> None:
        asked.append(size)
        if len(asked) == 2:
            raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "posix_fallocate", reserve)
    with pytest.raises(DiskFull, match=rf"{tmp_path}.*kept here \(No space left on device\); set TMPDIR, or"):
        States(tiny("BertForSequenceClassification"), [batch, batch], "disk")
    assert asked == [3 * 9 * 24 * 4] * 2
    assert not list(tmp_path.iterdir())


@pytest.mark.slow
def test_a_full_disk_ends_a_command_in_a_sentence(mount: test_full_disk.Mount, tmp_path: Path) -> None:
    disk = tmp_path / "disk"
    mount(disk, "64k")
    sizes = SmallOPT(vocabulary=300, positions=24, layers=1, hidden=32, heads=4, neurons=48)
    text = "the cat sat on the mat and looked at the dog that ran .\n" * 60
    model: Any = write_untrained(sizes, text, tmp_path)
    model.save_pretrained(tmp_path)
    (tmp_path / "text.txt").write_text(text, encoding="utf-8")
    done = subprocess.run(
        [sys.executable, "-m", "splora.scripts.cli", "quantize", "--model", ".", "--data", "text.txt",
         "--output", "out", "--group-size", "16", "--states", "disk", "--device", "cpu",
         "--threads", "1"],
        env=os.environ | {"TMPDIR": str(disk)},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )  # fmt: skip
    assert done.returncode == 2, (done.returncode, done.stderr)
    assert "hidden states cannot be kept here (No space left on device)" in done.stderr.splitlines()[-1]
    assert not list(disk.iterdir())
    assert not (tmp_path / "out").exists()
