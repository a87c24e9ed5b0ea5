"""What a result says about the machine and the software it came from."""

from __future__ import annotations

import os
import resource
import sys
from collections.abc import Iterable
from importlib.metadata import version

#: Packages whose versions can change a result.
PACKAGES = ("splora", "torch", "lightning", "transformers", "peft", "datasets", "torchmetrics")

#: Where ``torchrun``, SLURM and Lightning's own starter of processes tell each of them its number.
_RANKS = ("RANK", "SLURM_PROCID", "NODE_RANK", "LOCAL_RANK")

#: Settings of OpenMP (GNU's, LLVM's and Intel's) on how threads wait.
_WAITING = ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT", "KMP_BLOCKTIME", "KMP_LIBRARY")

#: Multiplications of a matrix product that are worth a thread: with fewer, two threads wait for each other as long as
#: one would have computed.
MULTIPLICATIONS_PER_THREAD = 16e6


def is_first_process() -> bool:
    """Whether this is the process that writes and speaks for all processes of a run, on all nodes."""
    return all(os.environ.get(name, "0") in ("", "0") for name in _RANKS)


def cores() -> int:
    """Cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def wait_passively() -> None:
    """Let threads sleep, not spin, where they wait for each other; call it before torch is imported.

    OpenMP reads its settings when it is loaded. Spinning gains little where a program is alone, and beside another one
    each wait of a thread takes its share of a core from the thread that is waited for. What the user has set stays.
    """
    if not any(name in os.environ for name in _WAITING):
        os.environ["OMP_WAIT_POLICY"] = "PASSIVE"


def threads_are_chosen() -> bool:
    """Whether the user, or a launcher that divides the cores, has said how many threads a process takes."""
    return any(name in os.environ for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS"))


def threads_for(multiplications: float, most: int) -> int:
    """Threads that a computation of this size keeps busy, `most` at most.

    Args:
        multiplications: of its largest matrix product.
    """
    return max(1, min(most, int(multiplications / MULTIPLICATIONS_PER_THREAD)))


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
