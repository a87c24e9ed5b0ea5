"""Who works in a folder: locks that die with their process, and say whose they are.

The lock is the operating system's (`flock`), not the file's existence: a killed process leaves none behind. Where a
file system has no locks, process id and host in the file stand in for them.
"""

from __future__ import annotations

import errno
import os
import socket
import stat
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from splora.errors import InputError
from splora.files import refuse_link

RUN_LOCK, DRIVER_LOCK = ".run.lock", ".driver.lock"
_TAKEN = (errno.EWOULDBLOCK, errno.EACCES)
#: Flags with which a lock is opened: never through a link, and without waiting for the other end of a pipe.
_OWN = getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0)
#: Bytes of a signature at most.
_LONGEST = 1000


@contextmanager
def holding(path: Path, what: str, *, shared: bool = False, wait: float = 0.0) -> Iterator[None]:
    """Hold the lock of `path` while the block runs; its folder is made where it is missing.

    Args:
        what: subject of the sentence when another process holds it, such as ``runs: another command runs rows here``.
        shared: others may hold it too, if they also share.
        wait: seconds to wait for a process that is just ending.

    Raises:
        InputError: another process holds it, the folder cannot be written to, or what is there is no lock.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        refuse_link(path)
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | _OWN, 0o666)
    except OSError as error:
        raise InputError(f"{path.parent}: cannot be written to ({error.strerror or error}).") from error
    try:
        if not _is_lock(descriptor):
            raise InputError(f"{path}: is no lock of this program, but something else; remove it.")
        deadline = time.monotonic() + wait
        while not _take(descriptor, shared):
            if time.monotonic() >= deadline:
                raise InputError(f"{what} ({holder(path)}); wait until it ends, or stop it.")
            time.sleep(0.1)
        _sign(descriptor)
        yield
    finally:
        os.close(descriptor)


@contextmanager
def claiming(path: Path, what: str) -> Iterator[None]:
    """As `holding`, for what is held once: afterwards neither the lock's file nor folders made for it are there.

    Raises:
        InputError: another process holds it, or the folder cannot be written to.
    """
    made = [folder for folder in (path.parent, *path.parent.parents) if not folder.exists()]
    try:
        while True:
            try:
                path.parent.mkdir(parents=True, exist_ok=True)
                refuse_link(path)
                descriptor = os.open(path, os.O_RDWR | os.O_CREAT | _OWN, 0o666)
            except OSError as error:
                raise InputError(f"{path.parent}: cannot be written to ({error.strerror or error}).") from error
            if not _is_lock(descriptor):
                os.close(descriptor)
                raise InputError(f"{path}: is no lock of this program, but something else; remove it.")
            if not _take(descriptor, shared=False):
                os.close(descriptor)
                raise InputError(f"{what} ({holder(path)}); wait until it ends, or stop it.")
            with suppress(OSError):
                if os.path.samestat(os.fstat(descriptor), path.stat()):
                    break
            os.close(descriptor)  # its last holder has just removed it
        try:
            _sign(descriptor)
            yield
        finally:
            path.unlink(missing_ok=True)  # while it is held: whoever waits for it looks again
            os.close(descriptor)
    finally:
        with suppress(OSError):  # the first that is not empty ends it
            for folder in made:
                folder.rmdir()


def is_held(path: Path) -> bool:
    """Whether a living process holds the lock of `path`."""
    try:
        descriptor = os.open(path, os.O_RDONLY | _OWN)
    except OSError:
        return False
    try:
        return _is_lock(descriptor) and not _take(descriptor, shared=True)
    finally:
        os.close(descriptor)


def holder(path: Path) -> str:
    """The last process that held the lock, as in ``process 4711 on host gpu1``."""
    with suppress(OSError, ValueError):
        descriptor = os.open(path, os.O_RDONLY | _OWN)
        try:
            process, host = _words(descriptor)
        finally:
            os.close(descriptor)
        return f"process {process} on host {host}"
    return "of unknown process"


def is_alive(pid: int | None, host: str | None) -> bool | None:
    """Whether that process lives; None where this machine cannot tell."""
    if pid is None or host != socket.gethostname():
        return None
    if pid <= 0:  # to the system these are groups of processes
        return False
    try:
        os.kill(pid, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except OSError:
        return True  # it is somebody else's
    return True


def _take(descriptor: int, shared: bool) -> bool:
    try:
        import fcntl

        fcntl.flock(descriptor, (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | fcntl.LOCK_NB)
    except ImportError:
        return _is_free_by_text(descriptor)
    except OSError as error:
        return error.errno not in _TAKEN and _is_free_by_text(descriptor)
    return True


def _is_free_by_text(descriptor: int) -> bool:
    words = _words(descriptor)
    if len(words) != 2 or not words[0].isdigit() or int(words[0]) == os.getpid():
        return True
    return is_alive(int(words[0]), words[1]) is False


def _words(descriptor: int) -> list[str]:
    return os.pread(descriptor, _LONGEST, 0).decode("utf-8", "replace").split()


def _is_lock(descriptor: int) -> bool:
    """Whether a file is empty or signed by `_sign`: nothing else, which another name may lead to, is overwritten."""
    about = os.fstat(descriptor)
    if not stat.S_ISREG(about.st_mode) or about.st_size > _LONGEST:
        return False
    words = _words(descriptor)
    return not words or (len(words) == 2 and words[0].isdecimal())


def _sign(descriptor: int) -> None:
    # A full disk may refuse the name; the lock holds without it.
    with suppress(OSError):
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, f"{os.getpid()} {socket.gethostname()}\n".encode(), 0)
