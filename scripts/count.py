"""`splora count RUN…`: remaining and learned weights of saved runs."""

from __future__ import annotations

import argparse


def make_parser() -> argparse.ArgumentParser:
    """The command's options."""
    parser = argparse.ArgumentParser(
        prog="splora count", description="Count remaining and learned weights of saved runs."
    )
    parser.add_argument("runs", nargs="+", metavar="RUN", help="folder of a finished run")
    return parser


def main(arguments: list[str]) -> None:
    """Load each run and count it as DESIGN defines it."""
    folders = make_parser().parse_args(arguments).runs

    from splora.errors import InputError
    from splora.training.counting import count_weights
    from splora.training.saving import load_run

    print(f"{'run':<40} {'encoder':>12} {'remaining':>12} {'%':>7} {'learned':>12} {'%':>8}")
    problems: list[str] = []
    for folder in folders:
        try:
            counts = count_weights(load_run(folder))
        except InputError as error:  # the other runs are counted all the same
            problems += error.problems
            continue
        print(
            f"{folder:<40} {counts.encoder:>12,} {counts.remaining:>12,} {counts.remaining_percent:>7.2f} "
            f"{counts.learned:>12,} {counts.learned_percent:>8.3f}"
        )
    if problems:
        raise InputError(problems)


if __name__ == "__main__":
    import sys

    from splora.errors import exit_on_input_error

    with exit_on_input_error():
        main(sys.argv[1:])
