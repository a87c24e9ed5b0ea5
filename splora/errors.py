"""What a person did wrong, said in one sentence each.

Every check of the program collects its findings and raises one `InputError`; the commands print it
without a traceback and leave with exit code 2.
"""

from __future__ import annotations

import difflib
import re
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager

EXIT_CODE = 2
#: Sentences that a command prints at most, and characters of each.
MAX_TOLD, MAX_LENGTH = 100, 1_000
_REPEATS = 5
_ROW_NUMBER = re.compile(r"\b((?:cell [A-Z]+|row ))\d+")


class InputError(ValueError):
    """One or more problems with what the user gave: each a sentence that names place, finding and remedy."""

    def __init__(self, problems: str | Iterable[str]) -> None:
        self.problems: list[str] = [problems] if isinstance(problems, str) else list(problems)
        super().__init__("\n".join(self.problems))


class DiskFull(InputError):
    """Nothing is wrong with what the user asked for: with free space the same command goes on."""


class Interrupted(BaseException):
    """Somebody asked a run to stop; it goes on from its last checkpoint. Not swallowed by ``except Exception``."""


def cut(value: object, length: int = 80) -> str:
    """``repr(value)``, of which a long one is only begun: messages are read by people."""
    if isinstance(value, str) and len(value) > length:
        return f"{value[:length]!r}… ({len(value):,} characters)"
    text = repr(value)
    return text if len(text) <= 4 * length else f"{text[:length]}… ({len(text):,} characters)"


def nearest(found: object, allowed: Iterable[object], aliases: Mapping[str, str] | None = None) -> str:
    """The closest allowed value as a clause (``; did you mean 'topK'?``), or an empty string.

    Args:
        aliases: what people say for an allowed value, in small letters → that value.
    """
    names = [str(name) for name in allowed]
    folded = dict(aliases or {}) | {name.lower(): name for name in names}
    match = difflib.get_close_matches(str(found)[:200].lower(), folded, n=1, cutoff=0.5)
    return f"; did you mean {folded[match[0]]!r}?" if match else ""


def problems_of(*checks: Callable[[], object]) -> list[str]:
    """What all checks find, in their order: none keeps another from being made."""
    problems: list[str] = []
    for check in checks:
        try:
            check()
        except InputError as error:
            problems += error.problems
    return problems


def print_problems(problems: Sequence[str]) -> None:
    """Sentences on standard error: repeats counted, none longer than a screen, no more than a person reads."""
    counted = _counted(problems)
    for problem in counted[:MAX_TOLD]:
        print(f"error: {problem if len(problem) <= MAX_LENGTH else _shortened(problem)}", file=sys.stderr)
    if len(counted) > MAX_TOLD:
        print(f"error: and {len(counted) - MAX_TOLD:,} more problems; mend these first.", file=sys.stderr)


def _counted(problems: Sequence[str]) -> list[str]:
    """Sentences that differ in the number of a row only, from the sixth on, are counted behind the first."""
    alike: dict[str, list[str]] = {}
    for problem in problems:
        alike.setdefault(_ROW_NUMBER.sub(r"\1", problem, count=1), []).append(problem)
    told: list[str] = []
    for same in alike.values():
        if len(same) <= _REPEATS:
            told += same
            continue
        places = [match[0] for problem in same if (match := _ROW_NUMBER.search(problem)) is not None]
        where = f", up to {places[-1]}" if places else ""
        told.append(f"{same[0]} So it is {len(same) - 1:,} times more{where}.")
    return told


def _shortened(problem: str) -> str:
    kept = MAX_LENGTH // 2
    return f"{problem[:kept]} … ({len(problem) - 2 * kept:,} characters left out) … {problem[-kept:]}"


@contextmanager
def exit_on_input_error() -> Iterator[None]:
    """Turn an `InputError` raised inside into printed sentences and exit code 2."""
    try:
        yield
    except InputError as error:
        print_problems(error.problems)
        raise SystemExit(EXIT_CODE) from None
