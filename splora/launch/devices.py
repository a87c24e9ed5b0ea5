"""What this machine has for runs, found without torch: its GPUs, or its cores and memory."""

from __future__ import annotations

import os
import re
import subprocess
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from splora.errors import InputError
from splora.machine import cores

#: Memory that a run on a CPU is reckoned to need, in bytes: a BERT-base with optimizer and activations.
RUN_BYTES = 4 * 2**30


@dataclass(frozen=True)
class Slot:
    """Where one run at a time goes: `CUDA_VISIBLE_DEVICES` (None: left as it is) and threads of the CPU."""

    gpus: str | None
    threads: int


def slots(jobs: str, rows: int, devices: int = 1, accelerator: str | None = None) -> list[Slot]:
    """Slots for `rows` rows.

    Args:
        jobs: rows at once, a whole number or `auto`: one per GPU (or group of `devices` GPUs); without GPUs, as many as
            there are cores, and memory of 4 GiB each.
        devices: GPUs, or on a CPU processes, of one row.
        accelerator: `cpu` leaves GPUs alone.

    Raises:
        InputError: `jobs` is no number above 0, or a row asks for more GPUs than there are.
    """
    if jobs != "auto" and not (jobs.isdigit() and int(jobs) > 0):
        raise InputError(f"--jobs: is {jobs!r}; allowed are whole numbers from 1, and auto.")
    gpus = [] if accelerator == "cpu" else visible_gpus()
    if gpus and devices > len(gpus):
        raise InputError(f"--devices: is {devices}; this machine has {len(gpus)} GPU{'s' * (len(gpus) > 1)}.")
    groups = [gpus[start : start + devices] for start in range(0, len(gpus) - devices + 1, devices)] if gpus else []
    most = len(groups) or max(1, min(cores() // devices, free_memory() // RUN_BYTES))
    number = min(rows, most if jobs == "auto" else int(jobs))
    threads = max(1, cores() // (max(1, number) * devices))
    if "OMP_NUM_THREADS" in os.environ and os.environ["OMP_NUM_THREADS"].isdigit():
        threads = min(threads, int(os.environ["OMP_NUM_THREADS"]))
    hidden = "" if accelerator == "cpu" else None
    # More jobs than GPUs share them in turn: small models leave a GPU room.
    return [Slot(",".join(groups[n % len(groups)]) if groups else hidden, threads) for n in range(max(1, number))]


def visible_gpus() -> Sequence[str]:
    """GPUs (or their MIG parts) that this process may use, as `CUDA_VISIBLE_DEVICES` names them."""
    given = os.environ.get("CUDA_VISIBLE_DEVICES")
    if given is not None:
        return [name.strip() for name in given.split(",") if name.strip() not in ("", "-1")]
    try:
        done = subprocess.run(["nvidia-smi", "-L"], capture_output=True, text=True, timeout=20, check=True)
    except (OSError, subprocess.SubprocessError):
        return []
    return named_gpus(done.stdout)


def named_gpus(listing: str) -> Sequence[str]:
    """The names in what ``nvidia-smi -L`` prints: a GPU's number, or where it is divided its first part's UUID."""
    names: list[str] = []
    for line in listing.splitlines():
        if (gpu := re.match(r"GPU (\d+):", line)) is not None:
            names.append(gpu[1])
        elif (part := re.match(r"\s+MIG .*\(UUID: (MIG-[^)]+)\)", line)) is not None:
            if names and names[-1].isdigit():
                names.pop()
            names.append(part[1])
    return names


def free_memory() -> int:
    """Bytes of memory that are free or can be freed; where the system does not say, enough for every core."""
    with suppress(OSError, StopIteration):
        lines = Path("/proc/meminfo").read_text(encoding="utf-8").splitlines()
        return 1024 * int(next(line for line in lines if line.startswith("MemAvailable:")).split()[1])
    return cores() * RUN_BYTES
