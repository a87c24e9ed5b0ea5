"""Pruning of OPT by interpolative decompositions, with the published flag names (Flynn et al. 2024, STAT).

python scripts/prune_opt.py --model_name opt-125M --task wikitext2 --mu 0.7 --seed 0
"""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

from splora.errors import exit_on_input_error
from splora.interruption import ending_tidily
from splora.machine import wait_passively
from splora.option_help import add_choice
from splora.posttraining.command import add_data, carry_out
from splora.scripts.prune_bert import add_published, published_request
from splora.tasks.text_sources import TEXT_TASKS

if TYPE_CHECKING:
    from splora.posttraining.core.request import PruneRequest


def make_parser() -> argparse.ArgumentParser:
    """The command's options."""
    parser = argparse.ArgumentParser(
        prog="prune_opt.py", description="Prune an OPT by interpolative decompositions, without training."
    )
    add_options(parser)
    return parser


def main(arguments: list[str] | None = None) -> None:
    """Prune one language model."""
    wait_passively()
    options = make_parser().parse_args(arguments)
    with exit_on_input_error(), ending_tidily():
        carry_out(request_from(options))


def add_options(parser: argparse.ArgumentParser) -> None:
    """The published flags and those of the method."""
    parser.add_argument(
        "--model_name", required=True, metavar="NAME", help="opt-125M, opt-1.3B, …, another hub name, or a folder"
    )
    names = ("--task", "--task_name")
    add_choice(parser, *names, allowed=TEXT_TASKS, default="wikitext2", dest="task", help="the text it is judged on")
    add_data(parser, "folder or file of the text")
    add_published(parser)


def request_from(options: argparse.Namespace) -> PruneRequest:
    """The request that options make.

    Raises:
        InputError: all that can be found wrong without loading anything.
    """
    return published_request(options, model=options.model_name, task=options.task)


if __name__ == "__main__":
    main()
