"""Pruning by interpolative decompositions, with the flag names of the published program (Flynn et al. 2024, STAT).

python scripts/prune_bert.py --model_name bert-base-uncased --task_name qqp --mu 0.5 --seed 0 --sample_batch_size 512
"""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

from splora.errors import InputError, exit_on_input_error
from splora.interruption import ending_tidily
from splora.machine import wait_passively
from splora.option_help import add_choice
from splora.posttraining.command import add_data, add_method, add_output, carry_out, request_of
from splora.posttraining.core.budget import Budget
from splora.posttraining.core.method import find_method
from splora.tasks.sources import TASKS

if TYPE_CHECKING:
    from splora.posttraining.core.request import PruneRequest


def make_parser() -> argparse.ArgumentParser:
    """The command's options."""
    parser = argparse.ArgumentParser(
        prog="prune_bert.py",
        description="Prune a fine-tuned encoder by interpolative decompositions, without training.",
    )
    add_checkpoint(parser)
    add_published(parser)
    return parser


def main(arguments: list[str] | None = None) -> None:
    """Prune one checkpoint."""
    wait_passively()
    options = make_parser().parse_args(arguments)
    with exit_on_input_error(), ending_tidily():
        model = options.ckpt_dir or options.model_name
        carry_out(published_request(options, model=model, task=options.task_name))


def add_checkpoint(parser: argparse.ArgumentParser) -> None:
    """The published flags that name a fine-tuned encoder and its task."""
    help = "published name; the checkpoint itself where --ckpt_dir is missing"
    parser.add_argument("--model_name", required=True, metavar="NAME", help=help)
    add_choice(parser, "--task_name", allowed=TASKS, required=True, metavar="TASK", help="what it is fine-tuned for")
    parser.add_argument("--ckpt_dir", metavar="DIR", help="folder of the fine-tuned checkpoint")
    add_data(parser)


def add_place(parser: argparse.ArgumentParser) -> None:
    """The published flags that say where the result goes, and where it is computed."""
    add_output(parser)
    parser.add_argument("--gpu", type=int, metavar="N", help="number of the GPU; the same as --device cuda:N")


def add_published(parser: argparse.ArgumentParser) -> None:
    """What the published programs for encoders and for OPT have in common, and the options of the method."""
    parser.add_argument("--mu", type=float, required=True, help="fraction of the dense MACs, above 0 and at most 1")
    add_place(parser)
    parser.add_argument(
        "--sample_batch_size", type=int, dest="num_samples", metavar="N", help="the same as --num_samples"
    )
    add_method(parser, find_method("stat"))


def published_request(options: argparse.Namespace, *, model: str, task: str) -> PruneRequest:
    """The request that these options make.

    Raises:
        InputError: all that can be found wrong without loading anything.
    """
    return request_of(
        options,
        find_method("stat"),
        model=model,
        task=task,
        budget=lambda: budget_of(options.mu),
        name=options.model_name,
    )


def budget_of(mu: float) -> Budget:
    """The MAC budget of a published `--mu`, which may also keep everything.

    Raises:
        InputError: mu is not above 0 and at most 1.
    """
    if not 0 < mu <= 1:
        raise InputError(f"--mu is {mu:g}; it is the fraction of MACs to keep, above 0 and at most 1.")
    return Budget("mac", mu)


if __name__ == "__main__":
    main()
