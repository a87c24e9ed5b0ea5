"""`splora quantize`: store a checkpoint's weights in a few bits (GPTQ, Frantar et al. 2022), without training."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

from splora.errors import InputError
from splora.interruption import ending_tidily
from splora.posttraining.core.choices import BITS, QUANTIZERS
from splora.scripts.opt_names import checkpoint_name, summary_path
from splora.scripts.option_help import add_choice
from splora.scripts.prune_options import (
    SAMPLES,
    TEXT_SAMPLES,
    add_calibration,
    add_data,
    add_output,
    columns_of,
    device_of,
)
from splora.tasks.sources import ALL_TASKS

if TYPE_CHECKING:
    from splora.posttraining.quantize.request import QuantizeRequest


def make_parser() -> argparse.ArgumentParser:
    """The command's options."""
    parser = argparse.ArgumentParser(
        prog="splora quantize", description="Store a checkpoint's weights in a few bits, without training it."
    )
    parser.add_argument(
        "--model", required=True, metavar="PATH", help="folder or hub name of a checkpoint, dense or pruned"
    )
    add_choice(
        parser, "--task", allowed=ALL_TASKS, default="wikitext2", metavar="TASK", help="what the model is judged on"
    )
    add_data(parser, "folder of the task's data, or a file of text")
    add_output(parser)
    add_quantization(parser)
    _add_run(parser)
    return parser


def main(arguments: list[str]) -> None:
    """Quantize one checkpoint."""
    options = make_parser().parse_args(arguments)
    with ending_tidily():
        carry_out(request_from(options))


def add_quantization(parser: argparse.ArgumentParser) -> None:
    """What is quantized how."""
    add_choice(parser, "--bits", type=int, allowed=BITS, default=4, help="per weight")
    parser.add_argument(
        "--group-size",
        "--group_size",
        type=int,
        default=128,
        metavar="N",
        help="neighbouring weights of a row that share a step (default: 128); -1: whole rows",
    )
    parser.add_argument(
        "--symmetric", action="store_true", help="zero is the middle of the grid (default: where it fits)"
    )
    parser.add_argument(
        "--act-order", "--act_order", action="store_true", help="round inputs of large mean square first"
    )
    parser.add_argument(
        "--damping",
        type=float,
        default=0.01,
        metavar="F",
        help="added to the Hessian's diagonal, as a fraction of its mean (default: 0.01)",
    )
    add_choice(
        parser, "--method", allowed=QUANTIZERS, default="gptq", help="rtn rounds each weight to the nearest: a baseline"
    )
    parser.add_argument(
        "--half", action="store_true", help="store what is not quantized in fp16; the same as --dtype fp16"
    )


def _add_run(parser: argparse.ArgumentParser) -> None:
    add_calibration(parser, SAMPLES["stat"])
    parser.add_argument(
        "--seq-len", "--seq_len", type=int, dest="max_seq_length", metavar="N", help="the same as --max_seq_length"
    )


def request_from(options: argparse.Namespace) -> QuantizeRequest:
    """The request that options make.

    Raises:
        InputError: all that can be found wrong without loading anything.
    """
    from splora.tasks.registry import REGISTRY
    from splora.tasks.sources import canonical_task

    problems: list[str] = []
    task = "wikitext2"
    try:
        task = canonical_task(options.task)
    except InputError as error:
        problems += error.problems
    label = Path(options.model).name
    of_text = REGISTRY[task].causal
    usual = TEXT_SAMPLES if REGISTRY[task].outputs == "losses" else SAMPLES["stat"]
    columns: dict[str, str] = {}
    try:
        columns = columns_of(options.column)
    except InputError as error:
        problems += error.problems
    request = make_request(
        options,
        model=checkpoint_name(options.model),
        task=task,
        data=options.data_dir,
        output=Path(options.output_dir) if options.output_dir else Path("output") / label / task / result_name(options),
        samples=usual if options.num_samples is None else options.num_samples,
        columns=columns,
        summary=summary_path(options.model) if of_text else Path("output") / label / f"{task}.txt",
    )
    try:
        request.check()
    except InputError as error:
        problems += error.problems
    if problems:
        raise InputError(problems)
    return request


def make_request(options: argparse.Namespace, **others: Any) -> QuantizeRequest:
    """A request of these options and of what else it needs; nothing is checked."""
    from splora.posttraining.core.budget import Budget
    from splora.posttraining.quantize.request import QuantizeRequest

    return QuantizeRequest(
        method=options.method,
        budget=Budget("mac", 1.0),
        seed=options.seed,
        max_seq_length=options.max_seq_length,
        doc_stride=options.doc_stride,
        precision=options.precision,
        device=device_of(options),
        threads=options.threads,
        dtype=options.dtype,
        force=options.force,
        choices={
            "bits": options.bits,
            "group_size": options.group_size,
            "symmetric": options.symmetric,
            "act_order": options.act_order,
            "damping": options.damping,
            "storage": options.states,
            "half": options.half,
        },
        **others,
    )


def result_name(options: argparse.Namespace) -> str:
    """Name of a result's folder."""
    groups = "rows" if options.group_size == -1 else f"groups-{options.group_size}"
    return f"{options.method}-{options.bits}-bits-{groups}-seed-{options.seed}"


def carry_out(request: QuantizeRequest) -> None:
    """Quantize with progress on the terminal, and print what came of it."""
    from splora.quiet import quiet_libraries
    from splora.scripts.console import StageProgress

    quiet_libraries()
    from splora.posttraining.quantize.pipeline import quantize, summary_line

    with StageProgress() as progress:
        result = quantize(request, progress.report)
    print(summary_line(result, request.output))
    print(
        f"memory: {result['peak_memory_bytes'] / 2**20:,.0f} MiB at most; "
        f"{result['bits_per_weight']:.2f} bits per quantized weight, steps included"
    )


if __name__ == "__main__":
    import sys

    from splora.errors import exit_on_input_error

    with exit_on_input_error():
        main(sys.argv[1:])
