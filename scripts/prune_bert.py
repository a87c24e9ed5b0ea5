"""Pruning by interpolative decompositions, with the flag names of the published program (Flynn et al. 2024, STAT).

python scripts/prune_bert.py --model_name bert-base-uncased --task_name qqp --mu 0.5 --seed 0 --sample_batch_size 512
"""

from __future__ import annotations

import argparse
from pathlib import Path

from splora.errors import InputError, exit_on_input_error
from splora.interruption import ending_tidily
from splora.machine import wait_passively
from splora.posttraining.core.budget import Budget
from splora.scripts.prune_options import (
    SAMPLES,
    add_checkpoint,
    add_place,
    add_shared,
    add_stat,
    carry_out,
    request_of,
    stat_choices,
)


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
        request = request_of(
            options,
            method="stat",
            model=options.ckpt_dir or options.model_name,
            task=options.task_name,
            data=options.data_dir,
            budget=lambda: budget_of(options.mu),
            output=options.output_dir,
            model_label=Path(options.model_name).name,
            choices=lambda: stat_choices(options),
        )
        carry_out(request)


def add_published(parser: argparse.ArgumentParser) -> None:
    """What the published programs for encoders and for OPT have in common, and the options of the method."""
    parser.add_argument("--mu", type=float, required=True, help="fraction of the dense MACs, above 0 and at most 1")
    add_place(parser)
    parser.add_argument(
        "--sample_batch_size", type=int, dest="num_samples", metavar="N", help="the same as --num_samples"
    )
    add_shared(parser, SAMPLES["stat"])
    add_stat(parser)


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
