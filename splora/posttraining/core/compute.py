"""Where a command computes, and how: what every command reads from `--device`, `--precision`, `--threads`, `--seed`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from splora.errors import InputError, problems_of

if TYPE_CHECKING:
    import torch

#: The largest seed that numpy and Lightning take.
MOST_SEED = 2**32 - 1


def check_compute(
    *, device: str = "auto", precision: str = "auto", threads: int | None = None, seed: int | None = None
) -> None:
    """Find values that are not allowed, or not to be had on this machine.

    Args:
        threads: None: torch's choice.
        seed: None: the command's own.

    Raises:
        InputError: one sentence for each finding.
    """
    problems = []
    if seed is not None and seed < 0:
        problems.append(f"--seed is {seed}; it must be 0 or larger.")
    elif seed is not None and seed > MOST_SEED:
        problems.append(f"--seed is {seed}; it must be {MOST_SEED} or smaller.")
    if threads is not None and threads < 1:
        problems.append(f"--threads is {threads}; it must be 1 or larger.")
    problems += problems_of(lambda: _check_device(device), lambda: _check_precision(precision))
    if problems:
        raise InputError(problems)


def find_device(name: str) -> torch.device:
    """The device of `--device`; of `auto`, the GPU where there is one."""
    import torch

    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    return torch.device(name)


def use_threads(number: int | None) -> None:
    """Let torch compute with so many processor threads; None: as many as it chooses."""
    import torch

    if number is not None:
        torch.set_num_threads(number)


def _check_device(name: str) -> None:
    import torch

    try:
        device = torch.device("cpu" if name == "auto" else name)
    except RuntimeError:
        device = None
    if device is None or device.type not in ("cpu", "cuda"):
        raise InputError(f"--device is {name!r}; it reads auto, cpu, cuda or cuda:1.")
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise InputError(f"--device is {name!r}; torch sees {torch.cuda.device_count()} such devices here.")


def _check_precision(text: str) -> None:
    from splora.posttraining.core.precision import Precision

    Precision.parse(text)
