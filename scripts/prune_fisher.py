"""Retraining-free pruning by Fisher information, with the flag names of the published program (Kwon et al. 2022).

python scripts/prune_fisher.py --model_name bert-base-uncased --task_name qqp --ckpt_dir PATH --constraint 0.5
"""

from __future__ import annotations

import argparse

from splora.errors import exit_on_input_error
from splora.interruption import ending_tidily
from splora.machine import wait_passively
from splora.option_help import add_choice
from splora.posttraining.command import add_method, carry_out, request_of
from splora.posttraining.core.budget import METRICS, Budget
from splora.posttraining.core.method import find_method
from splora.scripts.prune_bert import add_checkpoint, add_place


def make_parser() -> argparse.ArgumentParser:
    """The command's options."""
    parser = argparse.ArgumentParser(prog="prune_fisher.py", description="Prune a fine-tuned encoder without training.")
    add_checkpoint(parser)
    parser.add_argument("--constraint", type=float, required=True, help="fraction of the dense cost, at most 1")
    add_choice(parser, "--metric", allowed=METRICS, default="mac", help="what the constraint counts")
    add_place(parser)
    add_method(parser, find_method("fisher"))
    return parser


def main(arguments: list[str] | None = None) -> None:
    """Prune one checkpoint."""
    wait_passively()
    options = make_parser().parse_args(arguments)
    with exit_on_input_error(), ending_tidily():
        request = request_of(
            options,
            find_method("fisher"),
            model=options.ckpt_dir or options.model_name,
            task=options.task_name,
            budget=lambda: Budget.checked(options.metric, options.constraint, "--metric", "--constraint"),
            name=options.model_name,
        )
        carry_out(request)


if __name__ == "__main__":
    main()
