"""Who works in a folder: locks that die with their process, and say whose they are.

The lock is the operating system's (`flock`), not the file's existence: a killed process leaves none behind. Where a
file system has no locks, process id and host in the file stand in for them.
"""

from __future__ import annotations

import errno
import os
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from splora.errors import InputError

RUN_LOCK, DRIVER_LOCK = ".run.lock", ".driver.lock"
_TAKEN = (errno.EWOULDBLOCK, errno.EACCES)


@contextmanager
def holding(path: Path, what: str, *, shared: bool = False, wait: float = 0.0) -> Iterator[None]:
    """Hold the lock of `path` while the block runs; its folder is made where it is missing.

    Args:
        what: subject of the sentence when another process holds it, such as ``runs: another command runs rows here``.
        shared: others may hold it too, if they also share.
        wait: seconds to wait for a process that is just ending.

    Raises:
        InputError: another process holds it, or the folder cannot be written to.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
    except OSError as error:
        raise InputError(f"{path.parent}: cannot be written to ({error.strerror or error}).") from error
    try:
        deadline = time.monotonic() + wait
        while not _take(descriptor, shared):
            if time.monotonic() >= deadline:
                raise InputError(f"{what} ({holder(path)}); wait until it ends, or stop it.")
            time.sleep(0.1)
        _sign(descriptor)
        yield
    finally:
        os.close(descriptor)


def is_held(path: Path) -> bool:
    """Whether a living process holds the lock of `path`."""
    try:
        descriptor = os.open(path, os.O_RDONLY)
    except OSError:
        return False
    try:
        return not _take(descriptor, shared=True)
    finally:
        os.close(descriptor)


def holder(path: Path) -> str:
    """The last process that held the lock, as in ``process 4711 on host gpu1``."""
    with suppress(OSError, ValueError):
        process, host = path.read_text(encoding="utf-8").split()
        return f"process {process} on host {host}"
    return "of unknown process"


def is_alive(pid: int | None, host: str | None) -> bool | None:
    """Whether that process lives; None where this machine cannot tell."""
    if pid is None or host != socket.gethostname():
        return None
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
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
    words = os.pread(descriptor, 1000, 0).decode("utf-8", "replace").split()
    if len(words) != 2 or not words[0].isdigit() or int(words[0]) == os.getpid():
        return True
    return is_alive(int(words[0]), words[1]) is False


def _sign(descriptor: int) -> None:
    # A full disk may refuse the name; the lock holds without it.
    with suppress(OSError):
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, f"{os.getpid()} {socket.gethostname()}\n".encode(), 0)
