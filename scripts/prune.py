"""`splora prune METHOD`: make a fine-tuned checkpoint smaller without training it."""

from __future__ import annotations

import argparse
from dataclasses import replace
from typing import TYPE_CHECKING

from splora.errors import InputError, in_words_of_command, problems_of
from splora.interruption import ending_tidily
from splora.option_file import add_config, parse
from splora.option_help import add_choice
from splora.posttraining.command import add_data, add_method, add_output, carry_out, request_of
from splora.posttraining.core.budget import Budget
from splora.posttraining.core.method import Method, commands
from splora.posttraining.core.options import add_options
from splora.posttraining.core.request import Request
from splora.scripts import heal
from splora.tasks.registry import REGISTRY, find_task

if TYPE_CHECKING:
    from splora.posttraining.core.request import PruneRequest


def make_parser() -> argparse.ArgumentParser:
    """The command's options: of each method its own, beside those that all share."""
    parser = argparse.ArgumentParser(
        prog="splora prune", description="Make a fine-tuned checkpoint smaller without training it."
    )
    names = parser.add_subparsers(dest="method", required=True, metavar="METHOD")
    for name, method in commands().items():
        _add(names.add_parser(name, help=method.help, description=f"Prune {method.help}."), method)
    return parser


def main(arguments: list[str]) -> None:
    """Prune one checkpoint by the named method."""
    options = parse(make_parser(), arguments)
    if options.no_labels and "labelled" not in find_task(options.task).takes:
        raise InputError(f"--no_labels is given, but {options.task} has no labels to leave out; leave out --no_labels.")
    with ending_tidily():
        request = request_of(
            options,
            commands()[options.method],
            model=options.model,
            task=options.task,
            budget=lambda: Budget.parse(options.budget),
            name=options.model,
            checks_output=options.heal is None,
        )
        if options.heal is None:
            carry_out(request)
        else:
            _prune_and_heal(request, options)


def _prune_and_heal(request: PruneRequest, options: argparse.Namespace) -> None:
    """Prune into a folder beside the result's, unless that was done before, and heal what came out.

    Raises:
        InputError: either cannot be done; what healing lacks is told before anything is pruned.
    """
    if not REGISTRY[request.task].trained:
        raise InputError(
            f"--heal trains encoders for their tasks, and {request.task} is for language models; leave it out."
        )
    if request.columns:
        raise InputError(
            "--column is given, and healing reads tables with the task's usual names of columns alone; rename them, "
            "or leave out --heal."
        )
    output = request.output.resolve()
    pruned = replace(request, output=output.with_name(f"{output.name}-pruned"))
    with in_words_of_command(_WITHOUT_TEACHER):
        dense = heal.request_of(options, request.model, None, options.heal, request.task, request.output)
        healed = replace(dense, model=str(pruned.output), options={**dense.options, "teacher": dense.teacher})
        problems = problems_of(pruned.check, dense.check_training, healed.check_output)
        if problems:
            raise InputError(dict.fromkeys(problems))
    if request.force or pruned.difference() != "":
        carry_out(pruned)
    heal.carry_out(healed)


#: Healing's own command has an option for what this one cannot be told.
_WITHOUT_TEACHER = {
    "--teacher is missing: name the dense model": "--heal has no dense model to learn from: leave it out, and heal by "
    "splora heal with --teacher, the model"
}


def _add(parser: argparse.ArgumentParser, method: Method) -> None:
    help = "folder or hub name of the fine-tuned checkpoint"
    help += "; opt-125M and the like" * bool({name for name in method.tasks if REGISTRY[name].causal})
    parser.add_argument("--model", required=True, metavar="PATH", help=help)
    add_choice(parser, "--task", allowed=method.tasks, required=True, metavar="TASK", help="what it is fine-tuned for")
    add_data(parser)
    add_options(parser, Request, ["labelled"])
    parser.add_argument("--budget", required=True, metavar="mac=0.5", help="mac=F or latency=F, F above 0, at most 1")
    add_output(parser)
    add_config(parser)
    add_method(parser, method)
    healing = parser.add_argument_group("healing afterwards (splora heal)")
    healing.add_argument("--heal", type=float, metavar="EPOCHS", help="train the result towards the dense model")
    heal.add_healing(healing)


if __name__ == "__main__":
    from splora.errors import as_program

    as_program(main)
