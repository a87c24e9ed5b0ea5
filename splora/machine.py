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
