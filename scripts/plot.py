"""`splora plot RUNS`: a picture and a table of scores against density."""

from __future__ import annotations

import argparse
import sys


def make_parser() -> argparse.ArgumentParser:
    """The command's options."""
    parser = argparse.ArgumentParser(prog="splora plot", description="Draw scores of finished runs against density.")
    parser.add_argument("runs", metavar="FOLDER", help="finished runs are looked for below this folder")
    parser.add_argument("--metric", default="f1", help="metric of the vertical axis (default: f1)")
    parser.add_argument("--output", default="density.png", metavar="PNG", help="the picture (default: density.png)")
    parser.add_argument("--title", default="", help="title of the picture")
    return parser


def main(arguments: list[str]) -> None:
    """Read finished runs, draw them, print them as a Markdown table."""
    options = make_parser().parse_args(arguments)

    from splora.report.density import draw, read_points, table

    notices: list[str] = []
    points = read_points(options.runs, notices)
    for notice in notices:
        print(f"warning: {notice}", file=sys.stderr)
    draw(points, options.metric, options.output, options.title)
    metrics = [name for name in ("exact_match", "f1", "accuracy") if any(name in point.metrics for point in points)]
    print(table(points, metrics))
    print(f"\n{options.output}: {len(points)} runs.")


if __name__ == "__main__":
    from splora.errors import as_program

    as_program(main)
