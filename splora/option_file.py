"""A command's options in a YAML file: `--config FILE`, whose entries stand before what the command line itself says."""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from splora.errors import InputError, cut, named, nearest
from splora.reading import read_text

#: What a switch is in YAML, in small letters.
_SWITCHES = {"true": True, "yes": True, "on": True, "false": False, "no": False, "off": False}
#: What stands for nothing said.
_NOTHING = ("", "~", "null")


def add_config(parser: argparse.ArgumentParser) -> None:
    """The option that names a file of the others."""
    parser.add_argument(
        "--config", metavar="FILE", help="YAML of these options, by their names; what is given beside it comes first"
    )


def parse(parser: argparse.ArgumentParser, arguments: Sequence[str]) -> argparse.Namespace:
    """`parser.parse_args`, with the entries of `--config FILE` in the place of that option.

    A first argument that is no option (a method, a model) may stand in the file, too.

    Raises:
        InputError: the file cannot be read, is no mapping, or holds what no option is or takes; all of that at once.
    """
    file, rest = _split(list(arguments))
    if file is None:
        parsed = parser.parse_args(rest)
        if parsed.config is not None:
            raise InputError("--config: is to be written in full, as --config FILE.")
        return parsed
    path = Path(file)
    entries = _entries(path)
    begin = [rest.pop(0)] if rest and not rest[0].startswith("-") else []
    first = next((action for action in parser._actions if not action.option_strings), None)
    if first is not None:
        value = entries.pop(first.dest, None)
        begin = begin or ([] if value is None else [str(value)])
    own = parser
    if isinstance(first, argparse._SubParsersAction):
        if not begin or begin[0] not in first.choices:
            what = f"is {cut(begin[0])}" if begin else "is missing"
            close = nearest(begin[0], first.choices) if begin else ""
            raise InputError(
                f"{path}: {first.dest} {what}; allowed are {', '.join(map(str, first.choices))}{close or '.'}"
            )
        own = first.choices[begin[0]]
    return parser.parse_args([*begin, *_words(own, entries, path), *rest])


def _split(arguments: list[str]) -> tuple[str | None, list[str]]:
    """The file of `--config`, and what else is given."""
    files, rest = [], []
    while arguments:
        word = arguments.pop(0)
        if word == "--config" and arguments:
            files.append(arguments.pop(0))
        elif word.startswith("--config="):
            files.append(word.partition("=")[2])
        else:
            rest.append(word)
    if len(files) > 1:
        raise InputError(f"--config is given {len(files)} times; give one file.")
    return (files[0] if files else None), rest


def _entries(path: Path) -> dict[str, Any]:
    """What a file says: texts as they are written, lists and mappings of them."""
    import yaml

    try:
        text = read_text(path)
    except OSError as error:
        raise InputError(f"--config: {path}: cannot be read ({error.strerror or error}).") from error
    try:
        node: Any = yaml.compose(text, Loader=yaml.BaseLoader)
        content = yaml.load(text, Loader=yaml.BaseLoader)
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        where = "" if mark is None else f", line {mark.line + 1}"
        raise InputError(f"{path}{where}: is no YAML ({getattr(error, 'problem', None) or 'unreadable'}).") from error
    if not isinstance(content, dict):
        raise InputError(f"{path}: holds no options by name; write lines such as budget: mac=0.5.")
    names = [str(key.value).replace("-", "_") for key, _ in node.value]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise InputError(f"{path}: {named(twice)} stands there more than once.")
    return {str(name).replace("-", "_"): value for name, value in content.items()}


def _words(parser: argparse.ArgumentParser, entries: dict[str, Any], path: Path) -> list[str]:
    """The command line that says what the file does."""
    known = {
        name[2:].replace("-", "_"): action
        for action in parser._actions
        for name in action.option_strings
        if name.startswith("--") and name not in ("--help", "--config")
    }
    words: list[str] = []
    problems = []
    for name, value in entries.items():
        try:
            if name not in known:
                raise InputError(f"{path}: {name} is no option of {parser.prog}{nearest(name, known) or '.'}")
            words += _said(f"--{name}", known[name], value, path)
        except InputError as error:
            problems += error.problems
    if problems:
        raise InputError(problems)
    return words


def _said(option: str, action: argparse.Action, value: Any, path: Path) -> Iterator[str]:
    """The words for one entry."""
    name, repeats = option[2:], isinstance(action, argparse._AppendAction)
    if isinstance(value, str) and value.lower() in _NOTHING:
        return
    if isinstance(action, argparse._StoreTrueAction | argparse._StoreFalseAction):
        if not isinstance(value, str) or value.lower() not in _SWITCHES:
            raise InputError(f"{path}: {name} is {cut(value)}; it is true or false.")
        if _SWITCHES[value.lower()]:
            yield option
        return
    if isinstance(value, dict) and repeats:
        value = [f"{key}={inner}" for key, inner in value.items()]
    texts = value if isinstance(value, list) else [value]
    if not texts or not all(isinstance(text, str) for text in texts):
        raise InputError(f"{path}: {name} is {cut(value)}; it is one value{' or a list of them' if repeats else ''}.")
    for text in texts if repeats else [",".join(texts)]:
        if callable(action.type):
            try:
                action.type(text)
            except ValueError:
                whole = " whole" if action.type is int else ""
                raise InputError(f"{path}: {name} is {cut(text)}; it is a{whole} number.") from None
        yield f"{option}={text}"
