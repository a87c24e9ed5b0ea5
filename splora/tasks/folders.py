"""Finds the files of a split in a data folder by their usual names; imports nothing heavy.

Usual names are those of GLUE and SQuAD (`train.tsv`, `dev_matched.tsv`, `dev-v1.1.json`) and those that `datasets`
gives (`validation.parquet`, `train-00000-of-00002.parquet` and its other shards).
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from pathlib import Path

from splora.errors import InputError

#: Names that one sentence lists before it says how many more there are.
NAMED = 12
_SHARD = r"(?:-(?P<shard>\d{5})-of-(?P<shards>\d{5}))?"


def find_files(folder: Path, stems: str, suffixes: Sequence[str]) -> list[Path]:
    """The files of one data set in a folder: one file, its shards in their order, or none.

    Args:
        stems: a regular expression of names without suffix and shard, e.g. ``train|training``; case does not matter.
        suffixes: allowed endings, with their dots.

    Raises:
        InputError: more than one data set has such a name, some shards are missing, or the folder cannot be read.
    """
    endings = "|".join(re.escape(suffix) for suffix in suffixes)
    pattern = re.compile(rf"(?P<stem>{stems}){_SHARD}(?P<suffix>{endings})", re.IGNORECASE)
    found: dict[tuple[str, str, int | None], dict[int, Path]] = {}
    for path in files_of(folder):
        match = pattern.fullmatch(path.name)
        if match is not None:
            shards = match["shards"] and int(match["shards"])
            key = match["stem"], match["suffix"], shards or None
            found.setdefault(key, {})[int(match["shard"] or 0)] = path
    if len(found) > 1:
        names = [min(parts.items())[1].name for parts in found.values()]
        raise InputError(
            f"{folder}: holds {' and '.join(names)}, and which of them is meant cannot be told; pass one as a file, "
            f"or remove the others."
        )
    for (stem, suffix, shards), parts in found.items():
        lacking = [number for number in range(shards or 1) if number not in parts]
        if lacking:
            name = f"{stem}-{lacking[0]:05}-of-{shards or 0:05}{suffix}"
            raise InputError(f"{folder}: {name} is missing ({len(lacking)} of {shards} shards are).")
        return [path for _, path in sorted(parts.items())]
    return []


def files_of(folder: Path) -> list[Path]:
    """The files of a folder by name, without hidden ones.

    Raises:
        InputError: the folder cannot be read.
    """
    try:
        return sorted(path for path in folder.iterdir() if path.is_file() and not path.name.startswith("."))
    except OSError as error:
        raise InputError(f"{folder}: cannot be read ({error.strerror or error}).") from None


def content_of(folder: Path) -> str:
    """What a folder holds, for the end of a sentence: ``it holds dev.tsv and readme.md``."""
    names = [path.name for path in files_of(folder)]
    return f"it holds {listed(names)}" if names else "it holds no files"


def listed(names: Iterable[str]) -> str:
    """Names as words: ``a, b and c``, or the first of many and how many more there are."""
    every = list(names)
    if len(every) > NAMED:
        return f"{', '.join(every[:NAMED])} and {len(every) - NAMED:,} more"
    return " and ".join(filter(None, [", ".join(every[:-1]), *every[-1:]]))
