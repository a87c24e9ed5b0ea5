"""Perplexity of an OPT, dense, pruned or quantized, with the published flag names.

python scripts/opt_eval.py --model_name opt-125M --seed 0
"""

from __future__ import annotations

import argparse
import time
from typing import TYPE_CHECKING, Any

from splora.errors import InputError, exit_on_input_error, problems_of
from splora.machine import wait_passively
from splora.posttraining.command import COMPUTE
from splora.posttraining.core.names import checkpoint_name, evaluation_folder, summary_path
from splora.posttraining.core.options import add_options
from splora.posttraining.core.request import Request
from splora.tasks.text_sources import TEXT_TASKS

if TYPE_CHECKING:
    from torch import nn

    from splora.posttraining.core.precision import Precision
    from splora.posttraining.core.stages import Report


def main(arguments: list[str] | None = None) -> None:
    """Evaluate one model on one or more texts."""
    wait_passively()
    options = make_parser().parse_args(arguments)
    with exit_on_input_error():
        evaluate(options)


def evaluate(options: argparse.Namespace) -> dict[str, float]:
    """Print, record and return the perplexity by task.

    Raises:
        InputError: options that are not allowed; a model that cannot be read; or texts that cannot, once all others are
            recorded.
    """
    sources = _sources(options)

    from splora.checkpoints.checkpoint import load_for_evaluation
    from splora.console import StageProgress
    from splora.posttraining.core.compute import find_device, use_threads
    from splora.posttraining.core.precision import Precision
    from splora.quiet import quiet_libraries

    quiet_libraries()
    use_threads(options.threads)
    precision = Precision.parse(options.precision)
    name = checkpoint_name(options.model_name)
    model = load_for_evaluation(name, next(iter(sources))).to(find_device(options.device))
    perplexities: dict[str, float] = {}
    problems: list[str] = []
    with StageProgress() as progress:
        for task, source in sources.items():
            try:
                result = _measured(model, name, task, source, options, precision, progress.report)
            except InputError as error:
                problems += error.problems  # another text may be there all the same
                continue
            _record(result, options.model_name)
            perplexities[task] = result["perplexity"]
    if problems:
        raise InputError(dict.fromkeys(problems))
    return perplexities


def _sources(options: argparse.Namespace) -> dict[str, Any]:
    """By task, where its text is.

    Raises:
        InputError: all that is wrong with the options.
    """
    from splora.posttraining.core.compute import check_compute
    from splora.tasks.sources import canonical_task, data_sources

    problems: list[str] = []
    sources: dict[str, Any] = {}
    for given in options.task or (list(TEXT_TASKS) if options.data_dir is None else ["wikitext2"]):
        try:
            task = canonical_task(given)
            if task not in TEXT_TASKS:
                raise InputError(f"--task is {given!r}, which is no text; allowed are {', '.join(TEXT_TASKS)}.")
            sources[task] = data_sources(options.data_dir, task, need_train=False)[1]
        except InputError as error:
            problems += error.problems
    if options.max_seq_length is not None and options.max_seq_length < 2:
        problems.append(f"--max_seq_length is {options.max_seq_length}; it must be 2 or larger.")
    problems += problems_of(
        lambda: check_compute(
            device=options.device, precision=options.precision, threads=options.threads, seed=options.seed
        )
    )
    if problems:
        raise InputError(dict.fromkeys(problems))
    return sources


def _measured(
    model: nn.Module,
    name: str,
    task: str,
    source: str | None,
    options: argparse.Namespace,
    precision: Precision,
    report: Report,
) -> dict[str, Any]:
    """The content of `result.json`.

    Raises:
        InputError: the text cannot be read, or is shorter than a window.
    """
    from splora.posttraining.core.outcome import circumstances
    from splora.posttraining.core.text_evaluation import text_losses
    from splora.report.collect import EVALUATION
    from splora.tasks.language_modelling import TextDataModule

    begin = time.perf_counter()
    data = TextDataModule(name, source, source, options.max_seq_length, task=task, seed=options.seed)
    losses = text_losses(
        model, data, precision, lambda done, total: report(f"evaluate {task}", f"batch {done} of {total}", done / total)
    )
    metrics = data.evaluate({"losses": losses}).metrics
    return {
        "method": EVALUATION,
        "model": name,
        "task": task,
        "metric": data.primary_metric,
        **metrics,
        "windows": len(losses),
        "window_tokens": data.width,
        "seconds": round(time.perf_counter() - begin, 3),
        **circumstances(model, precision, options.seed),
        "settings": {"data": options.data_dir, "max_seq_length": options.max_seq_length},
    }


def _record(result: dict[str, Any], label: str) -> None:
    """Write the result in place of an earlier one, add the line of the summary, and print it.

    Raises:
        InputError: they cannot be written.
    """
    from splora.files import write_json
    from splora.posttraining.core.outcome import append_line
    from splora.posttraining.core.request import RESULT

    line = (
        f"eval seed={result['seed']}: perplexity {result['perplexity']:.2f} on {result['task']}, {result['windows']} "
        f"windows of {result['window_tokens']} tokens, {result['precision']}, {result['model']}"
    )
    print(line, flush=True)
    folder = evaluation_folder(label, result["task"])
    try:
        folder.mkdir(parents=True, exist_ok=True)
        write_json(folder / RESULT, result)
    except OSError as error:
        raise InputError(f"{folder}: cannot be written ({error.strerror or error}).") from error
    append_line(summary_path(label), line)


def make_parser() -> argparse.ArgumentParser:
    """The command's options."""
    parser = argparse.ArgumentParser(prog="opt_eval.py", description="Measure the perplexity of an OPT.")
    parser.add_argument(
        "--model_name", required=True, metavar="NAME", help="opt-125M, opt-1.3B, …, another hub name, or a folder"
    )
    parser.add_argument(
        "--task",
        nargs="+",
        metavar="TASK",
        help=f"{', '.join(TEXT_TASKS)} (default: all of them from the hub; wikitext2 where --data_dir is given)",
    )
    parser.add_argument("--data_dir", metavar="DIR", help="folder or file of the text (default: the hub)")
    parser.add_argument("--seed", type=int, default=0, help="recorded; nothing here is random (default: 0)")
    parser.add_argument(
        "--max_seq_length", type=int, metavar="N", help="tokens per window at most (default: the model's positions)"
    )
    add_options(parser, Request, COMPUTE)
    return parser


if __name__ == "__main__":
    main()
