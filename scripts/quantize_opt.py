"""Pruning and quantization of OPT with the published flag names (Flynn et al. 2024, STAT; Frantar et al. 2022, GPTQ).

python scripts/quantize_opt.py --model_name opt-125M --task wikitext2 --mu 0.7 --seed 0 --bits 4

The model that prune_opt.py made with the same options is used; where there is none, it is made first. With --mu 1 the
dense model is quantized.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from splora.errors import InputError, exit_on_input_error
from splora.interruption import ending_tidily
from splora.machine import wait_passively
from splora.posttraining.command import carry_out
from splora.quiet import quiet_libraries
from splora.scripts import prune_opt, quantize

if TYPE_CHECKING:
    from splora.posttraining.core.request import PruneRequest
    from splora.posttraining.quantize.request import QuantizeRequest


def make_parser() -> argparse.ArgumentParser:
    """The command's options."""
    parser = argparse.ArgumentParser(
        prog="quantize_opt.py", description="Quantize an OPT, pruned by interpolative decompositions, without training."
    )
    prune_opt.add_options(parser)
    quantize.add_quantization(parser)
    return parser


def main(arguments: list[str] | None = None) -> None:
    """Prune, if need be, and quantize one language model."""
    wait_passively()
    options = make_parser().parse_args(arguments)
    with exit_on_input_error(), ending_tidily():
        pruning, request = requests_from(options)
        if pruning is not None:
            quiet_libraries()
            request.check_rows(pruning.model)  # rather than after the pruning
            carry_out(pruning)
        quantize.carry_out(request)


def requests_from(options: argparse.Namespace) -> tuple[PruneRequest | None, QuantizeRequest]:
    """What is to be pruned first, if anything, and what is to be quantized.

    Raises:
        InputError: all that can be found wrong without loading anything.
    """
    problems: list[str] = []
    pruning: PruneRequest | None = None
    # The pruned model has a place of its own; what is there is looked at below.
    first = argparse.Namespace(**vars(options) | {"output_dir": None, "force": True})
    try:
        pruning = prune_opt.request_from(first)
    except InputError as error:
        problems += error.problems
    whole = pruning is not None and pruning.budget.fraction == 1.0
    folder = Path("output") / Path(options.model_name).name / (pruning.task if pruning else "text")
    prefix = "" if whole else f"mac-{options.mu:g}-"
    request = quantize.make_request(
        options,
        problems,
        model=pruning.model if pruning and whole else str(pruning.output) if pruning else options.model_name,
        task=pruning.task if pruning else "wikitext2",
        output=Path(options.output_dir) if options.output_dir else folder / (prefix + quantize.result_name(options)),
        samples=pruning.samples if pruning else 1,
        summary=pruning.summary if pruning else None,
    )
    try:
        request.check()
        if pruning is not None and (whole or _is_there(pruning, options.force)):
            pruning = None
    except InputError as error:
        problems += error.problems
    if problems:
        raise InputError(dict.fromkeys(problems))
    return pruning, request


def _is_there(pruning: PruneRequest, force: bool) -> bool:
    """Whether a pruning is done already.

    Raises:
        InputError: with other options.
    """
    difference = pruning.difference()
    if difference and not force:
        raise InputError(
            f"{pruning.output}: this model was pruned with other options ({difference}); give the same, or --force to "
            f"prune it again."
        )
    return difference == ""


if __name__ == "__main__":
    main()
