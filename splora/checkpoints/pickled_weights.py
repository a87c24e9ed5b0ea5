"""Refuses `pytorch_model.bin` files that hold anything but weights, before transformers opens them.

Reading with `weights_only` runs no code of such a file, but says so in pages; and damaged files raise what they like.
"""

from __future__ import annotations

import pickle
import re
import warnings
from collections.abc import Iterable, Mapping
from pathlib import Path

import torch

from splora.errors import InputError
from splora.tasks.source_names import local_folder


def pickles(name: str) -> Iterable[Path]:
    """Files of a folder that transformers would unpickle: it prefers safetensors where they are there."""
    folder = local_folder(name)
    if folder is None or any(
        (folder / file).is_file() for file in ("model.safetensors", "model.safetensors.index.json")
    ):
        return []
    return sorted(folder.glob("pytorch_model*.bin"))


def check_pickle(path: Path) -> list[str]:
    """The names in a file of tensors by name and nothing else; no tensor is read for it.

    Raises:
        InputError: otherwise; code in it is named and not run.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about pickle protocols
            content = torch.load(path, map_location="meta", weights_only=True)
    except pickle.UnpicklingError as error:
        raise InputError(not_only_weights(str(path), error)) from None
    except Exception as error:  # anything: the unpickler does what a damaged or made-up file says
        reason = (str(error).strip().splitlines() or [""])[0].partition(". ")[0].rstrip(".")
        raise InputError(f"{path}: cannot be read as weights ({reason or type(error).__name__}).") from None
    if not isinstance(content, Mapping) or not any(isinstance(value, torch.Tensor) for value in content.values()):
        raise InputError(f"{path}: holds no weights by name.")
    return list(map(str, content))


def not_only_weights(where: str, error: Exception) -> str:
    """A sentence about the refusal of a pickle at `where`."""
    called = re.search(r"GLOBAL ([\w.]+)", str(error))
    what = f", namely {called[1]}" if called else ""
    return f"{where}: is not read, as it is damaged or holds something else than weights{what}; pass safetensors."
