"""What a person did wrong, said in one sentence each.

Every check of the program collects its findings and raises one `InputError`; the commands print it
without a traceback and leave with exit code 2.
"""

from __future__ import annotations

import difflib
import re
import reprlib
import sys
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import islice

EXIT_CODE = 2
#: Characters of a value that a sentence shows, characters of a sentence, and sentences that are told at once.
SHOWN, SENTENCE, TOLD = 80, 1_000, 100
#: Sentences that differ in a row's number alone are counted from this one on.
_REPEATS = 5
_ROW_NUMBER = re.compile(r"\b((?:cell [A-Z]+|row ))\d+")
#: What a terminal would obey, or no file could hold.
_UNPRINTABLE = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\ud800-\udfff]")


class InputError(ValueError):
    """One or more problems with what the user gave: each a sentence that names place, finding and remedy.

    Whatever a sentence quotes, it is of `SENTENCE` characters at most and can be printed and written; one that comes
    several times is kept once, with their number.
    """

    def __init__(self, problems: str | Iterable[str]) -> None:
        counted = Counter(map(readable, [problems] if isinstance(problems, str) else problems))
        self.problems: list[str] = [
            problem if times == 1 else f"{problem} ({times:,} times)" for problem, times in counted.items()
        ]
        super().__init__("\n".join(told(self.problems)))

    def __reduce__(self) -> tuple[type[InputError], tuple[list[str]]]:
        return type(self), (self.problems,)  # a copy in another process has the same sentences


class DiskFull(InputError):
    """Nothing is wrong with what the user asked for: with free space the same command goes on."""


class Interrupted(BaseException):
    """Somebody asked a run to stop; it goes on from its last checkpoint. Not swallowed by ``except Exception``."""


def nearest(found: object, allowed: Iterable[object], aliases: Mapping[str, str] | None = None) -> str:
    """The closest allowed value as a clause (``; did you mean 'topK'?``), or an empty string.

    Args:
        aliases: what people say for an allowed value, in small letters → that value.
    """
    names = [str(name) for name in allowed]
    folded = dict(aliases or {}) | {name.lower(): name for name in names}
    match = difflib.get_close_matches(str(found)[:200].lower(), folded, n=1, cutoff=0.5)
    return f"; did you mean {folded[match[0]]!r}?" if match else ""


def cut(value: object, most: int = SHOWN) -> str:
    """`repr` of a value that may be of any size, as a sentence quotes it: at most about `most` characters of it."""
    if isinstance(value, str | bytes):
        return repr(value) if len(value) <= most else f"{value[:most]!r}… ({len(value):,} characters)"
    if isinstance(value, int) and value.bit_length() > 4 * most:
        return f"a whole number of about {round(value.bit_length() * 0.30103):,} digits"
    short = reprlib.Repr()
    short.maxstring = short.maxother = short.maxlong = most
    text = short.repr(value)
    return text if len(text) <= 2 * most else f"{text[:most]}…"


def named(names: Iterable[object], most: int = 20, digits: int = SHOWN) -> str:
    """Names as a list for a sentence: the first `most`, each of at most `digits` characters, and how many more."""
    every = names if isinstance(names, Collection) else list(names)
    first = [name if len(name) <= digits else f"{name[:digits]}…" for name in map(str, islice(every, most))]
    return ", ".join(first) + (f" and {len(every) - most:,} more" if len(every) > most else "")


def readable(text: str) -> str:
    """A text that can be printed and written as UTF-8, its middle left out where it is longer than `SENTENCE`."""
    if len(text) > SENTENCE:
        left = len(text) - SENTENCE
        text = f"{text[: SENTENCE * 2 // 3]}… ({left:,} characters left out) …{text[-SENTENCE // 3 :]}"
    return _UNPRINTABLE.sub(lambda found: ascii(found[0])[1:-1], text)


def told(problems: Sequence[str]) -> list[str]:
    """The first `TOLD` problems, and how many more there are."""
    more = len(problems) - TOLD
    return [*problems[:TOLD], f"and {more:,} more problems; mend these first."] if more > 0 else list(problems)


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
    """Sentences on standard error: repeats counted, and no more of them than a person reads."""
    for problem in told(_counted(problems)):
        print(f"error: {readable(problem)}", file=sys.stderr)


def _counted(problems: Sequence[str]) -> list[str]:
    """Sentences that differ in the number of a row only, from the sixth on, are counted behind the first."""
    alike: dict[str, list[str]] = {}
    for problem in problems:
        alike.setdefault(_ROW_NUMBER.sub(r"\1", problem, count=1), []).append(problem)
    kept: list[str] = []
    for same in alike.values():
        if len(same) <= _REPEATS:
            kept += same
            continue
        places = [match[0] for problem in same if (match := _ROW_NUMBER.search(problem)) is not None]
        where = f", up to {places[-1]}" if places else ""
        kept.append(f"{same[0]} So it is {len(same) - 1:,} times more{where}.")
    return kept


@contextmanager
def in_words_of_command(words: Mapping[str, str]) -> Iterator[None]:
    """Say problems that are raised inside in the words of another command.

    What several commands share names the options of one of them; a person is told those of the command at hand.

    Args:
        words: what is replaced by what, in this order.
    """
    try:
        yield
    except InputError as error:
        problems = error.problems
        for word, own in words.items():
            problems = [problem.replace(word, own) for problem in problems]
        if problems == error.problems:
            raise
        raise type(error)(problems) from error


@contextmanager
def exit_on_input_error() -> Iterator[None]:
    """Turn an `InputError` raised inside into printed sentences and exit code 2."""
    try:
        yield
    except InputError as error:
        print_problems(error.problems)
        raise SystemExit(EXIT_CODE) from None


def as_program(main: Callable[[list[str]], object]) -> None:
    """Run a command on the program's own arguments; what the user got wrong ends in sentences and exit code 2."""
    with exit_on_input_error():
        main(sys.argv[1:])
