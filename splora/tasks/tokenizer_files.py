"""A tokenizer's files, judged before a library builds one of them, and what it built, before it is used and saved."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from splora.errors import InputError, cut
from splora.reading import TOKENIZER, half_character, kind, limit, megabytes, more_allowed, parse_json, read_text

#: Files of settings that are written again, as they are, beside what a run leaves.
SETTINGS = ("tokenizer_config.json", "special_tokens_map.json", "added_tokens.json")
#: Files of words, which the library reads itself.
WORDS = ("tokenizer.json", "vocab.json", "vocab.txt", "merges.txt")


def check_files(folder: Path) -> None:
    """Refuse files that no tokenizer has, or that could be read but not written again when all is done.

    Raises:
        InputError: a file is larger than `TOKENIZER`; settings are no JSON object, or hold half a character.
    """
    for name in (*SETTINGS, *WORDS):
        path = folder / name
        if path.is_file() and path.stat().st_size > limit(TOKENIZER):
            raise InputError(
                f"{path}: has {megabytes(path.stat().st_size)}; a tokenizer's file of at most "
                f"{megabytes(limit(TOKENIZER))} is read; {more_allowed()}."
            )
    for name in SETTINGS:
        path = folder / name
        if not path.is_file():
            continue
        found = parse_json(read_text(path), str(path))
        if not isinstance(found, dict):
            raise InputError(f"{path}: holds {kind(found)} where an object is needed.")
        half = half_character(json.dumps(found, ensure_ascii=False))
        if half:
            raise InputError(f"{path}: holds half a character ({half}), which cannot be written again.")


def check_built(tokenizer: Any, where: str) -> None:
    """Refuse a tokenizer whose settings are none, by a text that it is given.

    Raises:
        InputError: its greatest length is no number above 0, or it cannot take a text.
    """
    longest = tokenizer.model_max_length
    if isinstance(longest, bool) or not isinstance(longest, int | float) or not longest >= 1:
        raise InputError(f"{where}: model_max_length of its tokenizer is {cut(longest)}; a number above 0 is needed.")
    try:
        tokenizer("a text", "and another")
    except BaseException as error:
        raise_unless_library(error)
        raise InputError(f"{where}: the tokenizer cannot be used ({first_line(error)}).") from None


def check_list(tokenizer: Any, folder: Path) -> None:
    """Compare a tokenizer with the list of words beside it: one of the two is then another model's.

    Raises:
        InputError: `vocab.txt` numbers a token otherwise.
    """
    path = folder / "vocab.txt"
    try:
        words = path.read_text(encoding="utf-8").split("\n")  # words may be signs that `splitlines` ends lines at
    except (OSError, ValueError):
        return
    numbers = tokenizer.get_vocab()
    for number, word in enumerate(words):
        if numbers.get(word, number) != number:
            raise InputError(
                f"{folder}: {path.name} and tokenizer.json contradict each other: {cut(word)} is number {number:,} "
                f"in the one and {numbers[word]:,} in the other; remove the one that is another model's."
            )


def raise_unless_library(error: BaseException) -> None:
    """Raise an error again that is not a library's about a file: a person's Ctrl-C, or a sentence of ours.

    The tokenizers library raises plain `Exception`, and where it did not expect a file's shape a `PanicException`,
    which is none.
    """
    if isinstance(error, InputError) or not (isinstance(error, Exception) or type(error).__name__ == "PanicException"):
        raise error


def first_line(error: BaseException) -> str:
    """The first line of what a library says of a mistake, with its kind where the words alone say little."""
    lines = str(error).strip().splitlines()
    return lines[0].rstrip(".") if lines and len(lines[0]) > 12 else f"{type(error).__name__}: {error}"
