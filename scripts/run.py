"""`splora run`: rows of a workbook, as `scripts/run_from_sheet.py`."""

from __future__ import annotations

import argparse
from collections.abc import Sequence

from splora.scripts import run_from_sheet

PROGRAM = "splora run"


def make_parser() -> argparse.ArgumentParser:
    """The command's options."""
    return run_from_sheet.make_parser(PROGRAM)


def main(arguments: Sequence[str]) -> None:
    """List, check, run or tell of rows."""
    run_from_sheet.main(arguments, PROGRAM)
