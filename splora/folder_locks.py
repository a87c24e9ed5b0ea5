"""Locks of folders themselves, with no file in them: they move with the folder and die with the process."""

from __future__ import annotations

import errno
import os
from pathlib import Path


def lock_folder(folder: Path) -> int:
    """Lock a folder.

    Returns:
        A descriptor that holds the lock until it is closed.

    Raises:
        BlockingIOError: a living process holds it.
        FileNotFoundError: the folder is gone.
        OSError: it is no folder, or the file system has no locks of folders.
    """
    try:
        import fcntl
    except ImportError as error:
        raise OSError(errno.ENOTSUP, os.strerror(errno.ENOTSUP)) from error
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if not os.path.samestat(os.fstat(descriptor), folder.stat()):
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), str(folder))
    except BaseException:
        os.close(descriptor)
        raise
    return descriptor
