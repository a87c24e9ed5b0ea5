"""Rows of a workbook: list, check, print as YAML, run them here or on many devices, or tell where they stand."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from pathlib import Path

import yaml

from splora.errors import EXIT_CODE, InputError, Interrupted, cut, exit_on_input_error, nearest, print_problems
from splora.hparams.lineage import check_lineage
from splora.hparams.listing import table
from splora.hparams.overrides import Overrides, apply, parse
from splora.hparams.rows import Row, Sheet, sentence
from splora.hparams.seeds import parse_seeds
from splora.hparams.select import select
from splora.hparams.workbook import COPIED, OWN, Workbook, read_workbook, specifications
from splora.launch.plan import Job, advice, lines, plan_seeds
from splora.launch.start import LAUNCHERS
from splora.machine import is_first_process, wait_passively
from splora.option_help import add_choice
from splora.training.specification import METHOD_ALIASES, METHODS, methods_named

PROGRAM = "run_from_sheet"


def main(arguments: Sequence[str] | None = None, program: str = PROGRAM) -> None:
    """The command, under the name that its help gives it; mistakes of the user end it with exit code 2."""
    wait_passively()
    try:
        with exit_on_input_error():
            status = _main(make_parser(program).parse_args(arguments))
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
    if options.method is not None and not methods_named(options.method):
        hint = nearest(options.method, METHODS, METHOD_ALIASES) or "."
        raise InputError(f"--method: is {cut(options.method)}; allowed are {', '.join(METHODS)}{hint}")
    shorthands = {
        "model_name_or_path": ("--model", options.model),
        "train_file": ("--train-file", options.train_file),
        "predict_file": ("--predict-file", options.predict_file),
    }
    overrides = parse(options.settings, shorthands, options.start)
    book = read_workbook(options.workbook or OWN)
    sheets = book.sheets if options.sheet is None else [book.sheet(options.sheet)]
    if options.list:
        _list(sheets, options.method)
    elif options.check:
        _check(book, sheets, options.verbose)
    else:
        rows = [apply(row, overrides) for row in _chosen(book, options)]
        seeds = () if options.seeds is None else parse_seeds(options.seeds)
        if seeds and "seed" in overrides.values:
            raise InputError(f"--seeds: seed is given a second time, by {overrides.options['seed']}.")
        jobs, problems = plan_seeds(rows, book, overrides, options.output_dir, seeds)
        if not jobs:
            raise InputError(problems)
        # One bad row costs that row: the good ones that were asked for run, and the command does not end with 0.
        if is_first_process():
            print_problems(problems)
        if options.dry_run:
            _print_configurations(jobs, overrides)
            return EXIT_CODE if problems else 0
        _show(jobs, overrides, options.force)
        from splora.launch.start import start

        return start(jobs, options) or int(bool(problems))
    return 0


def _chosen(book: Workbook, options: argparse.Namespace) -> list[Row]:
    if options.exp_ids:
        rows = select(book, options.exp_ids, options.sheet)
    else:
        sheet = _whole_sheet(book, options)
        rows = [row for row in sheet.rows if not row.is_hidden]
        if is_first_process():
            hidden = [str(row.spec.exp_id) for row in sheet.rows if row.is_hidden]
            for notice in [*_hidden(sheet.name, hidden), *sheet.notices]:
                print(f"notice: {notice}", file=sys.stderr)
    rows = [row for row in rows if not options.method or row.spec.pruning_method in methods_named(options.method)]
    if not rows:
        raise InputError(
            f"{book.path}: no row is left to run{f' with --method {options.method}' * bool(options.method)}."
        )
    return rows


def _whole_sheet(book: Workbook, options: argparse.Namespace) -> Sheet:
    if options.sheet is not None or len(book.sheets) == 1:
        return book.sheet(options.sheet or book.sheets[0].name)
    if options.workbook is None:
        return book.sheet("SQuAD")
    raise InputError(f"--all: {book.path} has several sheets; choose one with --sheet.")


def _hidden(sheet: str, exp_ids: Sequence[str]) -> list[str]:
    if not exp_ids:
        return []
    named = ", ".join(exp_ids[:10]) + f" and {len(exp_ids) - 10} more" * (len(exp_ids) > 10)
    return [f"sheet '{sheet}': --all leaves out hidden and filtered rows (EXP ID {named}); --exp-id runs them."]


def _show(jobs: Sequence[Job], overrides: Overrides, force: bool) -> None:
    """The plan and what must be known of its rows, before anything starts."""
    if is_first_process():
        print("\n".join(lines(jobs, overrides, force)), flush=True)
        for notice in _copied([job.row for job in jobs]):
            print(f"notice: {notice}", file=sys.stderr)


def _copied(rows: Sequence[Row]) -> list[str]:
    return [notice for row in rows for notice in row.notices if COPIED in notice]


def _list(sheets: Sequence[Sheet], method: str | None) -> None:
    for number, sheet in enumerate(sheets):
        rows = [row for row in sheet.rows if not method or row.spec.pruning_method in methods_named(method)]
        print(f"{chr(10) * bool(number)}{sheet.name}: {len(rows)} rows")
        print("\n".join(table(rows)))
    count = sum(len(sheet.problems) + sum(len(row.problems) for row in sheet.rows) for sheet in sheets)
    if count:
        print(f"{count} problems; --check shows them.", file=sys.stderr)


def _check(book: Workbook, sheets: Sequence[Sheet], verbose: bool) -> None:
    # Applying no overrides looks for the files that rows name.
    specs = specifications(book)
    problems = [problem for sheet in sheets for row in sheet.rows for problem in apply(row, Overrides()).problems]
    problems += [
        sentence(row, problem.field, problem.message)
        for sheet in sheets
        for row in sheet.rows
        for problem in check_lineage(row.spec, specs)
    ]
    problems = list(dict.fromkeys([*book.problems(sheets), *problems]))
    rows = [row for sheet in sheets for row in sheet.rows]
    copied = _copied(rows)
    for notice in [*(notice for sheet in sheets for notice in sheet.notices), *copied]:
        print(f"notice: {notice}", file=sys.stderr)
    unusual = [notice for row in rows for notice in row.notices if notice not in copied]
    if verbose:
        print("\n".join(unusual))
    if problems:
        raise InputError(problems)
    hint = f"; {len(unusual)} cells were read in a special way, -v shows them" if unusual and not verbose else ""
    hidden = sum(row.is_hidden for row in rows)
    hint += f"; {hidden} rows are hidden, --all leaves them out" * bool(hidden)
    hint += f"; without runs: {', '.join(book.others)}" * bool(book.others and verbose)
    print(f"{book.path}: {len(rows)} rows in {', '.join(sheet.name for sheet in sheets)}: no problems{hint}.")


def _print_configurations(jobs: Sequence[Job], overrides: Overrides) -> None:
    from splora.training.configuration import lightning_config

    notes = [*advice(jobs, overrides), *_copied([job.row for job in jobs])]
    for number, job in enumerate(jobs):
        why = f", needed by {job.needed_by}" if job.needed_by else ""
        print(f"{'---' + chr(10) if number else ''}# {job.row.sheet}, EXP ID {job.spec.exp_id}{why}: {job.folder}")
        print("".join(f"# {note}\n" for note in notes) if number == 0 else "", end="")
        configuration = lightning_config(job.spec, str(job.folder))
        yaml.safe_dump(configuration, sys.stdout, sort_keys=False, allow_unicode=True)


def _status(options: argparse.Namespace) -> int:
    from splora.launch.start import DEFAULT_ROOT
    from splora.launch.status import print_status

    print_status(Path(options.output_dir or DEFAULT_ROOT), options.sheet, options.method)
    return 0


def make_parser(program: str = PROGRAM) -> argparse.ArgumentParser:
    """The command's options."""
    parser = argparse.ArgumentParser(prog=program, description=__doc__)
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
    what.add_argument("--all", action="store_true", help="run every row of the sheet that is not hidden or filtered")
    what.add_argument(
        "--status",
        action="store_true",
        help="where every run below runs/ (or --output-dir) stands: step, loss, density, time left, why it failed",
    )
    named = (*METHODS, "movement", "soft movement")
    add_choice(parser, "--method", allowed=named, metavar="NAME", help="only rows that prune so")
    parser.add_argument("--dry-run", action="store_true", help="check, then print what would run as YAML")
    parser.add_argument("-v", "--verbose", action="store_true", help="with --check: say how unusual cells were read")
    row = parser.add_argument_group("changes to the chosen rows")
    row.add_argument(
        "--set", action="append", default=[], dest="settings", metavar="KEY=VALUE", help="any column; see Columns"
    )
    row.add_argument(
        "--seeds",
        metavar="SEEDS",
        help="run each row with several seeds, as 1-5 or 1,3,7: a folder per seed, mean and deviation in the results",
    )
    row.add_argument(
        "--model",
        metavar="NAME_OR_PATH",
        help="the pretrained model: of a row that starts from run:ID, what that row is trained from first",
    )
    row.add_argument(
        "--start",
        metavar="NAME_OR_PATH",
        help="your own fine-tuned model: rows start from it (and learn from it) instead of the run:ID that they name",
    )
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
    add_choice(many, "--launcher", allowed=LAUNCHERS, default="local", help="where rows run at once")
    many.add_argument("--address", metavar="ADDRESS", help="Ray: host:port of a cluster, or auto; default: start one")
    many.add_argument(
        "--gpus-per-run", type=float, metavar="N", help="Ray: GPUs of a row; default 1 where there are any"
    )
    many.add_argument("--cpus-per-run", type=int, metavar="N", help="Ray: cores of a row; default 1")
    return parser


if __name__ == "__main__":
    main()
