"""`splora count RUN…`: remaining and learned weights of saved runs, and what stays in pruned or quantized models."""

from __future__ import annotations

import argparse
from pathlib import Path


def make_parser() -> argparse.ArgumentParser:
    """The command's options."""
    parser = argparse.ArgumentParser(
        prog="splora count",
        description="Count remaining and learned weights of saved runs, and what stays in pruned or quantized models.",
    )
    parser.add_argument(
        "runs", nargs="+", metavar="RUN", help="folder of a finished run, or one that splora prune or quantize made"
    )
    return parser


def main(arguments: list[str]) -> None:
    """Load each run and count it as DESIGN defines it."""
    folders = make_parser().parse_args(arguments).runs

    from splora.adapter_files import is_adapter
    from splora.errors import InputError
    from splora.export.folder import is_model_folder, load_pruned
    from splora.export.quantized import is_quantized, load_quantized
    from splora.quiet import quiet_libraries
    from splora.training.counting import count_cut, count_weights
    from splora.training.saving import load_run

    quiet_libraries()
    print(f"{'run':<40} {'encoder':>12} {'remaining':>12} {'%':>7} {'learned':>12} {'%':>8}")
    problems: list[str] = []
    for folder in folders:
        try:
            if is_model_folder(folder):
                counts = count_cut(load_quantized(folder) if is_quantized(folder) else load_pruned(folder))
                learned = f"{'–':>12} {'–':>8}"  # nothing was trained
            else:
                # Its run knows which parameters of an adapter's folder were trained.
                counts = count_weights(load_run(Path(folder).parent if is_adapter(folder) else folder))
                learned = f"{counts.learned:>12,} {counts.learned_percent:>8.3f}"
        except InputError as error:  # the other runs are counted all the same
            problems += error.problems
            continue
        print(f"{folder:<40} {counts.encoder:>12,} {counts.remaining:>12,} {counts.remaining_percent:>7.2f} {learned}")
    if problems:
        raise InputError(problems)


if __name__ == "__main__":
    from splora.errors import as_program

    as_program(main)
