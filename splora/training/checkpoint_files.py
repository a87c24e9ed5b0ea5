"""Checkpoints as files: sealed with a checksum, the one before kept beside the last, and which one to go on from."""

from __future__ import annotations

import hashlib
import os
import sys
import uuid
import zipfile
import zlib
from contextlib import suppress
from pathlib import Path

from splora.errors import InputError
from splora.machine import is_first_process
from splora.run_files import CHECKPOINTS

#: In the folder of a run.
CHECKPOINT = f"{CHECKPOINTS}/last.ckpt"

# A checkpoint is a zip archive. Its end record (22 bytes, the last two the length of a comment) may be followed by a
# comment: there the checksum of all that comes before is renamed into place together with what it vouches for.
_END, _SIGNATURE = 22, b"PK\5\6"
_MARK = b"sha256:"
_COMMENT = len(_MARK) + 64


def previous(path: Path) -> Path:
    """Where the checkpoint that `path` replaced is kept: ``last.previous.ckpt`` beside ``last.ckpt``."""
    return path.with_name(f"{path.stem}.previous{path.suffix}")


def seal(path: Path) -> None:
    """Append the checksum to an archive that has just been written."""
    with path.open("r+b") as file:
        size = file.seek(0, os.SEEK_END)
        digest = _digest(path, size - 2)
        file.seek(size - 2)
        file.write(_COMMENT.to_bytes(2, "little") + _MARK + digest)


def keep_previous(path: Path) -> None:
    """Keep what is at `path`, which is about to be replaced, as the checkpoint before it."""
    if not path.is_file():
        return
    beside = path.with_name(f".{path.name}.{uuid.uuid4().hex[:8]}.tmp")
    try:
        os.link(path, beside)
    except OSError:  # no links here: for a moment there is only the previous one, which is as good
        path.replace(previous(path))
    else:
        beside.replace(previous(path))


def damage(path: Path) -> str | None:
    """What is wrong with a checkpoint's bytes; None: they are those that were written.

    Archives without a checksum, written by others or earlier, are judged by the archive's own (CRC-32 of each entry).
    """
    try:
        size = path.stat().st_size
        with path.open("rb") as file:
            file.seek(max(0, size - _COMMENT - 2))
            tail = file.read()
        if tail[2 : 2 + len(_MARK)] == _MARK and tail[:2] == _COMMENT.to_bytes(2, "little"):
            same = _digest(path, size - _COMMENT - 2) == tail[2 + len(_MARK) :]
            return None if same else "its checksum differs"
        if size < _END or tail[-_END:][:4] != _SIGNATURE or tail[-2:] != b"\0\0":
            return "it is cut, or no checkpoint"
        with zipfile.ZipFile(path) as archive:
            broken = archive.testzip()
        return None if broken is None else f"the checksum of its entry {broken} differs"
    except (OSError, zipfile.BadZipFile, zlib.error, NotImplementedError, ValueError, EOFError) as error:
        return str(error) or type(error).__name__


def is_begun(folder: Path) -> bool:
    """Whether a run has left a checkpoint in its folder."""
    return any(path.is_file() for path in _both(folder))


def checkpoint_of(folder: Path) -> Path | None:
    """The checkpoint that the run in `folder` goes on from: the last one, or where that is damaged the one before it.

    A damaged one is set aside as ``last.damaged.ckpt``, so that the next one does not replace the good one by it.

    Raises:
        InputError: there are checkpoints, and none of them is whole.
    """
    found = [path for path in _both(folder) if path.is_file()]
    problems: list[str] = []
    for path in found:
        problem = damage(path)
        if problem is None:
            if problems:
                _set_aside(found[0], problems[0], path)
            return path
        problems.append(f"{path}: is damaged ({problem})")
    if problems:
        raise InputError(
            f"{'; '.join(problems)}; no other checkpoint is there, so give --force, or another folder, to start anew."
        )
    return None


def _both(folder: Path) -> tuple[Path, Path]:
    last = folder / CHECKPOINT
    return last, previous(last)


def _set_aside(damaged: Path, problem: str, instead: Path) -> None:
    if is_first_process():
        print(f"warning: {problem}; going on from the checkpoint before it, {instead}.", file=sys.stderr, flush=True)
        with suppress(OSError):
            damaged.replace(damaged.with_name(f"{damaged.stem}.damaged{damaged.suffix}"))


def _digest(path: Path, length: int) -> bytes:
    """SHA-256 of the first `length` bytes of a file, in hexadecimal digits."""
    digest, left = hashlib.sha256(), length
    with path.open("rb") as file:
        while left > 0 and (chunk := file.read(min(left, 2**20))):
            digest.update(chunk)
            left -= len(chunk)
    return digest.hexdigest().encode()
