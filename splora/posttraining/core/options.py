"""Options as fields of a dataclass, from which come command line, help and checks. Imports no torch."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field, fields
from types import NoneType, UnionType
from typing import Any, Literal, NamedTuple, TypeVar, get_args, get_origin, get_type_hints

from splora.errors import InputError, nearest
from splora.option_help import add_choice, spellings

T = TypeVar("T")


class Written(NamedTuple):
    """How a value that is neither a number nor a name is written on the command line.

    Attributes:
        read: makes the value of a text, or raises ValueError.
        write: makes the text of a value.
        shown: stands for the text in the help.
    """

    read: Callable[[str], Any]
    write: Callable[[Any], str]
    shown: str


def option(
    default: Any,
    help: str,
    *flags: str,
    holds: Callable[[Any], bool] | None = None,
    form: str = "",
    written: Written | None = None,
    allowed: Iterable[object] = (),
    shown: str = "",
) -> Any:
    """A field of a dataclass of options.

    Args:
        default: its value where nobody says another.
        help: what it means, without the default.
        flags: what it is called on the command line, the usual spelling first; none: it is an option from Python alone.
            One that is True by default is switched off by its flag, whose name says so.
        holds: whether a value may be; not asked where it is the default.
        form: what the sentence says of a value that may not: `it must be 0 or larger`.
        written: how it is written on the command line.
        allowed: values that it may be, where its type does not say them.
        shown: stands for the value in the help.
    """
    metadata = {"help": help, "flags": flags, "holds": holds, "form": form, "written": written}
    return field(default=default, metadata={**metadata, "allowed": tuple(allowed), "shown": shown})


def at_least(least: float) -> dict[str, Any]:
    """`holds` and `form` of an option with a smallest value."""
    return {"holds": lambda value: least <= value < float("inf"), "form": f"it must be {least:g} or larger"}


class Option(NamedTuple):
    """One option of a dataclass.

    Attributes:
        kind: type of its values, without None.
        allowed: values that it may be; empty: any that `holds`.
    """

    name: str
    kind: Any
    default: Any
    allowed: tuple[object, ...]
    metadata: Mapping[str, Any]

    @property
    def flags(self) -> tuple[str, ...]:
        """Its spellings on the command line, with `_` and with `-`."""
        return spellings(*self.metadata["flags"])

    @property
    def attribute(self) -> str:
        """Where the parsed command line has it."""
        return str(self.metadata["flags"][0]).removeprefix("--").replace("-", "_")

    def said(self, value: Any) -> list[str]:
        """The words of a command that say a value."""
        flag, written = self.metadata["flags"][0], self.metadata["written"]
        if isinstance(self.default, bool):
            return [flag] if value is not None and bool(value) != self.default else []
        if written:
            with suppress(TypeError, ValueError):  # of a file that says anything
                return [flag, written.write(value)]
        return [flag, f"{value:g}" if isinstance(value, float) else str(value)]


def options_of(kind: type) -> dict[str, Option]:
    """The options of a dataclass by name; fields that are none are left out."""
    hints = get_type_hints(kind)
    found = {}
    for each in fields(kind):
        if "flags" not in each.metadata:
            continue
        hint = hints[each.name]
        if get_origin(hint) is UnionType:
            hint = next(part for part in get_args(hint) if part is not NoneType)
        allowed = get_args(hint) if get_origin(hint) is Literal else each.metadata["allowed"]
        found[each.name] = Option(each.name, hint, each.default, allowed, each.metadata)
    return found


def add_options(parser: argparse._ActionsContainer, kind: type, only: Iterable[str] | None = None) -> None:
    """Add the options of a dataclass to a command.

    Args:
        only: names of those that are added, in their order; None: all that have flags.
    """
    known = options_of(kind)
    for each in known.values() if only is None else [known[name] for name in only]:
        if not each.metadata["flags"]:
            continue
        names, help, written = each.flags, each.metadata["help"], each.metadata["written"]
        shown = {"metavar": each.metadata["shown"]} if each.metadata["shown"] else {}
        if isinstance(each.default, bool):
            parser.add_argument(*names, dest=each.attribute, action="store_true", help=help)
        elif each.allowed:
            kinds = {"type": int} if each.kind is int else {}
            add_choice(
                parser, *names, allowed=each.allowed, default=each.default, help=help, dest=each.attribute, **kinds
            )
        elif written:
            text = written.write(each.default)
            help += f" (default: {text})"
            parser.add_argument(*names, dest=each.attribute, default=text, metavar=written.shown, help=help)
        else:
            if each.default is not None:
                help += f" (default: {each.default})"
            read = each.kind if each.kind in (int, float) else str
            metavar = {"metavar": {int: "N", float: "F"}.get(read, "TEXT")} | shown
            parser.add_argument(*names, dest=each.attribute, type=read, default=each.default, help=help, **metavar)


def read_options(kind: type, parsed: argparse.Namespace) -> tuple[dict[str, Any], list[str]]:
    """By name, the values that a command line says, those of them that may be; and a sentence for each other one."""
    values: dict[str, Any] = {}
    problems = []
    for each in options_of(kind).values():
        if not each.metadata["flags"] or getattr(parsed, each.attribute, None) is None:
            continue
        value, written = getattr(parsed, each.attribute), each.metadata["written"]
        if isinstance(each.default, bool):
            value = value != each.default
        elif written:
            try:
                value = written.read(value)
            except ValueError:
                problems.append(f"{each.metadata['flags'][0]} is {value!r}; {each.metadata['form']}.")
                continue
        wrong = _wrong(each, value, each.metadata["flags"][0])
        problems += wrong
        if not wrong:
            values[each.name] = value
    return values, problems


def checked(kind: type[T], given: Mapping[str, Any], of: str = "this method", **others: Any) -> T:
    """A dataclass of options, each of a known name and with a value that may be.

    Args:
        of: whose options they are.
        others: fields that are no options.

    Raises:
        InputError: one sentence for each other one.
    """
    known = options_of(kind)
    problems = [
        f"{name}: is no option of {of}; there are {', '.join(known)}{nearest(name, known) or '.'}"
        for name in given
        if name not in known
    ]
    if problems:
        raise InputError(problems)
    return kind(**others, **given)


@dataclass(frozen=True)
class Options:
    """What a dataclass of options is derived from: values that may not be are refused when it is made.

    Raises:
        InputError: one sentence for each of them.
    """

    def __post_init__(self) -> None:
        problems = wrong_values(self)
        if problems:
            raise InputError(problems)


def wrong_values(options: Any, as_flags: bool = False) -> list[str]:
    """A sentence for each value of a dataclass of options that may not be.

    Args:
        as_flags: call them by their names on the command line.
    """
    return [
        sentence
        for each in options_of(type(options)).values()
        for sentence in _wrong(
            each, getattr(options, each.name), each.metadata["flags"][0] if as_flags and each.flags else each.name
        )
    ]


def said(kind: type, values: Mapping[str, Any]) -> Iterator[str]:
    """The words of a command that say these values; what the command line has no option for is left out."""
    for each in options_of(kind).values():
        if each.metadata["flags"] and values.get(each.name) is not None:
            yield from each.said(values[each.name])


def _wrong(each: Option, value: Any, called: str) -> list[str]:
    if value == each.default:
        return []
    if each.allowed and value not in each.allowed:
        return [
            f"{called} is {value!r}; allowed are {', '.join(map(str, each.allowed))}"
            f"{nearest(value, each.allowed) or '.'}"
        ]
    if each.kind is bool and not isinstance(value, bool):
        return [f"{called} is {value!r}; it is True or False."]
    holds = each.metadata["holds"]
    try:
        if holds is None or holds(value):
            return []
    except TypeError:
        pass
    return [f"{called} is {value!r}; {each.metadata['form']}."]
