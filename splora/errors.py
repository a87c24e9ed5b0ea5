"""What a person did wrong, said in one sentence each.

Every check of the program collects its findings and raises one `InputError`; the commands print it
without a traceback and leave with exit code 2.
"""

from __future__ import annotations

import difflib
import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager

EXIT_CODE = 2


class InputError(ValueError):
    """One or more problems with what the user gave: each a sentence that names place, finding and remedy."""

    def __init__(self, problems: str | Iterable[str]) -> None:
        self.problems: list[str] = [problems] if isinstance(problems, str) else list(problems)
        super().__init__("\n".join(self.problems))


class DiskFull(InputError):
    """Nothing is wrong with what the user asked for: with free space the same command goes on."""


class Interrupted(BaseException):
    """Somebody asked a run to stop; it goes on from its last checkpoint. Not swallowed by ``except Exception``."""


def nearest(found: object, allowed: Iterable[object]) -> str:
    """The closest allowed value as a clause (``; did you mean 'topK'?``), or an empty string."""
    names = [str(name) for name in allowed]
    folded = {name.lower(): name for name in names}
    match = difflib.get_close_matches(str(found).lower(), folded, n=1, cutoff=0.5)
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


@contextmanager
def exit_on_input_error() -> Iterator[None]:
    """Turn an `InputError` raised inside into printed sentences and exit code 2."""
    try:
        yield
    except InputError as error:
        for problem in error.problems:
            print(f"error: {problem}", file=sys.stderr)
        raise SystemExit(EXIT_CODE) from None
