"""What a person reads first: every command is listed, every option has text, and every choice is shown."""

from __future__ import annotations

import argparse
import importlib
from collections.abc import Iterator
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest

from splora.posttraining.core import choices
from splora.posttraining.core.budget import METRICS
from splora.posttraining.core.method import commands
from splora.posttraining.core.options import options_of
from splora.scripts import cli
from splora.tasks.sources import TASKS
from splora.tasks.text_sources import TEXT_TASKS
from splora.training import options as training_options
from splora.training.specification import METHODS
from splora.training.specification import TASKS as TRAINED

ROOT = Path(__file__).resolve().parents[2]
#: Every script with options of its own, but the one that only this program starts.
WITH_OPTIONS = sorted(
    path.stem
    for path in (ROOT / "scripts").glob("*.py")
    if "def make_parser" in path.read_text(encoding="utf-8") or "ArgumentParser(" in path.read_text(encoding="utf-8")
)
#: What an option of this name may be, wherever it stands.
CHOICES = {
    "states": choices.STORAGES,
    "bits": choices.BITS,
    **{
        option.attribute: option.allowed
        for method in commands().values()
        for option in options_of(method.options).values()
        if option.flags and option.allowed
    },
    "launcher": ("local", "ray"),
}


def parsers(parser: argparse.ArgumentParser) -> Iterator[argparse.ArgumentParser]:
    """A parser and those of its subcommands."""
    yield parser
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            for other in action.choices.values():
                yield from parsers(other)


@pytest.fixture(scope="module")
def lightning_parsers() -> dict[str, Any]:
    """The parsers of Lightning's commands, by name."""
    from lightning import LightningDataModule

    from splora.scripts.lightning_cli import SploraCLI
    from splora.training.module import PruningModule

    class Stop(Exception):
        pass

    class Unparsed(SploraCLI):
        def parse_arguments(self, parser: Any, args: Any) -> None:
            found.update(self._subcommand_parsers)
            raise Stop

    found: dict[str, Any] = {}
    with pytest.raises(Stop):
        Unparsed(PruningModule, LightningDataModule, subclass_mode_data=True, save_config_callback=None, args=["fit"])
    return found


@pytest.mark.parametrize("script", WITH_OPTIONS)
def test_every_option_of_a_script_has_text_and_choices(script: str) -> None:
    for parser in parsers(importlib.import_module(f"splora.scripts.{script}").make_parser()):
        text = " ".join(parser.format_help().split())
        for action in parser._actions:
            where = f"{parser.prog} {'/'.join(action.option_strings) or action.dest}"
            assert isinstance(action, argparse._SubParsersAction) or action.help, where
            allowed: tuple[object, ...] = CHOICES.get(action.dest, ())
            if action.dest == "teacher" and script == "heal":
                allowed = ()  # a path there, a choice of Fisher pruning elsewhere
            if action.dest == "precision":
                allowed = ("fp32", "bf16")
            elif action.dest == "metric" and script == "prune_fisher":
                allowed = METRICS
            elif action.dest in ("task", "task_name"):
                allowed = TEXT_TASKS if "opt" in script else TASKS
            elif action.dest == "method" and script in ("run", "run_from_sheet", "quantize", "quantize_opt"):
                allowed = METHODS if "run" in script else choices.QUANTIZERS
            shown = f"{action.metavar} {action.help}"
            assert all(str(value) in shown for value in allowed), f"{where}: {shown}"
            if action.help and action.option_strings:
                assert action.option_strings[0] in text


def test_every_command_is_listed_once_with_a_line_of_its_own(
    lightning_parsers: dict[str, Any], capsys: pytest.CaptureFixture[str]
) -> None:
    cli.main(["--help"])
    told = capsys.readouterr().out
    for name, command in cli.COMMANDS.items():
        assert [line for line in told.splitlines() if line.split()[:1] == [name]] == [
            f"  {name:<{max(map(len, cli.COMMANDS)) + 2}}{command.does}"
        ]
    of_lightning = {name for name, command in cli.COMMANDS.items() if command.module == cli.LIGHTNING}
    assert of_lightning <= set(lightning_parsers)
    assert set(lightning_parsers) <= set(cli.COMMANDS)
    # What a script is called is a command too, so that the package works where there is no folder of scripts.
    hidden = {"run_from_sheet"}
    assert set(WITH_OPTIONS) - hidden <= set(cli.COMMANDS)


