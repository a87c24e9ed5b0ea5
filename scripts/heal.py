"""`splora heal MODEL`: train a pruned checkpoint towards the dense one that it was made from."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

from splora.console import shown_progress
from splora.interruption import ending_tidily
from splora.option_file import add_config, parse
from splora.option_help import add_choice, spellings
from splora.posttraining.command import add_data, add_output
from splora.posttraining.core.options import add_options
from splora.posttraining.core.request import Request
from splora.tasks.sources import TASKS
from splora.training.specification import ADAPTERS

if TYPE_CHECKING:
    from splora.training.heal_request import HealRequest


def make_parser() -> argparse.ArgumentParser:
    """The command's options."""
    parser = argparse.ArgumentParser(
        prog="splora heal", description="Train a pruned checkpoint towards the dense one that it was made from."
    )
    parser.add_argument("model", metavar="MODEL", help="folder of a pruned checkpoint, of splora prune, heal or export")
    add_choice(parser, "--task", allowed=TASKS, required=True, metavar="TASK", help="what it is fine-tuned for")
    add_data(parser)
    add_options(parser, Request, ["labelled"])
    parser.add_argument("--teacher", metavar="PATH", help="the dense model (default: the one MODEL was made from)")
    add_output(parser)
    add_config(parser)
    parser.add_argument("--seed", type=int, default=0, help="of the order of examples and of new weights (default: 0)")
    parser.add_argument("--epochs", type=float, default=1.0, metavar="N", help="passes over the training data")
    add_healing(parser)
    add_options(parser, Request, ["max_seq_length", "doc_stride", "device"])
    parser.add_argument("--force", action="store_true", help="replace another result, and start its training anew")
    return parser


def add_healing(parser: argparse._ActionsContainer) -> None:
    """How much, and with what, is healed."""
    add_choice(
        parser,
        "--adapter",
        allowed=ADAPTERS,
        default="splopa",
        help="what trains beside biases, norms and head; none: all weights",
    )
    parser.add_argument(*spellings("--max_steps"), type=int, metavar="N", help="optimizer steps, instead of epochs")
    parser.add_argument(
        "--set", action="append", default=[], dest="columns", metavar="KEY=VALUE", help="any column of the sheet"
    )


def main(arguments: list[str]) -> None:
    """Heal one checkpoint."""
    options = parse(make_parser(), arguments)
    from splora.tasks.sources import canonical_task

    with ending_tidily():
        task = canonical_task(options.task)
        usual = Path("output") / Path(options.model).name / task / f"heal-seed-{options.seed}"
        output = Path(options.output_dir or usual)
        request = request_of(options, options.model, options.teacher, options.epochs, task, output)
        request.check()
        carry_out(request)


def request_of(
    options: argparse.Namespace, model: str, teacher: str | None, epochs: float, task: str, output: Path
) -> HealRequest:
    """The request that options make, whose names are the same where healing follows a pruning.

    Args:
        model: what is healed.
        teacher: the dense model; None: what the folder says.
        epochs: passes over the training data.
        task: by the program's own name.
        output: folder of the result.

    Raises:
        InputError: columns that are none, or hold what they may not.
    """
    from splora.hparams.overrides import parse
    from splora.posttraining.core.budget import Budget
    from splora.training.heal_request import METHOD, HealRequest

    return HealRequest(
        method=METHOD,
        model=model,
        task=task,
        data=options.data_dir,
        budget=Budget("mac", 1.0),
        output=output,
        seed=options.seed,
        max_seq_length=options.max_seq_length,
        doc_stride=options.doc_stride,
        labelled=not options.no_labels,
        device=options.device,
        force=options.force,
        options={
            "teacher": teacher,
            "adapter": options.adapter,
            "epochs": epochs,
            "max_steps": options.max_steps,
            "set": parse(options.columns, {}, None).values,
        },
    )


def carry_out(request: HealRequest) -> None:
    """Heal with progress on the terminal, and print what came of it."""
    with shown_progress() as report:
        from splora.training.heal_pipeline import heal

        result = heal(request, report)
    print(summary_line(result, request.output))


def summary_line(result: dict[str, Any], output: Path) -> str:
    """What healing cost and gave, in a line."""
    latency, sizes, stages = result["latency_ms"], result["bytes"], result["stages"]
    kept = "" if result["is_healed"] else "; nothing beat the unhealed model on what was held out, so it stays"
    return (
        f"heal {result['adapter']} seed={result['seed']} steps={result['steps']}: {result['metric']} "
        f"{result['pruned']:.2f} (dense {result['dense']:.2f}; pruned {stages['pruned']:.2f}{kept}), "
        f"MACs kept {result['macs_kept']:.3f}, {sizes['pruned'] / 2**20:.2f} of {sizes['dense'] / 2**20:.2f} MiB, "
        f"latency {latency['pruned']:.1f} of {latency['dense']:.1f} ms, {result['seconds']:.1f} s, {output}"
    )


if __name__ == "__main__":
    from splora.errors import as_program

    as_program(main)
