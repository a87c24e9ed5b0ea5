"""Names of folders for results, made of EXP IDs and sheets' names, which anybody may have typed."""

from __future__ import annotations

import os
import re

from splora.errors import InputError
from splora.json_values import one_line

#: What file systems refuse in a name, and what moves a terminal's cursor.
_REFUSED = re.compile(r'[\\/:*?"<>|\s\x00-\x1f\x7f-\x9f]+')
#: Bytes of a folder's name: file systems take 255, and names with something before and after them are made of it.
_LONGEST = 180
#: Files beside the folders of sheets.
_TAKEN = ("results.csv", "results.xlsx")


def folder_name(exp_id: int | str) -> str:
    """A row's folder: its EXP ID, without the characters that a file system refuses.

    Raises:
        InputError: no folder can be called so; see `unfit`.
    """
    if (found := unfit(exp_id)) is not None:
        raise InputError(f"EXP ID {one_line(repr(exp_id), 60)} {found}.")
    return _REFUSED.sub("-", str(exp_id))


def unfit(name: int | str) -> str | None:
    """Why a sheet or an EXP ID cannot name a folder of results, as a sentence's end; None if it can."""
    folder = _REFUSED.sub("-", str(name))
    if (size := len(folder.encode("utf-8", "replace"))) > _LONGEST:
        return f"has {size} bytes, and results go to a folder of that name; {_LONGEST} are possible"
    if not folder.strip("-") or folder.startswith("."):
        return "cannot name the folder that results go to; it begins with a dot, or holds nothing but signs"
    if folder.lower() in _TAKEN:
        return "cannot name the folder that results go to; a file there is called so"
    try:
        os.fsencode(folder)
    except UnicodeError:
        return "cannot name the folder that results go to; it holds half a character"
    return None
