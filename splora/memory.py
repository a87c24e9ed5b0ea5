"""Freed memory that the C library keeps for later, given back to the system.

Where matrices of many sizes come and go, what lies free between those that stay grows with their number: a process can
hold twice of what it has allocated. To give it back at once is no better, as each page that comes again costs time.
"""

from __future__ import annotations

import ctypes
import functools
import sys
from collections.abc import Callable
from pathlib import Path

#: Bytes by which a process may grow before anything is given back.
ROOM = 384 * 2**20


class FreeMemory:
    """Keeps a process near to what it has allocated, once it has grown (Linux with glibc; else nothing is done).

    Args:
        room: see `ROOM`; counted from now on.
    """

    def __init__(self, room: int = ROOM) -> None:
        self._most = resident_bytes() + room if _trim() else 0

    def limit(self) -> None:
        """Give freed memory back if the process has outgrown its room."""
        if self._most and resident_bytes() > self._most:
            return_free_memory()


def return_free_memory() -> None:
    """Give back all freed memory that the C library can (Linux with glibc; else nothing is done)."""
    if trim := _trim():
        trim(0)


def resident_bytes() -> int:
    """Anonymous memory that is resident now (Linux): mapped files, which the system can drop, are none of it."""
    lines = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
    return int(next(line for line in lines if line.startswith("RssAnon")).split()[1]) * 1024


@functools.cache
def _trim() -> Callable[[int], int] | None:
    """glibc's `malloc_trim`, or None."""
    if sys.platform != "linux":
        return None
    found: Callable[[int], int] | None = getattr(ctypes.CDLL(None), "malloc_trim", None)
    return found
