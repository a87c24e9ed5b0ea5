"""`splora evaluate`: scores of a dense, pruned or quantized model on any task."""

from __future__ import annotations

import argparse

from splora.console import shown_progress
from splora.interruption import ending_tidily
from splora.option_file import add_config, parse
from splora.option_help import add_choice
from splora.posttraining.command import COMPUTE, add_data, columns_of
from splora.posttraining.core.options import add_options
from splora.posttraining.core.request import Request
from splora.tasks.registry import REGISTRY


def make_parser() -> argparse.ArgumentParser:
    """The command's options."""
    parser = argparse.ArgumentParser(
        prog="splora evaluate", description="Score a model on a task: dense, pruned or quantized."
    )
    parser.add_argument("--model", required=True, metavar="PATH", help="folder or hub name of the checkpoint")
    add_choice(parser, "--task", allowed=REGISTRY, required=True, metavar="TASK", help="what it is judged on")
    add_data(parser, "folder of the task's data, or a file of what is evaluated")
    parser.add_argument("--tokenizer", metavar="PATH", help="folder or hub name (default: the model's own)")
    parser.add_argument(
        "--metric",
        action="append",
        default=[],
        metavar="NAME",
        help="a further metric of the package evaluate: a name of the hub or the path of a module, whose code is run; "
        "repeatable",
    )
    parser.add_argument(
        "--column", action="append", default=[], metavar="NAME=COLUMN", help="where columns are not recognized"
    )
    parser.add_argument("--output", metavar="JSON", help="write the scores there, too")
    add_options(parser, Request, ("max_seq_length", "doc_stride", *COMPUTE))
    add_config(parser)
    return parser


def main(arguments: list[str]) -> None:
    """Print the scores of one model, a line each."""
    options = parse(make_parser(), arguments)
    from splora.files import write_json
    from splora.posttraining.core.compute import check_compute, use_threads

    check_compute(device=options.device, precision=options.precision, threads=options.threads)
    with ending_tidily(), shown_progress() as report:
        use_threads(options.threads)
        from splora.evaluation import evaluate

        scores = evaluate(
            options.model,
            options.task,
            options.data_dir,
            tokenizer=options.tokenizer,
            metrics=options.metric,
            max_seq_length=options.max_seq_length,
            doc_stride=options.doc_stride,
            columns=columns_of(options.column),
            precision=options.precision,
            device=options.device,
            report=report,
        )
    for name, value in scores.items():
        print(f"{name}: {value:.4f}")
    if options.output is not None:
        write_json(options.output, scores)


if __name__ == "__main__":
    import sys

    from splora.errors import exit_on_input_error

    sys.path.pop(0)  # this folder, where the package `evaluate` would be looked for
    with exit_on_input_error():
        main(sys.argv[1:])
