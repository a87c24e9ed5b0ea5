"""Options as fields of a dataclass, from which come command line, help and checks. Imports no torch."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field, fields
from types import NoneType, UnionType
from typing import Any, Literal, NamedTuple, TypeVar, Union, get_args, get_origin, get_type_hints

from splora.errors import InputError, nearest
from splora.option_help import add_choice, spellings

T = TypeVar("T")

#: By the type that an option names, what its values are, and how a sentence says it.
_KINDS: dict[Any, tuple[Any, str]] = {
    bool: (bool, "it is True or False"),
    int: (int, "it is a whole number"),
    float: (int | float, "it is a number"),
    str: (str, "it is a text"),
}


class Written(NamedTuple):
    """How a value that is neither a number nor a name is written on the command line.

    Attributes:
        read: makes the value of a text, or raises ValueError.
        write: makes the text of a value.
    """

    read: Callable[[str], Any]
    write: Callable[[Any], str]


class Option(NamedTuple):
    """One option, as `option` describes it.

    Attributes:
        kind: type of its values, without None.
        allowed: values that it may be; empty: any that `holds`.
    """

    name: str
    kind: Any
    default: Any
    help: str
    flags: tuple[str, ...]
    holds: Callable[[Any], bool]
    form: str
    written: Written | None
    allowed: tuple[object, ...]
    shown: str

    @property
    def attribute(self) -> str:
        """Where the parsed command line has it."""
        return self.flags[0].removeprefix("--").replace("-", "_")

    def said(self, value: Any) -> list[str]:
        """The words of a command that say a value."""
        if isinstance(self.default, bool):
            return [self.flags[0]] if bool(value) != self.default else []
        text = f"{value:g}" if isinstance(value, float) else str(value)
        if self.written:
            with suppress(TypeError, ValueError):  # of a file that says anything
                text = self.written.write(value)
        return [self.flags[0], text]

    def wrong(self, value: Any, called: str) -> list[str]:
        """A sentence, if the value may not be.

        Args:
            called: the option's name there.
        """
        if value == self.default:
            return []
        if self.allowed:
            close = nearest(value, self.allowed) or "."
            allowed = ", ".join(map(str, self.allowed))
            return [] if value in self.allowed else [f"{called} is {value!r}; allowed are {allowed}{close}"]
        kinds, what = _KINDS.get(self.kind, (object, ""))
        if not isinstance(value, kinds) or (isinstance(value, bool) and self.kind is not bool):
            return [f"{called} is {value!r}; {self.form or what}."]
        with suppress(TypeError):
            if self.holds(value):
                return []
        return [f"{called} is {value!r}; {self.form}."]


def option(
    default: Any,
    help: str,
    *flags: str,
    holds: Callable[[Any], bool] = lambda value: True,
    form: str = "",
    written: Written | None = None,
    allowed: Iterable[object] = (),
    shown: str = "",
) -> Any:
    """A field of a dataclass of options.

    Args:
        default: its value where nobody says another.
        help: what it means, without the default.
        flags: what it is called on the command line; none: it is an option from Python alone. One that is True by
            default is switched off by its flag, whose name says so.
        holds: whether a value may be; not asked where it is the default.
        form: what the sentence says of a value that may not: `it must be 0 or larger`.
        written: how it is written on the command line.
        allowed: values that it may be, where its type does not say them.
        shown: stands for the value in the help.
    """
    said = {"help": help, "flags": flags, "holds": holds, "form": form, "written": written, "shown": shown}
    return field(default=default, metadata={**said, "allowed": tuple(allowed)})


def at_least(least: float) -> dict[str, Any]:
    """`holds` and `form` of an option with a smallest value."""
    return {"holds": lambda value: least <= value < float("inf"), "form": f"it must be {least:g} or larger"}


def options_of(kind: type) -> dict[str, Option]:
    """The options of a dataclass by name; fields that are none are left out."""
    hints, described = get_type_hints(kind), {}
    for each in fields(kind):
        if "flags" not in each.metadata:
            continue
        hint, said = hints[each.name], dict(each.metadata)
        if get_origin(hint) in (Union, UnionType):
            hint = next(part for part in get_args(hint) if part is not NoneType)
        if get_origin(hint) is Literal:
            said["allowed"] = get_args(hint)
        described[each.name] = Option(each.name, hint, each.default, **said)
    return described


def add_options(parser: argparse._ActionsContainer, kind: type, only: Iterable[str] | None = None) -> None:
    """Add the options of a dataclass to a command.

    Args:
        only: names of those that are added, in their order; None: all that have flags.
    """
    known = options_of(kind)
    for each in [known[name] for name in (known if only is None else only) if known[name].flags]:
        names, dest, default, help = spellings(*each.flags), each.attribute, each.default, each.help
        if isinstance(default, bool):
            parser.add_argument(*names, dest=dest, action="store_true", help=help)
        elif each.allowed:
            more = {"type": int} if all(isinstance(value, int) for value in each.allowed) else {}
            add_choice(parser, *names, allowed=each.allowed, default=default, help=help, dest=dest, **more)
        else:
            read: Any = each.kind if each.kind in (int, float) and not each.written else str
            default = each.written.write(default) if each.written else default
            help += "" if default is None else f" (default: {default})"
            metavar = each.shown or {int: "N", float: "F"}.get(read, "TEXT")
            parser.add_argument(*names, dest=dest, type=read, default=default, metavar=metavar, help=help)


def read_options(kind: type, parsed: argparse.Namespace) -> tuple[dict[str, Any], list[str]]:
    """By name, the values that a command line says, those of them that may be; and a sentence for each other one."""
    values: dict[str, Any] = {}
    problems: list[str] = []
    for each in options_of(kind).values():
        value = getattr(parsed, each.attribute, None) if each.flags else None
        if value is None:
            continue
        wrong = []
        if isinstance(each.default, bool):
            value = value != each.default
        elif each.written:
            try:
                value = each.written.read(value)
            except ValueError:
                wrong = [f"{each.flags[0]} is {value!r}; {each.form}."]
        wrong = wrong or each.wrong(value, each.flags[0])
        problems += wrong
        values |= {} if wrong else {each.name: value}
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
        for name, each in options_of(type(options)).items()
        for sentence in each.wrong(getattr(options, name), each.flags[0] if as_flags and each.flags else name)
    ]


def said(kind: type, values: Mapping[str, Any]) -> Iterator[str]:
    """The words of a command that say these values; what the command line has no option for is left out."""
    for name, each in options_of(kind).items():
        if each.flags and values.get(name) is not None:
            yield from each.said(values[name])
