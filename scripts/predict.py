"""`splora predict MODEL_OR_RUN --input FILE`: answers to questions, or classes of sentences, that have no labels."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path

from splora.errors import InputError
from splora.option_help import add_choice
from splora.posttraining.command import COMPUTE, columns_of
from splora.posttraining.core.options import add_options
from splora.posttraining.core.request import Request
from splora.tasks.sources import TASKS

#: How arguments of Lightning's command of the same name begin.
_OF_LIGHTNING = (
    "-c",
    "--config",
    "--print_config",
    "--seed_everything",
    "--trainer",
    "--model",
    "--data",
    "--ckpt_path",
)


def is_for_lightning(arguments: Sequence[str]) -> bool:
    """Whether these are arguments of ``lightning predict --config …``, which needs a configuration."""
    return any(word.startswith(_OF_LIGHTNING[1:]) or word == _OF_LIGHTNING[0] for word in arguments)


def make_parser() -> argparse.ArgumentParser:
    """The command's options."""
    parser = argparse.ArgumentParser(
        prog="splora predict",
        description="Answer questions, or classify sentences and pairs, that have no labels.",
        epilog="With --config this is Lightning's command of the same name: lightning predict --help.",
    )
    parser.add_argument(
        "model", metavar="MODEL_OR_RUN", help="a finished run, an adapter's or a model's folder, or a hub name"
    )
    parser.add_argument(
        "--input",
        required=True,
        metavar="FILE",
        help='questions as SQuAD\'s JSON or a list of {"question", "context"}; sentences and pairs as TSV, CSV, JSON '
        "or Parquet with their columns",
    )
    parser.add_argument(
        "--output", metavar="JSON", help="answers by question ID, or classes by row from 0 on (default: printed)"
    )
    add_choice(
        parser,
        "--task",
        allowed=TASKS,
        metavar="TASK",
        help="what the model is fine-tuned for, where its folder does not say so",
    )
    parser.add_argument(
        "--max_seq_length",
        "--max-seq-length",
        type=int,
        metavar="N",
        help="tokens per window or example at most (default: as the model was evaluated, or 384 and 128)",
    )
    parser.add_argument(
        "--doc_stride",
        "--doc-stride",
        type=int,
        metavar="N",
        help="tokens that windows of a long context share (default: as the model was evaluated, or 128)",
    )
    parser.add_argument(
        "--column",
        action="append",
        default=[],
        metavar="NAME=COLUMN",
        help="where the file's columns are not recognized, e.g. sentence=review; repeatable",
    )
    parser.add_argument("--force", action="store_true", help="replace the file of --output")
    add_options(parser, Request, COMPUTE)
    return parser


def main(arguments: Sequence[str]) -> None:
    """Predict and print or write."""
    options = make_parser().parse_args(arguments)
    predictions = run(options)
    if options.output is None:
        print(json.dumps(predictions, indent=2, ensure_ascii=False))
        return
    from splora.files import write_json

    write_json(options.output, predictions)
    print(f"{options.output}: {len(predictions):,} predictions.", file=sys.stderr)


def run(options: argparse.Namespace) -> dict[str, object]:
    """The predictions of a command.

    Raises:
        InputError: options, model or file are not what is needed.
    """
    from splora.posttraining.core.compute import check_compute, use_threads
    from splora.quiet import quiet_libraries
    from splora.training.inference import find_predictor, predict_file

    if options.output is not None and Path(options.output).exists() and not options.force:
        raise InputError(f"--output: {options.output} is there already; name another file, or --force replaces it.")
    for name, least in (("max_seq_length", 8), ("doc_stride", 0)):
        if getattr(options, name) is not None and getattr(options, name) < least:
            raise InputError(f"--{name} is {getattr(options, name)}; it must be {least} or larger.")
    check_compute(device=options.device, precision=options.precision, threads=options.threads)
    columns = columns_of(options.column)
    quiet_libraries()
    use_threads(options.threads)
    predictor = find_predictor(options.model, options.task)
    return predict_file(
        predictor,
        options.input,
        precision=options.precision,
        device=options.device,
        max_seq_length=options.max_seq_length,
        doc_stride=options.doc_stride,
        columns=columns or None,
    )


if __name__ == "__main__":
    from splora.errors import as_program

    as_program(main)
