"""Options that all commands that prune after training share, and the request they make. Imports no torch."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

from splora.console import shown_progress
from splora.errors import InputError
from splora.option_help import spellings
from splora.posttraining.core.budget import Budget
from splora.posttraining.core.method import Method
from splora.posttraining.core.names import checkpoint_name, summary_path
from splora.posttraining.core.options import add_options, read_options
from splora.posttraining.core.request import PruneRequest, Request
from splora.tasks.registry import REGISTRY, canonical_task

T = TypeVar("T")

#: Windows of a text that calibrate by default.
TEXT_SAMPLES = 128
#: Options of `Request`: where a command computes; what it looks at; what a pruning counts and measures.
COMPUTE = ("precision", "device", "threads")
CALIBRATION = ("seed", "max_seq_length", "doc_stride", *COMPUTE, "dtype", "force")
PRUNING = ("tokens", "latency_batch_size", "latency_tokens")


def add_calibration(parser: argparse.ArgumentParser, samples: int) -> None:
    """Options of whatever looks at samples."""
    parser.add_argument(
        *spellings("--num_samples"),
        type=int,
        metavar="N",
        help=f"training examples to calibrate with (default: {samples}; of a text, {TEXT_SAMPLES} windows)",
    )
    add_options(parser, Request, CALIBRATION)
    parser.add_argument(
        "--column",
        action="append",
        default=[],
        metavar="NAME=COLUMN",
        help="where the data's columns are not recognized, e.g. label=gold; repeatable",
    )


def add_method(parser: argparse.ArgumentParser, method: Method) -> None:
    """What every method of pruning shares, and what is this one's."""
    add_calibration(parser, method.samples)
    add_options(parser, Request, (*PRUNING, *(("offload",) if method.offloads else ())))
    for part, what in (("mha", "attention"), ("ffn", "feed-forward")):
        names = spellings(f"--{part}_lut")
        parser.add_argument(*names, metavar="FILE", help=f"measured latencies of {what} blocks")
    add_options(parser, method.options)


def add_data(parser: argparse.ArgumentParser, what: str = "folder of the task's data") -> None:
    """Where the data are; every command takes the published spelling and the one that messages name."""
    names = spellings("--data", "--data_dir")
    parser.add_argument(*names, dest="data_dir", metavar="DIR", help=f"{what} (default: the hub)")


def add_output(parser: argparse.ArgumentParser) -> None:
    """Where the result goes; spelled as `add_data`."""
    names = spellings("--output", "--output_dir")
    parser.add_argument(*names, dest="output_dir", metavar="DIR", help="default: output/MODEL/TASK/…")


def usual_samples(task: str, otherwise: int) -> int:
    """Examples that calibrate where nobody says how many: windows of a text, or as many as the method has it."""
    return TEXT_SAMPLES if task in REGISTRY and REGISTRY[task].outputs == "losses" else otherwise


def collected(problems: list[str], read: Callable[[], T], otherwise: T) -> T:
    """What `read` returns, or, its sentences put to the others, something else."""
    try:
        return read()
    except InputError as error:
        problems.extend(error.problems)
        return otherwise


def shared_values(options: argparse.Namespace, problems: list[str]) -> dict[str, Any]:
    """Fields of a request that a command line says; sentences on others are put to the problems."""
    values, wrong = read_options(Request, options)
    problems.extend(wrong)
    if getattr(options, "gpu", None) is not None:
        values["device"] = f"cuda:{options.gpu}"
    none: dict[str, str] = {}
    columns = collected(problems, lambda: columns_of(options.column), none)
    return values | {"data": options.data_dir, "columns": columns}


def request_of(
    options: argparse.Namespace,
    method: Method,
    *,
    model: str,
    task: str,
    budget: Callable[[], Budget],
    name: str,
    checks_output: bool = True,
) -> PruneRequest:
    """The request that options make. Of a text, `model` may be a published name of an OPT.

    Args:
        budget: reads the budget from the options.
        name: the model's, published or not: its last part is the folder of `output/` that results go to, and of the
            text file that gets one line, `output/<model>/<task>.txt`, or `output/opt/<model>.txt` if it is of a text.
        checks_output: whether the result goes to the output folder itself.

    Raises:
        InputError: all that can be found wrong without loading anything.
    """
    problems: list[str] = []
    known_task = collected(problems, lambda: canonical_task(task), "task")
    wanted = collected(problems, budget, Budget("mac", 0.5))
    tables = collected(problems, lambda: _tables(options.mha_lut, options.ffn_lut), None)
    of_method, wrong = read_options(method.options, options)
    problems += wrong
    causal = known_task in REGISTRY and REGISTRY[known_task].causal
    folder = Path("output") / Path(name).name
    result = f"{method.name}-{wanted.metric}-{wanted.fraction:g}-seed-{options.seed}"
    values = {"samples": usual_samples(known_task, method.samples), **shared_values(options, problems)}
    request = PruneRequest(
        method=method.name,
        model=checkpoint_name(model) if causal else model,
        task=known_task,
        budget=wanted,
        output=Path(options.output_dir) if options.output_dir else folder / known_task / result,
        tables=tables,
        summary=summary_path(name) if causal else folder / f"{known_task}.txt",
        options=of_method,
        **values,
    )
    if checks_output:
        collected(problems, request.check, None)
    if problems:
        raise InputError(dict.fromkeys(problems))
    return request


def carry_out(request: PruneRequest) -> None:
    """Prune with progress on the terminal, and print what came of it."""
    with shown_progress() as report:
        from splora.posttraining.core.outcome import summary_line
        from splora.posttraining.pipeline import prune

        result = prune(request, report)
    print(summary_line(result, request.output))
    for stage, notes in result["notes"].items():
        for sublayer, largest in notes.get("skipped", {}).items():
            print(f"{stage}: {sublayer} keeps its weights; its largest factor would be {largest:.3g}.")
        if "stored" in notes:
            print(f"{stage}: {notes['stored']}")
        for sublayer, message in notes.get("dependent_channels", {}).items():
            print(
                f"{stage}: {sublayer}: {message}, so an eigenvalue factorization, whose least-norm solution spreads "
                f"over all of them, was used instead of Cholesky's."
            )
    held = max((notes.get("hidden_state_bytes", 0) for notes in result["notes"].values()), default=0)
    print(
        f"memory: {result['peak_memory_bytes'] / 2**20:,.0f} MiB at most, {held / 2**20:,.0f} MiB of it hidden states"
    )


def columns_of(given: list[str]) -> dict[str, str]:
    """Names of columns by what they hold, from `NAME=COLUMN`.

    Raises:
        InputError: something else is given.
    """
    pairs = [text.partition("=") for text in given]
    wrong = [text for text, (name, sign, column) in zip(given, pairs, strict=True) if not (name and sign and column)]
    if wrong:
        raise InputError(f"--column is {text!r}; it reads NAME=COLUMN, e.g. label=gold." for text in wrong)
    return {name: column for name, _, column in pairs}


def _tables(mha: str | None, ffn: str | None) -> tuple[str, str] | None:
    if (mha is None) != (ffn is None):
        missing, given = ("--ffn_lut", "--mha_lut") if ffn is None else ("--mha_lut", "--ffn_lut")
        raise InputError(f"{given} is given without {missing}; scripts/generate_lut.py writes both.")
    return (mha, ffn) if mha is not None and ffn is not None else None
