"""`result.json` of a finished run: read so that whatever became of it is a result or a sentence."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from splora.errors import InputError
from splora.json_values import read_or_refuse
from splora.run_files import RESULT as RESULT


def read_result(folder: Path) -> dict[str, Any]:
    """What the run of a folder measured; it has at least `metrics`.

    Raises:
        InputError: there is none, or it is not the result of a run.
    """
    path = folder / RESULT
    result = read_or_refuse(path)
    if result is None:
        raise InputError(f"{folder}: no finished run is here (there is no {RESULT}).")
    if not isinstance(result.get("metrics"), dict):
        raise InputError(f"{path}: is not the result of a run (it holds no metrics).")
    return result
