"""Measures the latency tables of a model on this machine: `mha.json` and `ffn.json`.

python scripts/generate_lut.py --model_name bert-base-uncased --task_name squad --batch_size 32 --output_dir luts/
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

from splora.errors import InputError, exit_on_input_error, nearest
from splora.machine import wait_passively
from splora.option_help import add_choice
from splora.tasks.registry import REGISTRY
from splora.tasks.sources import TASKS, auto_model

PRECISIONS = ("fp32", "bf16")
#: Distance of a measurement from its fit, as a part of the whole block's latency, beyond which results are doubtful.
TOLERATED = 0.05


def main(arguments: list[str] | None = None) -> None:
    """Check the options, measure, write both files and tell what they hold."""
    wait_passively()
    options = make_parser().parse_args(arguments)
    with exit_on_input_error():
        _check(options)
        run(options)


def run(options: argparse.Namespace) -> None:
    """Measure and write.

    Raises:
        InputError: a model that cannot be measured, or a folder that cannot be written to.
    """
    model, length = load(options)

    from splora.posttraining.latency.fit import relative_error
    from splora.posttraining.latency.measure import measure

    name = options.ckpt_dir or options.model_name
    _tell(f"{name}: batches of {options.batch_size} sequences of {length} tokens, {options.repeats} rounds")
    mha, ffn = measure(
        model,
        options.batch_size,
        length,
        step=options.neuron_step,
        repeats=options.repeats,
        seed=options.seed,
        progress=lambda done, of: print(f"\rround {done} of {of}", end="\n" if done == of else "", file=sys.stderr),
    )
    for table in (mha, ffn):
        table.save(Path(options.output_dir) / f"{table.kind}.json")
    print(summary(mha, ffn))
    for table in (mha, ffn):
        if (missed := relative_error(table.fit(), table.sizes, table.costs)) > TOLERATED:
            _tell(
                f"warning: {table.kind}: measurements lie up to {missed:.0%} off their fit; "
                f"measure again on a quieter machine, or with more --repeats."
            )
    print(f"{Path(options.output_dir) / 'mha.json'} and {Path(options.output_dir) / 'ffn.json'}: written.")


def load(options: argparse.Namespace) -> tuple[Any, int]:
    """The model on the device to measure, with random weights (they take as long as any), and the tokens per sequence.

    Raises:
        InputError: no such model, an unsupported family, or more tokens than the model has positions.
    """
    import torch
    import transformers

    from splora import anatomy
    from splora.quiet import quiet_libraries
    from splora.tasks.hub import load_config
    from splora.tasks.model_inputs import check_length, positions

    quiet_libraries()
    config = load_config(options.ckpt_dir or options.model_name, alone=True)
    anatomy.family_of(config)
    if config.is_heterogeneous:
        raise InputError(
            f"{options.ckpt_dir or options.model_name}: its layers have different numbers of heads and neurons; "
            f"latency tables are made of a model before it is pruned."
        )
    length = options.seq_len or REGISTRY[options.task_name].length or 128
    most = positions(config) or length
    if options.seq_len is not None:
        check_length(options.ckpt_dir or options.model_name, config, length, "--seq_len:")
    if options.threads is not None:
        torch.set_num_threads(options.threads)
    torch.manual_seed(options.seed)
    kind = getattr(transformers, auto_model(options.task_name))
    model = kind.from_config(config, attn_implementation="sdpa")
    dtype = torch.bfloat16 if options.precision == "bf16" else torch.float32
    device = "cuda" if torch.cuda.is_available() else "cpu"
    return model.eval().to(device, dtype), min(length, most)


def summary(mha: Any, ffn: Any) -> str:
    """A small table of what was measured, and how well straight lines and sums describe it."""
    from splora.posttraining.latency.fit import relative_error
    from splora.posttraining.latency.table import stretch

    lines = [f"{'block':<12} {'units':>7} {'ms':>10}"]
    for table, name in ((mha, "attention"), (ffn, "feed-forward")):
        shown = sorted({0, 1, *(round(part * (len(table.sizes) - 1) / 4) for part in (1, 2, 3, 4))})
        lines += [f"{name:<12} {table.sizes[index]:>7,} {table.milliseconds[index]:>10.3f}" for index in shown]
    for table, name in ((mha, "attention"), (ffn, "feed-forward")):
        fitted, missed = table.fit(), relative_error(table.fit(), table.sizes, table.costs)
        lines.append(
            f"{name}: {fitted.constant:.4g} ms up to {fitted.threshold} units, {fitted.slope:.4g} ms per further unit; "
            f"no point is farther off than {missed:.1%} of the whole block."
        )
    lines.append(
        f"model: {mha.model_milliseconds:.4g} ms, of which {mha.overhead_milliseconds:.4g} ms "
        f"({mha.overhead_milliseconds / mha.model_milliseconds:.1%}) cannot be pruned; "
        f"blocks take {stretch(mha, ffn):.3f} times as long in it as by themselves."
    )
    return "\n".join(lines)


def make_parser() -> argparse.ArgumentParser:
    """The command's options."""
    parser = argparse.ArgumentParser(
        prog="generate_lut.py",
        description="Measure latency tables of a model's attention and feed-forward blocks on this machine.",
    )
    parser.add_argument("--model_name", metavar="NAME", help="published name or folder; its config.json is enough")
    parser.add_argument("--ckpt_dir", metavar="DIR", help="folder of a checkpoint; goes before --model_name")
    add_choice(parser, "--task_name", allowed=TASKS, required=True, metavar="TASK", help="what it is fine-tuned for")
    parser.add_argument("--batch_size", type=int, default=32, help="sequences per batch (default: 32)")
    parser.add_argument("--seq_len", type=int, help="tokens per sequence (default: 384 for SQuAD, 128 for GLUE)")
    parser.add_argument("--output_dir", default="luts", metavar="DIR", help="where both files go (default: luts)")
    add_choice(parser, "--precision", allowed=PRECISIONS, default="fp32", help="what the model computes in")
    parser.add_argument("--threads", type=int, help="processor threads (default: torch's choice)")
    parser.add_argument("--repeats", type=int, default=20, help="rounds whose median counts (default: 20)")
    parser.add_argument(
        "--neuron_step", type=int, help="distance of measured numbers of neurons (default: a 24th of all)"
    )
    parser.add_argument("--seed", type=int, default=0, help="of the order of measurements (default: 0)")
    return parser


def _check(options: argparse.Namespace) -> None:
    """All that can be found wrong before anything is loaded."""
    problems = []
    if options.model_name is None and options.ckpt_dir is None:
        problems.append("--model_name: is missing; give a published name or a folder, or --ckpt_dir.")
    for name, value, allowed in (("task_name", options.task_name, TASKS), ("precision", options.precision, PRECISIONS)):
        if value not in allowed:
            problems.append(f"--{name}: is {value!r}; allowed are {', '.join(allowed)}{nearest(value, allowed) or '.'}")
    for name in ("batch_size", "seq_len", "threads", "repeats", "neuron_step"):
        value = getattr(options, name)
        if value is not None and value < 1:
            problems.append(f"--{name}: is {value}; it must be 1 or larger.")
    if Path(options.output_dir).exists() and not Path(options.output_dir).is_dir():
        problems.append(f"--output_dir: {options.output_dir} is a file; give a folder.")
    if problems:
        raise InputError(problems)


def _tell(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


if __name__ == "__main__":
    main()
