"""Prepared arrays on disk, found again by the content they were made from.

A cache file is named by a digest of everything that decides its content, so that it is never out of date, and holds
a checksum, so that a damaged one is made again. Two processes that prepare the same at once both write the same file,
each beside its name and renamed into place.
"""

from __future__ import annotations

import errno
import hashlib
import logging
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from splora.errors import InputError
from splora.files import replacing

Arrays = dict[str, npt.NDArray[Any]]

#: Entry of the file's metadata that holds the checksum of its arrays.
_CHECKSUM = "blake2b"

logger = logging.getLogger(__name__)


def default_folder() -> Path:
    """`$SPLORA_CACHE`, else `splora` in the user's cache folder."""
    named = os.environ.get("SPLORA_CACHE")
    if named:
        return Path(named)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "splora"


def digest(*parts: object) -> str:
    """A name for content made from `parts`; bytes count as they are, all else by its `repr`."""
    total = hashlib.sha256()
    for part in parts:
        content = part if isinstance(part, bytes) else repr(part).encode("utf-8", "surrogatepass")
        total.update(len(content).to_bytes(8, "little"))
        total.update(content)
    return total.hexdigest()[:32]


def cached(folder: str | os.PathLike[str] | None, name: str, key: str, make: Callable[[], Arrays]) -> Arrays:
    """The arrays of the file `name-key.safetensors`, or those that `make` returns, kept there for the next time.

    Args:
        folder: where cache files lie; None: `default_folder`. A folder that cannot be written to costs only time.
        name: says to a reader of the folder what it is.
        key: from `digest`.
    """
    path = (Path(folder) if folder is not None else default_folder()) / f"{name}-{key}.safetensors"
    found = load(path)
    if found is None:
        found = make()
        try:
            save(path, found)
        except (InputError, OSError) as error:
            logger.warning("Prepared data are not kept: %s", error)
    return found


def save(path: Path, arrays: Mapping[str, npt.NDArray[Any]]) -> None:
    """Write arrays with their checksum.

    Raises:
        InputError: the folder cannot be written to.
    """
    from safetensors import SafetensorError
    from safetensors.numpy import save_file

    whole = {name: np.ascontiguousarray(array) for name, array in arrays.items()}
    with replacing(path) as beside:
        try:
            save_file(whole, beside, metadata={_CHECKSUM: _checksum(whole)})
        except SafetensorError as error:  # a full disk, in words of its own
            full = os.strerror(errno.ENOSPC) in str(error)
            raise OSError(errno.ENOSPC if full else errno.EIO, str(error)) from error


def load(path: Path) -> Arrays | None:
    """The arrays of a file, or None where it is missing or damaged."""
    from safetensors import SafetensorError, safe_open

    try:
        if not path.is_file():
            return None
        with safe_open(path, framework="numpy") as file:
            found = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - not a mapping
            wanted = (file.metadata() or {}).get(_CHECKSUM)
    except (SafetensorError, OSError, ValueError) as error:
        logger.warning("%s: the cached data cannot be read (%s) and are made again.", path, error)
        return None
    if wanted != _checksum(found):
        logger.warning("%s: the cached data are damaged and are made again.", path)
        return None
    return found


def _checksum(arrays: Mapping[str, npt.NDArray[Any]]) -> str:
    total = hashlib.blake2b(digest_size=16)
    for name in sorted(arrays):
        total.update(f"{name} {arrays[name].dtype.str} {arrays[name].shape}".encode())
        total.update(np.ascontiguousarray(arrays[name]).data)
    return total.hexdigest()
