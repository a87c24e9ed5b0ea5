"""Writing files so that a killed program leaves the old file or the new one, never half of one."""

from __future__ import annotations

import errno
import json
import os
import shutil
import stat
import uuid
from collections.abc import Callable, Collection, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path, PurePosixPath
from typing import Any, BinaryIO

from splora.errors import DiskFull, InputError
from splora.folder_locks import lock_folder


def expanded(path: str | os.PathLike[str]) -> Path:
    """A path, with `~` for the home folder of a user that there is; any other name that begins so stays what it is."""
    try:
        return Path(path).expanduser()
    except RuntimeError:
        return Path(path)


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

    The new file has the permissions that the umask gives, whatever the writer made of them. A link at `path` is
    replaced itself; what it leads to stays as it is.

    Raises:
        InputError: the folder cannot be written to; `DiskFull` where that is the reason.
    """
    target = Path(path)
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with _scratch(target) as folder:
            beside = folder / target.name
            yield beside
            _as_umask_says(folder)
            with beside.open("rb") as written:
                os.fsync(written.fileno())
            beside.replace(target)
    except OSError as error:
        kind = DiskFull if is_full(error) else InputError
        raise kind(f"{target}: cannot be written ({error.strerror or error}).") from error


@contextmanager
def replacing_folder(path: Path) -> Iterator[Path]:
    """Yield an empty folder beside `path`; it takes the place of `path` when the block ends well, else `path` stays.

    Its files have the permissions that the umask gives.

    Raises:
        InputError: the folder cannot be written to, or is a link; `DiskFull` where space is missing.
    """
    from safetensors import SafetensorError

    refuse_link(path)
    before: Path | None = None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with _scratch(path) as beside, ExitStack() as held:
            yield beside
            _as_umask_says(beside)
            try:
                if path.exists():
                    before = beside.with_suffix(".old")
                    with suppress(OSError):  # without a lock it is safe all the same, but for the next two lines
                        held.callback(os.close, lock_folder(path))
                    path.rename(before)
                beside.rename(path)
            finally:
                if before is not None and before.exists() and not path.exists():  # nothing took its place
                    with suppress(OSError):
                        before.rename(path)
                if before is not None and path.exists():
                    shutil.rmtree(before, ignore_errors=True)
    except (OSError, SafetensorError) as error:
        told = getattr(error, "strerror", None) or str(error)
        kind = DiskFull if is_full(error) or os.strerror(errno.ENOSPC) in told else InputError
        raise kind(f"{path}: cannot be written ({told}).") from error


@contextmanager
def locked_folder(make: Callable[[], Path]) -> Iterator[Path]:
    """A new folder that nobody takes for a leftover while the block runs; removed with it, unless it was renamed.

    Args:
        make: makes a folder of another name each time.

    Raises:
        OSError: it cannot be made.
    """
    while True:
        folder = make()
        try:
            lock: int | None = lock_folder(folder)
        except (BlockingIOError, FileNotFoundError):
            continue  # between the two lines somebody took it for a leftover
        except OSError:
            lock = None  # where there are no locks, leftovers are not removed either
        break
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        if lock is not None:
            os.close(lock)


def remove_leftovers(folder: Path, names: Collection[str] | None = None, *, files: bool = True) -> None:
    """Remove what killed processes left half-written in `folder`, and nothing that a living process is writing.

    A folder that was moved away, and whose place nothing took, is put back.

    Args:
        names: only what was to become one of these. None: everything.
        files: remove files as well, which only earlier versions made, and of which nobody can tell who writes them.
    """
    for left in folder.glob(f".*.{'[0-9a-f]' * 8}.*"):
        place = left.with_name(left.name[1 : -len(".01234567.old")])
        if left.suffix not in (".tmp", ".old") or (names is not None and place.name not in names):
            continue
        if left.is_symlink() or not left.is_dir():
            if files:
                left.unlink(missing_ok=True)
            continue
        try:
            lock = lock_folder(left)
        except OSError:
            continue  # somebody is writing there, or nobody can tell
        try:
            if left.suffix == ".old" and not place.exists():
                left.rename(place)
            else:
                shutil.rmtree(left, ignore_errors=True)
        finally:
            os.close(lock)


@contextmanager
def _scratch(target: Path) -> Iterator[Path]:
    """An empty folder beside `target`, for what is to take its place."""

    def make() -> Path:
        folder = target.with_name(f".{target.name}.{uuid.uuid4().hex[:8]}.tmp")
        folder.mkdir()
        return folder

    with locked_folder(make) as folder:
        yield folder


def _as_umask_says(folder: Path) -> None:
    """Give all files below a folder that was just made the permissions of new files; some libraries make them 0600."""
    # The folder's own permissions tell the umask; to ask the system for it, one would have to change it.
    allowed = folder.stat().st_mode & 0o666
    for place, _, names in os.walk(folder):
        for name in names:
            file = Path(place) / name
            if not file.is_symlink():
                file.chmod(allowed)


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
