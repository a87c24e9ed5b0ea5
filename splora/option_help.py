"""Options of a command that take one of a few values: shown in its help, and checked in one sentence each."""

from __future__ import annotations

import argparse
from collections.abc import Iterable, Mapping
from typing import Any

from splora.errors import nearest

_OTHER = str.maketrans("_-", "-_")


def add_choice(
    parser: argparse._ActionsContainer,
    *names: str,
    allowed: Iterable[object],
    help: str,
    default: object = None,
    **others: Any,
) -> None:
    """Add an option whose help lists what is allowed.

    Args:
        others: for argparse. With a `metavar` the values stand in the text, else they are the metavar.

    argparse's own `choices` would end a mistake with its usage; `wrong_choices` names the nearest value.
    """
    values = [str(value) for value in allowed]
    usual = "" if default is None else f" (default: {default})"
    shown = "|".join(values)
    if "metavar" in others:  # a list that is long belongs into the text
        shown, help = others.pop("metavar"), f"{help}: {', '.join(values)}"
    parser.add_argument(*names, default=default, metavar=shown, help=help + usual, **others)


def spellings(*names: str) -> tuple[str, ...]:
    """Names of an option, each with `_` and with `-` between its words, the given one first."""
    both = ((name, f"--{name[2:].translate(_OTHER)}") for name in names)
    return tuple(dict.fromkeys(name for pair in both for name in pair))


def wrong_choices(options: argparse.Namespace, allowed: Mapping[str, Iterable[object]]) -> list[str]:
    """A sentence for each option that is given and none of its choices, by the name of its attribute."""
    problems = []
    for name, choices in allowed.items():
        value, values = getattr(options, name), [str(choice) for choice in choices]
        if value is not None and str(value) not in values:
            option = f"--{name}"
            problems.append(f"{option} is {value!r}; allowed are {', '.join(values)}{nearest(value, values) or '.'}")
    return problems
