"""One row, run: trained into its folder unless it is finished there, told about, and added to runs/results."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Any

from splora.training.specification import RunSpecification


def run(
    spec: RunSpecification, output_dir: Path, force: bool = False, trainer: dict[str, Any] | None = None
) -> dict[str, Any]:
    """Run a row into `output_dir`; returns its result.

    Args:
        force: run it again although it is finished.
        trainer: settings of the machine: devices, strategy, accelerator.

    Raises:
        InputError: see `splora.training.run.run`.
    """
    from hparams.results import record
    from splora.quiet import quiet_libraries
    from splora.training.run import RESULT, claim_folder
    from splora.training.run import run as run_specification

    finished = claim_folder(spec, output_dir, force)
    if not finished:
        _tell(f"EXP ID {spec.exp_id}: {spec.model or spec.pruning_method} into {output_dir}")
        quiet_libraries()
        run_specification(spec, output_dir, trainer=trainer)
    result = dict(json.loads((output_dir / RESULT).read_text(encoding="utf-8")))
    if int(os.environ.get("LOCAL_RANK", "0")) == 0:
        for problem in record(spec, result, output_dir):
            print(f"warning: {problem}", file=sys.stderr)
        _tell(f"EXP ID {spec.exp_id}: {'finished before, ' if finished else ''}{summary(result)}")
    return result


def summary(result: dict[str, Any]) -> str:
    """A result in one line."""
    reported = result.get("reported", {})
    scores = [
        f"{name} {value:.2f}" + (f" (reported {reported[name]:.2f})" if name in reported else "")
        for name, value in result["metrics"].items()
        if name in ("exact_match", "f1", "accuracy", "accuracy_mismatched", "matthews", "pearson", "spearman")
    ]
    return (
        f"{', '.join(scores)}; {result['remaining_weights_percent']:.1f} % of the encoder's weights remain, "
        f"{result['learned_weights_percent']:.2f} % learned; {result['adapter_bytes'] / 1024:,.0f} KiB; "
        f"{result['seconds']:.0f} s"
    )


def _tell(line: str) -> None:
    if int(os.environ.get("LOCAL_RANK", "0")) == 0:
        print(line, flush=True)
