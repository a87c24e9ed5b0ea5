"""Rows of a workbook: list, check, print as YAML, run them here or on many devices, or tell where they stand."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from pathlib import Path

import yaml
from splora.hparams.listing import table
from splora.hparams.overrides import Overrides, apply, parse
from splora.hparams.rows import Row, Sheet
from splora.hparams.select import select
from splora.hparams.workbook import OWN, Workbook, read_workbook
from splora.scripts.plan import Job, plan

from splora.errors import InputError, Interrupted, exit_on_input_error, nearest
from splora.machine import is_first_process
from splora.training.specification import METHODS


def main(arguments: Sequence[str] | None = None) -> None:
    """The command; mistakes of the user end it with exit code 2."""
    try:
        with exit_on_input_error():
            status = _main(_parser().parse_args(arguments))
        sys.stdout.flush()
        if status:
            sys.exit(status)
    except (Interrupted, KeyboardInterrupt):
        if is_first_process():
            print("stopped; the same command goes on from the last checkpoints.", file=sys.stderr)
        sys.exit(130)
    except BrokenPipeError:
        # The reader of the output has seen enough; what is left must not be flushed into its closed pipe.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _main(options: argparse.Namespace) -> int:
    if options.status:
        return _status(options)
    if options.method is not None and options.method not in METHODS:
        raise InputError(f"--method: is {options.method!r}; allowed are {', '.join(METHODS)}{_end(options.method)}")
    shorthands = {
        "model_name_or_path": ("--model", options.model),
        "train_file": ("--train-file", options.train_file),
        "predict_file": ("--predict-file", options.predict_file),
    }
    overrides = parse(options.settings, shorthands)
    book = read_workbook(options.workbook or OWN)
    sheets = book.sheets if options.sheet is None else [book.sheet(options.sheet)]
    if options.list:
        _list(sheets, options.method)
    elif options.check:
        _check(book, sheets, options.verbose)
    else:
        rows = [apply(row, overrides) for row in _chosen(book, options)]
        _refuse_problems(book, rows)
        jobs = plan(rows, book, overrides, options.output_dir)
        _refuse_problems(book, [job.row for job in jobs])
        if options.dry_run:
            _print_configurations(jobs)
        else:
            from splora.scripts.launch.start import start

            return start(jobs, options)
    return 0


def _chosen(book: Workbook, options: argparse.Namespace) -> list[Row]:
    if options.exp_ids:
        rows = select(book, options.exp_ids, options.sheet)
    elif options.sheet is not None or len(book.sheets) == 1:
        rows = book.sheet(options.sheet or book.sheets[0].name).rows
    elif options.workbook is None:
        rows = book.sheet("SQuAD").rows
    else:
        raise InputError(f"--all: {book.path} has several sheets; choose one with --sheet.")
    rows = [row for row in rows if options.method in (None, row.spec.pruning_method)]
    if not rows:
        raise InputError(
            f"{book.path}: no row is left to run{f' with --method {options.method}' * bool(options.method)}."
        )
    return rows


def _refuse_problems(book: Workbook, rows: Sequence[Row]) -> None:
    """Nothing starts while a cell of the sheets that rows were chosen from is wrong."""
    names = {row.sheet for row in rows}
    sheets = [sheet for sheet in book.sheets if sheet.name in names]
    problems = book.problems(sheets) + [problem for row in rows for problem in row.problems]
    if problems:
        raise InputError(dict.fromkeys(problems))


def _list(sheets: Sequence[Sheet], method: str | None) -> None:
    for number, sheet in enumerate(sheets):
        rows = [row for row in sheet.rows if method in (None, row.spec.pruning_method)]
        print(f"{chr(10) * bool(number)}{sheet.name}: {len(rows)} rows")
        print("\n".join(table(rows)))
    found = sum(len(sheet.problems) + sum(len(row.problems) for row in sheet.rows) for sheet in sheets)
    if found:
        print(f"{found} problems; --check shows them.", file=sys.stderr)


def _check(book: Workbook, sheets: Sequence[Sheet], verbose: bool) -> None:
    # Applying no overrides looks for the files that rows name.
    found = [problem for sheet in sheets for row in sheet.rows for problem in apply(row, Overrides()).problems]
    problems = dict.fromkeys([*book.problems(sheets), *found])
    if verbose:
        print("\n".join(notice for sheet in sheets for row in sheet.rows for notice in row.notices))
    if problems:
        raise InputError(problems)
    rows = sum(len(sheet.rows) for sheet in sheets)
    notices = sum(len(row.notices) for sheet in sheets for row in sheet.rows)
    hint = f"; {notices} cells were read in a special way, -v shows them" if notices and not verbose else ""
    print(f"{book.path}: {rows} rows in {', '.join(sheet.name for sheet in sheets)}: no problems{hint}.")


def _print_configurations(jobs: Sequence[Job]) -> None:
    from splora.training.configuration import lightning_config

    for number, job in enumerate(jobs):
        why = f", needed by {job.needed_by}" if job.needed_by else ""
        print(f"{'---' + chr(10) if number else ''}# {job.row.sheet}, EXP ID {job.spec.exp_id}{why}: {job.folder}")
        configuration = lightning_config(job.spec, str(job.folder))
        yaml.safe_dump(configuration, sys.stdout, sort_keys=False, allow_unicode=True)


def _status(options: argparse.Namespace) -> int:
    from splora.scripts.launch.start import DEFAULT_ROOT
    from splora.scripts.launch.status import print_status

    print_status(Path(options.output_dir or DEFAULT_ROOT), options.sheet, options.method)
    return 0


def _end(method: str) -> str:
    return nearest(method, METHODS) or "."


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="run_from_sheet", description=__doc__)
    parser.add_argument("--workbook", metavar="PATH", help="another workbook than the project's own")
    parser.add_argument("--sheet", metavar="NAME", help="only this sheet; --all without it takes SQuAD")
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument("--list", action="store_true", help="the rows: EXP ID, method, density, reported scores")
    what.add_argument("--check", action="store_true", help="check every cell and name all problems")
    what.add_argument(
        "--exp-id",
        nargs="+",
        dest="exp_ids",
        metavar="ID",
        help="rows to run: 12, 14-18, a text ID with its density, or row:5",
    )
    what.add_argument("--all", action="store_true", help="run every row of the sheet")
    what.add_argument(
        "--status",
        action="store_true",
        help="where every run below runs/ (or --output-dir) stands: step, loss, density, time left, why it failed",
    )
    parser.add_argument("--method", metavar="NAME", help="only rows that prune so")
    parser.add_argument("--dry-run", action="store_true", help="check, then print what would run as YAML")
    parser.add_argument("-v", "--verbose", action="store_true", help="with --check: say how unusual cells were read")
    row = parser.add_argument_group("changes to the chosen rows")
    row.add_argument("--set", action="append", default=[], dest="settings", metavar="KEY=VALUE", help="any column")
    row.add_argument("--model", metavar="NAME_OR_PATH", help="model_name_or_path")
    row.add_argument("--train-file", metavar="PATH", help="train_file")
    row.add_argument("--predict-file", metavar="PATH", help="predict_file")
    row.add_argument("--output-dir", metavar="DIR", help="default: runs/<sheet>/<EXP ID>; several rows: a folder each")
    machine = parser.add_argument_group("machine (no part of a row)")
    machine.add_argument("--devices", type=int, metavar="N", help="processes or GPUs of this machine; default 1")
    machine.add_argument(
        "--num-nodes", type=int, metavar="N", help="machines of one row, under torchrun or SLURM; default 1"
    )
    machine.add_argument("--strategy", metavar="NAME", help="Lightning's strategy, such as ddp")
    machine.add_argument("--accelerator", metavar="NAME", help="cpu, gpu, …; default: what is there")
    row.add_argument("--force", action="store_true", help="run again what is finished or failed, from its start")
    many = parser.add_argument_group("many rows at once (docs/launching.md)")
    many.add_argument("--jobs", metavar="N", help="rows at once, each in a process of its own; auto: one per device")
    many.add_argument("--retry-failed", action="store_true", help="also run rows that failed in an earlier command")
    many.add_argument("--launcher", default="local", metavar="NAME", help="local (default) or ray")
    many.add_argument("--address", metavar="ADDRESS", help="Ray: host:port of a cluster, or auto; default: start one")
    many.add_argument(
        "--gpus-per-run", type=float, metavar="N", help="Ray: GPUs of a row; default 1 where there are any"
    )
    many.add_argument("--cpus-per-run", type=int, metavar="N", help="Ray: cores of a row; default 1")
    return parser


if __name__ == "__main__":
    main()
