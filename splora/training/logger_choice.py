"""Loggers that a row asks for besides its own: by a short name, or by the class path of any Lightning logger.

Imports no torch, unless a class path of somebody else's logger is asked for.
"""

from __future__ import annotations

import importlib
import inspect
from importlib.util import find_spec
from typing import Any

from splora.errors import InputError, nearest
from splora.training.run_folder import FOLDER

_LIGHTNING = "lightning.pytorch.loggers"
#: By short name: the class, the package that it needs, and its arguments; `{run}` is the run's name.
KNOWN: dict[str, tuple[str, str | None, dict[str, str]]] = {
    "wandb": ("WandbLogger", "wandb", {"save_dir": FOLDER, "name": "{run}"}),
    "mlflow": ("MLFlowLogger", "mlflow", {"save_dir": f"{FOLDER}/mlruns", "run_name": "{run}"}),
    "comet": ("CometLogger", "comet_ml", {}),
    "litlogger": ("LitLogger", "litlogger", {"root_dir": FOLDER, "name": "{run}"}),
    "csv": ("CSVLogger", None, {"save_dir": FOLDER, "name": "csv"}),
}


def chosen(text: str | None) -> list[str]:
    """The loggers that a cell names, with commas between them."""
    return [] if text is None else [name.strip() for name in text.split(",") if name.strip()]


def problem(text: str | None) -> str | None:
    """What is wrong with a cell as a predicate, or None; packages are looked for, not imported."""
    for name in chosen(text):
        if name not in KNOWN and "." not in name:
            hint = nearest(name, KNOWN)
            return f"is {name!r}; allowed are {', '.join(KNOWN)} and class paths such as {_LIGHTNING}.WandbLogger{hint}"
        package = _package(name)
        if package is not None and find_spec(package) is None:
            return f"is {name!r}, which needs the package {package}, and it is not installed here"
    return None


def entry(name: str, run: str) -> dict[str, Any]:
    """The ``{class_path, init_args}`` of a logger that writes into the run's folder, if it writes files at all.

    Raises:
        InputError: there is no such class.
    """
    known = _by_class(name)
    if known is not None:
        class_name, _, arguments = KNOWN[known]
        filled = {key: value.replace("{run}", run) for key, value in arguments.items()}
        return {"class_path": f"{_LIGHTNING}.{class_name}", "init_args": filled}
    module, _, class_name = name.rpartition(".")
    try:
        logger = getattr(importlib.import_module(module), class_name)
    except (ImportError, AttributeError) as error:
        raise InputError(f"logger: is {name!r}, which cannot be imported ({error}).") from error
    takes = inspect.signature(logger).parameters
    return {"class_path": name, "init_args": {"save_dir": FOLDER} if "save_dir" in takes else {}}


def _package(name: str) -> str | None:
    """The package that a logger needs besides Lightning."""
    known = _by_class(name)
    if known is not None:
        return KNOWN[known][1]
    top = name.partition(".")[0]
    return None if top == "lightning" else top


def _by_class(name: str) -> str | None:
    """The short name of a logger of Lightning's."""
    classes = {f"{_LIGHTNING}.{class_name}": short for short, (class_name, _, _) in KNOWN.items()}
    return name if name in KNOWN else classes.get(name)