@pytest.mark.parametrize("name", sorted(cli.COMMANDS))
def test_a_misspelled_command_is_compared_with_all(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    wrong = name[:-1] + "x"
    with pytest.raises(SystemExit) as stop:
        cli.main([wrong])
    assert stop.value.code == 2
    told = capsys.readouterr().err
    assert told.startswith(f"error: {wrong!r} is no command; there are ")
    assert "did you mean '" in told
    assert all(f" {other}" in told for other in cli.COMMANDS)
    assert told.count("\n") == 1


def test_run_is_the_script(capsys: pytest.CaptureFixture[str]) -> None:
    from splora.scripts import run_from_sheet

    row = ["--exp-id", "12", "--dry-run"]
    cli.main(["run", *row])
    told = capsys.readouterr().out
    run_from_sheet.main(row)
    assert told == capsys.readouterr().out
    assert told.startswith("# SQuAD, EXP ID 12")


def test_the_version_is_told(capsys: pytest.CaptureFixture[str]) -> None:
    from splora import __version__

    cli.main(["--version"])
    assert capsys.readouterr().out == f"splora {__version__}\n"


def test_every_option_of_lightnings_commands_has_text(lightning_parsers: dict[str, Any]) -> None:
    for name, parser in lightning_parsers.items():
        silent = ["/".join(action.option_strings) for action in parser._actions if not action.help]
        assert not silent, f"{name}: {silent}"


@pytest.mark.parametrize("section", ["adapter", "pruning", "optimizer"])
def test_sections_of_the_module_show_meaning_and_choices_of_the_columns(
    lightning_parsers: dict[str, Any], section: str
) -> None:
    kind = getattr(training_options, f"{section.capitalize()}Options")
    shown = {action.dest: action.help for action in lightning_parsers["fit"]._actions}
    for field in fields(kind):
        told = shown[f"model.{section}.{field.name}"]
        assert field.metadata["help"] in told
        assert all(choice in told for choice in field.metadata.get("choices", ()))
    assert all(task in shown["model.task"] for task in TRAINED)


def _classes() -> list[Any]:
    from splora import callbacks
    from splora.tasks.glue import GlueDataModule
    from splora.tasks.language_modelling import TextDataModule
    from splora.tasks.squad import SquadDataModule
    from splora.training.csv_logger import ResumableCSVLogger
    from splora.training.options import DistillationOptions

    classes: list[Any] = [GlueDataModule, SquadDataModule, TextDataModule, ResumableCSVLogger, DistillationOptions]
    return classes + [getattr(callbacks, name) for name in callbacks.__all__]


@pytest.mark.parametrize("kind", _classes(), ids=lambda kind: kind.__name__)
def test_every_argument_of_a_class_that_yaml_names_has_text(kind: Any) -> None:
    from jsonargparse import ArgumentParser

    from splora.tasks.glue import GlueDataModule
    from splora.tasks.glue_tasks import TASKS as GLUE

    parser = ArgumentParser()
    parser.add_class_arguments(kind, "it", fail_untyped=False)
    told = {action.dest: action.help for action in parser._actions}
    assert not [name for name, text in told.items() if not text]
    if kind is GlueDataModule:
        assert all(task in told["it.task"] for task in GLUE)
    if kind is training_options.DistillationOptions:
        assert "bert, deberta-v2, distilbert" in told["it.teacher_type"]


@pytest.mark.parametrize(
    ("section", "name"), [("pruning", "mask_init"), ("pruning", "regularization"), ("distillation", "teacher_type")]
)
def test_a_choice_that_help_shows_is_checked(section: str, name: str) -> None:
    from splora.errors import InputError
    from splora.training.module import PruningModule

    required = {"teacher_name_or_path": "folder"} if section == "distillation" else {}
    kind = getattr(training_options, f"{section.capitalize()}Options")
    with pytest.raises(InputError, match=f"model.{section}.{name} is 'lo'; allowed are "):
        PruningModule(**{section: kind(**{name: "lo"}, **required)})
