"""Hidden states in files: a disk without room for them ends in a sentence, and nothing is left on it."""

from __future__ import annotations

import os
import sys
import tempfile
from pathlib import Path
from typing import Any

import pytest
import torch

from splora.errors import DiskFull
from splora.posttraining.core.states import States
from splora.scratch import Scratch
from splora.training.small_decoder import SmallOPT, write_untrained
from tests import forks
from tests.launch import test_full_disk

mount = test_full_disk.mount


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no device that is always full")
def test_a_file_that_finds_no_room_is_told_and_goes(tiny: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    own = Path.open
    monkeypatch.setattr(Path, "open", lambda _, *options, **named: own(Path("/dev/full"), *options, **named))
    batch = {"input_ids": torch.randint(5, 60, (3, 9)), "attention_mask": torch.ones(3, 9)}
    with pytest.raises(DiskFull, match=rf"{tmp_path}.*kept here \(No space left on device\); set TMPDIR, or"):
        States(tiny("BertForSequenceClassification"), [batch, batch], "disk")
    assert not list(tmp_path.iterdir())


def test_tensors_in_a_file_come_back_as_they_were_and_the_file_goes_with_the_last(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    tensors = [torch.randn(3, 4).T.bfloat16(), torch.empty(0, 3), torch.tensor(2.0, dtype=torch.float64)]
    slots = [*map(Scratch().put, tensors)]
    slots[0].fill(2 * tensors[0])
    tensors[0] = 2 * tensors[0]
    for slot, tensor in zip(slots, tensors, strict=True):
        assert torch.equal(slot(), tensor)
        assert slot().dtype == tensor.dtype
        assert slot.nbytes == tensor.nbytes
    del slot
    slots.clear()
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
    done = forks.run(
        [sys.executable, "-m", "splora.scripts.cli", "quantize", "--model", ".", "--data", "text.txt",
         "--output", "out", "--group-size", "16", "--states", "disk", "--device", "cpu",
         "--threads", "1"],
        env=os.environ | {"TMPDIR": str(disk)},
        cwd=tmp_path,
    )  # fmt: skip
    assert done.returncode == 2, (done.returncode, done.stderr)
    assert "hidden states cannot be kept here (No space left on device)" in done.stderr.splitlines()[-1]
    assert not list(disk.iterdir())
    assert not (tmp_path / "out").exists()
