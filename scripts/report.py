"""`splora report RUNS`: one HTML file that shows all runs below a folder."""

from __future__ import annotations

import argparse
import csv
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from splora.report.score_charts import Published


def make_parser() -> argparse.ArgumentParser:
    """The command's options."""
    parser = argparse.ArgumentParser(prog="splora report", description="One HTML file that shows all runs of a folder.")
    parser.add_argument("runs", metavar="FOLDER", help="runs are looked for below this folder")
    parser.add_argument("--output", default="report.html", metavar="HTML", help="the file (default: report.html)")
    parser.add_argument("--png", metavar="DIR", help="save every chart as a PNG file in this folder, too")
    parser.add_argument("--title", default="", help="title of the report")
    return parser


def main(arguments: Sequence[str]) -> None:
    """Read runs in whatever state they are, and write the report."""
    options = make_parser().parse_args(arguments)

    from splora.json_values import one_line
    from splora.report.build import write_report

    written = write_report(options.runs, options.output, published_points(), options.png, options.title)
    for notice in written.notices:
        print(f"warning: {one_line(notice, 1000)}", file=sys.stderr)
    pictures = f", {len(written.pictures)} pictures in {options.png}" if written.pictures else ""
    print(f"{written.page}: {written.runs} runs, {written.size / 2**20:.2f} MiB{pictures}.")


def published_points() -> list[Published]:
    """The published rows of the project's workbook that have a density."""
    from splora.hparams.catalogue import PUBLISHED
    from splora.report.score_charts import Published

    path = PUBLISHED
    if not path.is_file():
        return []
    with path.open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    scores = ("exact_match", "f1", "accuracy", "accuracy_mismatched")
    return [
        Published(
            task=row["task"],
            title=row["model"],
            method=row["pruning_method"],
            adapter=row["adapter"],
            density=float(row["reported_density"]),
            metrics={name: float(row[f"reported_{name}"]) for name in scores if row[f"reported_{name}"]},
            block=int(row["block_side"]) if row["block_side"] else None,
        )
        for row in rows
        if row["reported_density"]
    ]


if __name__ == "__main__":
    from splora.errors import as_program

    as_program(main)
