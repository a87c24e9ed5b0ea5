"""One row, run: resolves `run:ID`, trains, and adds the result to runs/results."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from splora.training.specification import RunSpecification


def run(
    spec: RunSpecification, output_dir: Path, force: bool = False, trainer: dict[str, Any] | None = None
) -> dict[str, Any]:
    """Run a row into `output_dir` unless it is finished there; returns its result.

    Raises:
        InputError: see `splora.training.run.run`.
    """
    from splora.training.quiet import quiet_libraries
    from splora.training.run import RESULT
    from splora.training.run import run as run_specification

    quiet_libraries()
    run_specification(spec, output_dir, force=force, trainer=trainer)
    return dict(json.loads((output_dir / RESULT).read_text(encoding="utf-8")))
