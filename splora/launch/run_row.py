"""One row, run: trained into its folder unless it is finished there, told about, and added to runs/results."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from splora.errors import DiskFull, InputError, Interrupted
from splora.json_values import numbers
from splora.locks import RUN_LOCK, holding
from splora.machine import is_first_process
from splora.training.result_file import RESULT, read_result
from splora.training.run import claim_folder, is_finished
from splora.training.specification import RunSpecification
from splora.training.state import FAILED, FINISHED, INTERRUPTED, RUNNING, StateKeeper, initial, label

#: Seconds that a run waits for the process that had its folder before: a killed one is gone in less.
_WAIT = 10.0
#: What becomes of a line that the table of results cannot take.
UNRECORDED = f"The result is kept in the run's {RESULT}; the same command adds it to the table later."


def run(
    spec: RunSpecification,
    output_dir: Path,
    force: bool = False,
    trainer: dict[str, Any] | None = None,
    command: str = "",
) -> dict[str, Any]:
    """Run a row into `output_dir`, in this process, and record it; returns its result.

    Args:
        force: run it again although it is finished.
        trainer: settings of the machine: devices, strategy, accelerator.
        command: what repeats the run.

    Raises:
        InputError: see `splora.training.run.run`; or another process runs this row.
        Interrupted: somebody stopped it.
    """
    from splora.hparams.results import record

    is_finished(spec, output_dir, force)  # refuses a folder before anything is written there
    with alone(output_dir):
        finished = claim_folder(spec, output_dir, force)
        if not finished:
            _tell(f"EXP ID {label(spec, output_dir)}: {spec.model or spec.pruning_method} into {output_dir}")
            train(spec, output_dir, trainer, command)
    result = read_result(output_dir)
    if is_first_process():
        try:
            problems = record(spec, result, output_dir)
        except InputError as error:  # the run is finished whatever becomes of the table
            problems = [f"{problem} {UNRECORDED}" for problem in error.problems]
        for problem in problems:
            print(f"warning: {problem}", file=sys.stderr)
        _tell(f"EXP ID {label(spec, output_dir)}: {'finished before, ' if finished else ''}{summary(result)}")
    return result


@contextmanager
def alone(output_dir: Path, does: str = "runs this row") -> Iterator[None]:
    """No two processes (of different runs) train in one folder.

    Args:
        does: what another process does there, for the sentence.

    Raises:
        InputError: another one does, or the folder cannot be written to.
    """
    if not is_first_process():
        yield
        return
    with holding(output_dir / RUN_LOCK, f"{output_dir}: another process {does}", wait=_WAIT):
        yield


def train(
    spec: RunSpecification,
    output_dir: Path,
    trainer: dict[str, Any] | None = None,
    command: str = "",
    log: str | None = None,
) -> None:
    """Train a claimed run and keep its state on disk.

    Raises:
        InputError, Interrupted: the state says so, too.
    """
    keeper = StateKeeper(output_dir, initial(RUNNING, spec, command, log, output_dir)) if is_first_process() else None
    state, reason = FAILED, None
    try:
        from splora.callbacks import GracefulStop, Heartbeat
        from splora.quiet import quiet_libraries
        from splora.training.run import run as run_specification

        quiet_libraries()
        stop = GracefulStop()
        callbacks = [stop] if keeper is None else [Heartbeat(keeper), stop]
        with stop.listening():
            run_specification(spec, output_dir, trainer=trainer, callbacks=callbacks)
        state = FINISHED
    except (Interrupted, KeyboardInterrupt) as error:
        state, reason = INTERRUPTED, str(error) or "stopped by the user"
        raise Interrupted(reason) from None
    except BaseException as error:
        state, reason = INTERRUPTED if isinstance(error, DiskFull) else FAILED, reason_of(error)
        raise
    finally:
        if keeper is not None:
            keeper.end(state, reason)


def reason_of(error: BaseException) -> str:
    """Why a run failed, in one line."""
    if isinstance(error, InputError):
        return " ".join(error.problems)
    lines = str(error).strip().splitlines()
    return f"{type(error).__name__}: {lines[0]}" if lines else type(error).__name__


def summary(result: dict[str, Any]) -> str:
    """A result in one line; what another version or a damaged file lacks is left out."""
    reported, metrics = numbers(result.get("reported")), numbers(result.get("metrics"))
    scores = [
        f"{name} {value:.2f}" + (f" (reported {reported[name]:.2f})" if name in reported else "")
        for name, value in metrics.items()
        if name in ("exact_match", "f1", "accuracy", "accuracy_mismatched", "matthews", "pearson", "spearman")
    ]
    counted = numbers(result)
    words = {
        "remaining_weights_percent": "{:.1f} % of the encoder's weights remain",
        "learned_weights_percent": "{:.2f} % learned",
    }
    weights = [part.format(counted[name]) for name, part in words.items() if name in counted]
    if counted.get("macs_kept", 1) < 1:
        weights.append(f"{100 * counted['macs_kept']:.1f} % of the MACs are left")
    times = numbers(result.get("latency_ms"))
    if times.get("pruned") and counted.get("macs_kept", 1) < 1:
        weights.append(f"{times.get('dense', 0) / times['pruned']:.2f} × as fast as dense")
    size = [f"{counted['adapter_bytes'] / 1024:,.0f} KiB"] if "adapter_bytes" in counted else []
    seconds = [f"{counted['seconds']:.0f} s"] if "seconds" in counted else []
    return "; ".join(part for part in (", ".join(scores), ", ".join(weights), *size, *seconds) if part)


def _tell(line: str) -> None:
    if is_first_process():
        print(line, flush=True)
