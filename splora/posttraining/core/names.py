"""Published names of OPT models, and where their checkpoints are."""

from __future__ import annotations

import re
from pathlib import Path

from splora.files import expanded


def checkpoint_name(name: str) -> str:
    """The hub's name of a published one (`opt-125M` is `facebook/opt-125m`); a folder or another name as it is."""
    if not expanded(name).exists() and re.fullmatch(r"opt-[\d.]+[mb]", name, re.IGNORECASE):
        return f"facebook/{name.lower()}"
    return name


def summary_path(name: str) -> Path:
    """The text file that gets a line for each result of a model: `output/opt/<model>.txt`."""
    return Path("output") / "opt" / f"{Path(name).name}.txt"


def evaluation_folder(name: str, task: str) -> Path:
    """Where the result of evaluating a model as it is goes: `output/<model>/<task>/evaluate`."""
    return Path("output") / Path(name).name / task / "evaluate"
