"""`splora prune METHOD`: make a fine-tuned checkpoint smaller without training it."""

from __future__ import annotations

import argparse
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from splora.errors import InputError, in_words_of_command, problems_of
from splora.interruption import ending_tidily
from splora.posttraining.core.budget import Budget
from splora.scripts import heal
from splora.scripts.option_help import add_choice
from splora.scripts.prune_options import (
    SAMPLES,
    add_data,
    add_fisher,
    add_labelled,
    add_output,
    add_shared,
    add_stat,
    carry_out,
    fisher_choices,
    mac_budget,
    request_of,
    stat_choices,
)
from splora.tasks.registry import REGISTRY
from splora.tasks.sources import ALL_TASKS

if TYPE_CHECKING:
    from splora.posttraining.core.request import PruneRequest


def make_parser() -> argparse.ArgumentParser:
    """The command's options."""
    parser = argparse.ArgumentParser(
        prog="splora prune", description="Make a fine-tuned checkpoint smaller without training it."
    )
    methods = parser.add_subparsers(dest="method", required=True, metavar="METHOD")
    fisher = methods.add_parser("fisher", help="by Fisher information of heads and neurons (Kwon et al. 2022)")
    _add_common(fisher, "fisher")
    add_fisher(fisher)
    stat = methods.add_parser("stat", help="by interpolative decompositions of activations (Flynn et al. 2024)")
    _add_common(stat, "stat")
    add_stat(stat)
    return parser


def main(arguments: list[str]) -> None:
    """Prune one checkpoint by the named method."""
    options = make_parser().parse_args(arguments)
    if not options.labelled and "labelled" not in REGISTRY[options.task].takes:
        raise InputError(f"--no_labels is given, but {options.task} has no labels to leave out; leave out --no_labels.")
    with ending_tidily():
        request = request_of(
            options,
            method=options.method,
            model=options.model,
            task=options.task,
            data=options.data_dir,
            budget=lambda: _budget(options),
            output=options.output_dir,
            model_label=Path(options.model).name,
            choices=lambda: fisher_choices(options) if options.method == "fisher" else stat_choices(options),
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
        healed = replace(dense, model=str(pruned.output), choices={**dense.choices, "teacher": dense.teacher})
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


def _budget(options: argparse.Namespace) -> Budget:
    budget = Budget.parse(options.budget)
    return mac_budget(budget) if options.method == "stat" else budget


def _add_common(parser: argparse.ArgumentParser, method: str) -> None:
    parser.add_argument(
        "--model",
        required=True,
        metavar="PATH",
        help="folder or hub name of the fine-tuned checkpoint" + "; opt-125M and the like" * (method == "stat"),
    )
    allowed = ALL_TASKS
    add_choice(parser, "--task", allowed=allowed, required=True, metavar="TASK", help="what it is fine-tuned for")
    add_data(parser)
    add_labelled(parser)
    parser.add_argument("--budget", required=True, metavar="mac=0.5", help="mac=F or latency=F, F above 0, at most 1")
    add_output(parser)
    add_shared(parser, SAMPLES[method])
    healing = parser.add_argument_group("healing afterwards (splora heal)")
    healing.add_argument("--heal", type=float, metavar="EPOCHS", help="train the result towards the dense model")
    heal.add_healing(healing)


if __name__ == "__main__":
    import sys

    from splora.errors import exit_on_input_error

    with exit_on_input_error():
        main(sys.argv[1:])
