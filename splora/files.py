"""Writing files so that a killed program leaves the old file or the new one, never half of one."""

from __future__ import annotations

import errno
import json
import os
import shutil
import stat
import uuid
from collections.abc import Collection, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path, PurePosixPath
from typing import Any, BinaryIO

from splora.errors import DiskFull, InputError


def is_full(error: BaseException) -> bool:
    """Whether the system said that there is no space left, on the disk or for this user."""
    return isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT)


def refuse_link(path: Path) -> None:
    """Refuse to write to a link: what it leads to may be anybody's.

    Raises:
        InputError: `path` is a link; the folders above it may be some.
    """
    if path.is_symlink():
        raise InputError(
            f"{path}: is a link to {path.readlink()}, and what links lead to is not written to; "
            "give its target itself, or remove the link."
        )


def inside(folder: Path, name: object) -> Path | None:
    """The file `name` of `folder`, as some file tells it; None where it is no name of a file inside.

    That is one that leads out by ``..``, by a link on the way, or by beginning at a root or drive.
    """
    if not isinstance(name, str) or set(name) & set("\\:\0"):
        return None
    parts = PurePosixPath(name).parts
    if not parts or ".." in parts or name.startswith("/"):
        return None
    on_the_way = [folder.joinpath(*parts[:count]) for count in range(1, len(parts))]
    return None if any(path.is_symlink() for path in on_the_way) else folder.joinpath(*parts)


def appending(path: Path) -> BinaryIO:
    """Open a file to add to its end; it is made where it is missing.

    Raises:
        InputError: `path` is a link, or no file.
        OSError: it cannot be opened.
    """
    refuse_link(path)
    flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0)
    file = os.fdopen(os.open(path, flags, 0o666), "ab")
    if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
        file.close()
        raise InputError(f"{path}: is no regular file; remove it.")
    return file


@contextmanager
def replacing(path: str | os.PathLike[str]) -> Iterator[Path]:
    """Yield a path beside `path` to write to; it is flushed and renamed into place when the block ends well.

    A link at `path` is replaced itself; what it leads to stays as it is.

    Raises:
        InputError: the folder cannot be written to; `DiskFull` where that is the reason.
    """
    target = Path(path)
    beside = target.with_name(f".{target.name}.{uuid.uuid4().hex[:8]}.tmp")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        yield beside
        with beside.open("rb") as written:
            os.fsync(written.fileno())
        beside.replace(target)
    except OSError as error:
        kind = DiskFull if is_full(error) else InputError
        raise kind(f"{target}: cannot be written ({error.strerror or error}).") from error
    finally:
        with suppress(OSError):
            beside.unlink(missing_ok=True)


@contextmanager
def replacing_folder(path: Path) -> Iterator[Path]:
    """Yield an empty folder beside `path`; it takes the place of `path` when the block ends well, else `path` stays.

    Raises:
        InputError: the folder cannot be written to, or is a link; `DiskFull` where space is missing.
    """
    from safetensors import SafetensorError

    refuse_link(path)
    name = uuid.uuid4().hex[:8]
    beside, before = path.with_name(f".{path.name}.{name}.tmp"), path.with_name(f".{path.name}.{name}.old")
    try:
        beside.mkdir(parents=True)
        yield beside
        if path.exists():
            path.rename(before)
        beside.rename(path)
    except (OSError, SafetensorError) as error:
        told = getattr(error, "strerror", None) or str(error)
        kind = DiskFull if is_full(error) or os.strerror(errno.ENOSPC) in told else InputError
        raise kind(f"{path}: cannot be written ({told}).") from error
    finally:
        if before.exists() and not path.exists():  # moved away, but nothing took its place
            with suppress(OSError):
                before.rename(path)
        shutil.rmtree(beside, ignore_errors=True)
        if path.exists():
            shutil.rmtree(before, ignore_errors=True)


def remove_leftovers(folder: Path, names: Collection[str] | None = None) -> None:
    """Remove what killed processes left half-written in `folder`; nobody may be writing these files now.

    A folder that was moved away, and whose place nothing took, is put back.

    Args:
        names: only what was to become one of these; other commands may be writing others. None: everything.
    """
    for ending in ("tmp", "old"):
        for left in folder.glob(f".*.{'[0-9a-f]' * 8}.{ending}"):
            place = left.with_name(left.name[1 : -len(".01234567.old")])
            if names is not None and place.name not in names:
                continue
            if ending == "old" and not place.exists():
                left.rename(place)
            elif left.is_dir() and not left.is_symlink():
                shutil.rmtree(left, ignore_errors=True)
            else:
                left.unlink(missing_ok=True)


def write_text(path: str | os.PathLike[str], text: str) -> None:
    """Write `text` as UTF-8 and rename it into place."""
    with replacing(path) as beside:
        beside.write_text(text, encoding="utf-8")


def write_json(path: str | os.PathLike[str], value: Any) -> None:
    """Write `value` as indented JSON and rename it into place.

    What no UTF-8 can hold, as half of a surrogate pair or a byte of a file's name, is escaped: a value that came this
    far may be all that is left of a night.
    """
    text = json.dumps(value, indent=2, ensure_ascii=False, allow_nan=True)
    try:
        text.encode()
    except UnicodeEncodeError:
        text = json.dumps(value, indent=2, ensure_ascii=True, allow_nan=True)
    write_text(path, text + "\n")
