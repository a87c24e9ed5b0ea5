"""`splora quantize`: store a checkpoint's weights in a few bits (GPTQ, Frantar et al. 2022), without training."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

from splora.console import shown_progress
from splora.errors import InputError
from splora.interruption import ending_tidily
from splora.option_file import add_config, parse
from splora.option_help import add_choice, spellings
from splora.posttraining.command import (
    add_calibration,
    add_data,
    add_output,
    collected,
    shared_values,
    usual_samples,
)
from splora.posttraining.core.budget import Budget
from splora.posttraining.core.method import DEFAULT, find_method
from splora.posttraining.core.names import checkpoint_name, summary_path
from splora.posttraining.core.options import add_options, read_options
from splora.posttraining.quantize.options import GROUP_SIZE, GridOptions, QuantizeOptions
from splora.tasks.registry import REGISTRY, canonical_task
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
    add_config(parser)
    add_quantization(parser)
    add_options(parser, QuantizeOptions, ["storage"])
    add_calibration(parser, find_method(DEFAULT).samples)
    parser.add_argument(
        *spellings("--seq-len"), type=int, dest="max_seq_length", metavar="N", help="the same as --max_seq_length"
    )
    return parser


def main(arguments: list[str]) -> None:
    """Quantize one checkpoint."""
    options = parse(make_parser(), arguments)
    with ending_tidily():
        carry_out(request_from(options))


def add_quantization(parser: argparse.ArgumentParser) -> None:
    """What is quantized how."""
    add_options(parser, GridOptions)
    parser.add_argument(
        *spellings("--group-size"),
        type=int,
        default=GROUP_SIZE,
        metavar="N",
        help=f"neighbouring weights of a row that share a step (default: {GROUP_SIZE}); -1: whole rows",
    )
    add_options(parser, QuantizeOptions, ["method", "act_order", "damping"])
    parser.add_argument(
        "--half", action="store_true", help="store what is not quantized in fp16; the same as --dtype fp16"
    )


def request_from(options: argparse.Namespace) -> QuantizeRequest:
    """The request that options make.

    Raises:
        InputError: all that can be found wrong without loading anything.
    """
    problems: list[str] = []
    task = collected(problems, lambda: canonical_task(options.task), "wikitext2")
    folder = Path("output") / Path(options.model).name
    request = make_request(
        options,
        problems,
        model=checkpoint_name(options.model),
        task=task,
        output=Path(options.output_dir) if options.output_dir else folder / task / result_name(options),
        samples=usual_samples(task, find_method(DEFAULT).samples),
        summary=summary_path(options.model) if REGISTRY[task].causal else folder / f"{task}.txt",
    )
    collected(problems, request.check, None)
    if problems:
        raise InputError(dict.fromkeys(problems))
    return request


def make_request(options: argparse.Namespace, problems: list[str], **others: Any) -> QuantizeRequest:
    """A request of these options and of what else it needs; options that are wrong are put to the problems.

    Args:
        others: fields of the request; those that an option says give way to it.
    """
    from splora.posttraining.quantize.request import QuantizeRequest

    of_method: dict[str, Any] = {}
    for kind in (GridOptions, QuantizeOptions):
        values, wrong = read_options(kind, options)
        of_method |= values
        problems += wrong
    names = ("bits", "group_size", "symmetric", "act_order", "damping", "storage", "half")
    of_method |= {"group_size": options.group_size, "half": options.half}
    return QuantizeRequest(
        method=of_method.pop("method", "gptq"),
        budget=Budget("mac", 1.0),
        options={name: of_method[name] for name in names if name in of_method},
        **{**others, **shared_values(options, problems)},
    )


def result_name(options: argparse.Namespace) -> str:
    """Name of a result's folder."""
    groups = "rows" if options.group_size == -1 else f"groups-{options.group_size}"
    return f"{options.method}-{options.bits}-bits-{groups}-seed-{options.seed}"


def carry_out(request: QuantizeRequest) -> None:
    """Quantize with progress on the terminal, and print what came of it."""
    with shown_progress() as report:
        from splora.posttraining.quantize.pipeline import quantize, summary_line

        result = quantize(request, report)
    print(summary_line(result, request.output))
    print(
        f"memory: {result['peak_memory_bytes'] / 2**20:,.0f} MiB at most; "
        f"{result['bits_per_weight']:.2f} bits per quantized weight, steps included"
    )


if __name__ == "__main__":
    from splora.errors import as_program

    as_program(main)
