"""What the name of a model or of data means: something beside the user, or a name of the hub. One place decides.

Imports no torch and opens no network: a check before a run says the same as what loads.
"""

from __future__ import annotations

import difflib
import re
from pathlib import Path

from splora.adapter_files import is_adapter
from splora.files import expanded
from splora.model_sizes import WEIGHTS
from splora.run_files import MODEL, RESULT

#: Name of the small model and of the data sets that the project makes itself.
EMBEDDED = "embedded"
_HUB_NAME = re.compile(r"\w[\w.-]*(/\w[\w.-]*)?")


#: What a file's name ends with; names on the hub may end with the number of a version.
_ENDING = re.compile(r"[.][A-Za-z]\w*")


def is_path(name: str) -> bool:
    """Whether a model's name can only be a folder's: hub names are one word, or owner/name."""
    return name.startswith((".", "/", "~")) or name.endswith("/") or name.count("/") > 1


def local_folder(name: str) -> Path | None:
    """The folder that a model's name means, or None where it means a model of the hub.

    A folder with neither weights nor an adapter, such as this project's `bert-base-uncased` before it is filled, never
    stands in the way of the hub's model of that name: only what can be nothing but a path (`./bert-base-uncased`)
    means it. The folder of a finished run means the model in it.
    """
    folder = expanded(name)
    try:
        if name == EMBEDDED or not folder.is_dir():
            return None
    except OSError:  # a name too long for a folder's
        return None
    if has_weights(folder) or is_adapter(folder):
        return folder
    if (trained := model_of_run(folder)) is not None:
        return trained
    return folder if is_path(name) else None


def model_of_run(folder: Path) -> Path | None:
    """The model in the folder of a finished run; None where it is no such folder."""
    model = folder / MODEL
    return model if (folder / RESULT).is_file() and has_weights(model) else None


def has_weights(folder: Path) -> bool:
    """Whether a folder holds weights of a model, plain, in shards or quantized."""
    try:
        return any(WEIGHTS.fullmatch(path.name) for path in folder.iterdir())
    except OSError:
        return False


def is_hub_model(name: str) -> bool:
    """Whether a name is one of the hub's models, if it is any model's."""
    return name != EMBEDDED and _HUB_NAME.fullmatch(name) is not None and local_folder(name) is None


def is_data_set(source: str) -> bool:
    """Whether the source of data is a data set of the hub: `owner/name`, where no such file or folder is."""
    is_file = _ENDING.fullmatch(Path(source).suffix) is not None
    return source.count("/") == 1 and not is_path(source) and not is_file and not exists(source)


def mistyped(source: str) -> str:
    """The clause `; did you mean …?` for a path that is not there, where what lies beside it is named nearly so.

    It tells `models/bart`, beside a folder `models/bert`, from a name of the hub whose owner has a folder's name here.
    """
    path = expanded(source)
    try:
        beside = [] if path.exists() else [other.name for other in path.parent.iterdir()]
    except (OSError, ValueError):  # too long for a name, or no character of one
        return ""
    match = difflib.get_close_matches(path.name, beside, n=1, cutoff=0.75)
    return f"; did you mean {str(path.parent / match[0])!r}?" if match else ""


def is_folder(name: str) -> bool:
    """Whether there is such a folder."""
    return exists(name) and expanded(name).is_dir()


def exists(source: str) -> bool:
    """Whether there is such a file or folder; a name too long for one is none."""
    try:
        return expanded(source).exists()
    except (OSError, ValueError):
        return False
