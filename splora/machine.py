"""What a result says about the machine and the software it came from."""

from __future__ import annotations

import functools
import os
import resource
import sys
from collections.abc import Iterable
from importlib.metadata import version
from pathlib import Path
from typing import Any

#: Packages whose versions can change a result.
PACKAGES = ("splora", "torch", "lightning", "transformers", "peft", "datasets", "torchmetrics")

#: Resident memory that the C library may have beyond what is allocated, in bytes; an interpreter with torch and
#: transformers has two thirds of it without ever having freed anything.
KEPT_FREE = 384 * 2**20

#: Where ``torchrun``, SLURM and Lightning's own starter of processes tell each of them its number.
_RANKS = ("RANK", "SLURM_PROCID", "NODE_RANK", "LOCAL_RANK")


def is_first_process() -> bool:
    """Whether this is the process that writes and speaks for all processes of a run, on all nodes."""
    return all(os.environ.get(name, "0") in ("", "0") for name in _RANKS)


def versions(packages: Iterable[str] = PACKAGES) -> dict[str, str]:
    """Versions of Python and of these packages."""
    return {"python": sys.version.split()[0], **{name: version(name) for name in packages}}


def peak_memory_bytes() -> int:
    """Most memory this process has held: of the GPU where one is used, else resident memory."""
    import torch

    if torch.cuda.is_available() and torch.cuda.is_initialized():
        return int(torch.cuda.max_memory_allocated())
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def return_free_memory(kept: int = KEPT_FREE) -> None:
    """Give freed memory back to the system where the C library keeps much of it (Linux with glibc; else nothing).

    Where matrices of many sizes come and go, freed memory between them is kept, and its amount grows with their number.

    Args:
        kept: see `KEPT_FREE`.
    """
    library = _glibc()
    if library is None:
        return
    allocated = library.mallinfo2()
    if resident_bytes() - allocated.uordblks - allocated.hblkhd > kept:
        library.malloc_trim(0)


def resident_bytes() -> int:
    """Anonymous memory that is resident now (Linux): mapped files, which the system can drop, are none of it."""
    lines = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
    return int(next(line for line in lines if line.startswith("RssAnon")).split()[1]) * 1024


@functools.cache
def _glibc() -> Any:
    """The C library, where it can tell what it keeps (glibc 2.33 or later); else None."""
    import ctypes

    class Allocated(ctypes.Structure):
        """`struct mallinfo2`: `uordblks` bytes are allocated in heaps, `hblkhd` bytes in maps of their own."""

        _fields_ = tuple((name, ctypes.c_size_t) for name in _FIELDS)

    try:
        library = ctypes.CDLL(None)
        library.mallinfo2.restype = Allocated
    except (OSError, TypeError, AttributeError):
        return None
    return library if hasattr(library, "malloc_trim") and sys.platform == "linux" else None


_FIELDS = ("arena", "ordblks", "smblks", "hblks", "hblkhd", "usmblks", "fsmblks", "uordblks", "fordblks", "keepcost")
