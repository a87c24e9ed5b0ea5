"""One path: a run's folder is `trainer.default_root_dir`, and every other path of a configuration follows from it.

A configuration writes `FOLDER` where a logger or a callback needs a path. Configurations of before held copies of the
folder instead; those follow, too. Imports no torch.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from splora.errors import InputError
from splora.run_files import CHECKPOINTS, MARKS, TENSORBOARD

#: Stands for the run's folder in the paths of loggers, callbacks and plugins.
FOLDER = "${trainer.default_root_dir}"
#: Arguments of loggers and callbacks that say where they write.
_PATHS = ("save_dir", "dirpath", "output_dir", "log_dir", "root_dir", "dir")
#: Copies of the run's folder in configurations of before, by class and argument.
_COPIES = {"RunResult": "output_dir", "MaskPictures": "output_dir", "ResumableCSVLogger": "save_dir"}


def follow(trainer: Any) -> None:
    """Put the paths of a configuration's trainer section into its `default_root_dir`, in place.

    Args:
        trainer: the section, as a dictionary or as jsonargparse's namespace; `default_root_dir` is set.

    Raises:
        InputError: a logger or a callback would write into the folder of another run.
    """
    unify(trainer)
    folder = str(trainer["default_root_dir"])
    problems = []
    for section, entry, name, value in _texts(trainer):
        path = entry["init_args"][name] = value.replace(FOLDER, folder)
        if name in _PATHS and (other := _other_run(path, folder)) is not None:
            problems.append(
                f"trainer.{section}: {class_name(entry)} would write into {other}, which is another run's folder; "
                f"leave its {name} out, or set it to {FOLDER}."
            )
    for entry in entries(trainer.get("logger")):
        # Loggers put their files into a folder by the name and the version that they are given.
        arguments = entry.get("init_args") or {}
        parts = [arguments.get(name) for name in ("save_dir", "name", "version")]
        place = os.path.join(*(part for part in parts if isinstance(part, str) and part), "")  # noqa: PTH118
        if place and parts[0] and (other := _other_run(place, folder)) is not None:
            problems.append(
                f"trainer.logger: {class_name(entry)} would write into {other}, which is another run's folder; "
                f"choose another name, or set save_dir to {FOLDER}."
            )
    if problems:
        raise InputError(dict.fromkeys(problems))


def unify(trainer: Any) -> list[str]:
    """Write `FOLDER` where loggers and callbacks hold copies of a run's folder, in place.

    Returns:
        A sentence for each folder that they named and that is not `default_root_dir`.
    """
    folder = str(trainer["default_root_dir"])
    copied = [*_copies(trainer), folder]
    moved = {}
    for section, entry, name, path in _texts(trainer):
        old = next((old for old in copied if _is_within(path, old) and (name in _PATHS or old != folder)), None)
        if old is None or FOLDER in path:
            continue
        inner = os.path.relpath(path, old)
        entry["init_args"][name] = FOLDER if inner == "." else f"{FOLDER}/{Path(inner).as_posix()}"
        if not _is_within(path, folder):
            moved[old] = f"{old} in trainer.{section} follows trainer.default_root_dir: {folder}."
    return list(moved.values())


def entries(section: Any) -> Iterator[Any]:
    """The ``{class_path, init_args}`` entries of a section that may be a list, one entry, true, false or empty."""
    for entry in section if isinstance(section, list) else [section]:
        if not isinstance(entry, bool | str) and entry is not None and "class_path" in entry:
            yield entry


def class_name(entry: Any) -> str:
    """Name of an entry's class, without its module."""
    return str(entry["class_path"]).rpartition(".")[2]


def _texts(trainer: Any) -> Iterator[tuple[str, Any, str, str]]:
    """Section, entry, name and value of every argument of loggers and callbacks that is a text or a path."""
    for section in ("logger", "callbacks", "plugins"):
        for entry in entries(trainer.get(section)):
            arguments = entry.get("init_args") or {}
            for name in list(arguments.keys()):
                if isinstance(arguments[name], str | os.PathLike):
                    yield section, entry, name, str(arguments[name])


def _copies(trainer: Any) -> Iterator[str]:
    """Folders of runs that arguments name which hold nothing else."""
    for _, entry, name, path in _texts(trainer):
        kind = class_name(entry)
        if kind == "ModelCheckpoint" and name == "dirpath" and Path(path).name == CHECKPOINTS:
            yield str(Path(path).parent)
        elif _COPIES.get(kind) == name or (kind == "TensorBoardLogger" and name == "save_dir" and _is_ours(entry)):
            yield path


def _is_ours(tensorboard: Any) -> bool:
    return bool(tensorboard["init_args"].get("version") == TENSORBOARD)


def _is_within(path: str, folder: str) -> bool:
    inner, outer = os.path.realpath(path), os.path.realpath(folder)
    return inner == outer or inner.startswith(outer.rstrip(os.sep) + os.sep)


def _other_run(path: str, folder: str) -> Path | None:
    """The run's folder that `path` lies in, if that is not `folder` nor around it."""
    if _is_within(path, folder):
        return None
    place = Path(os.path.realpath(path))
    for parent in (place, *place.parents):
        if any((parent / mark).is_file() for mark in MARKS) and not _is_within(folder, str(parent)):
            return parent
    return None
