"""What the scripts that train a small decoder have in common: options, checks, evaluation, result."""

from __future__ import annotations

import argparse
import time
from dataclasses import fields
from pathlib import Path
from typing import Any

from splora.errors import InputError, exit_on_input_error, problems_of
from splora.files import expanded
from splora.machine import wait_passively
from splora.option_help import add_choice, wrong_choices
from splora.run_files import RESULT
from splora.tasks.text_sources import TEXT_TASKS

#: Whole numbers and fractions that can be set, with what they are.
SIZES = {
    "vocabulary": "tokens of the vocabulary at most",
    "positions": "tokens per window",
    "layers": "transformer layers",
    "hidden": "width",
    "heads": "heads per layer",
    "neurons": "neurons per layer",
    "steps": "optimizer steps",
    "batch_size": "windows per step",
    "seed": "of weights, dropout and windows",
}
#: Those that only one family has.
OF_FAMILY = {"llama": {"key_value_heads": "heads of key and value per layer, which the heads share"}}
NAMES = {"opt": "OPT", "llama": "Llama"}
RATES = {"learning_rate": "highest rate", "weight_decay": "of AdamW", "dropout": "of the hidden states"}


def main(family: str, arguments: list[str] | None = None) -> None:
    """Train, evaluate and save."""
    wait_passively()
    options = make_parser(family).parse_args(arguments)
    with exit_on_input_error():
        run(family, options)


def run(family: str, options: argparse.Namespace) -> None:
    """Train one model of a family in `SMALL`.

    Raises:
        InputError: sizes that do not fit, no text, or a folder that is in use.
    """
    from splora.posttraining.core.compute import check_compute, use_threads
    from splora.training.small_decoder import SMALL, train_small_decoder

    output = expanded(options.output_dir).resolve()
    known = [field.name for field in fields(SMALL[family])]
    settings = SMALL[family](**{name: getattr(options, name) for name in known if getattr(options, name) is not None})
    problems = problems_of(
        lambda: _check_output(options.output_dir, output),
        lambda: check_compute(threads=options.threads, seed=options.seed),
        settings.check,
    )
    problems += wrong_choices(options, {"task": TEXT_TASKS})
    if problems:
        raise InputError(problems)

    import torch

    from splora.files import replacing_folder, write_json
    from splora.machine import versions
    from splora.posttraining.core.evaluation import predict
    from splora.quiet import quiet_libraries
    from splora.tasks.language_modelling import TextDataModule

    quiet_libraries()
    use_threads(options.threads)
    source = options.data_dir or "embedded"
    begin = time.perf_counter()
    with replacing_folder(output) as beside:
        model = train_small_decoder(settings, source, beside, options.task, accelerator="cpu")
        seconds = time.perf_counter() - begin
        data = TextDataModule(str(beside), source, source, task=options.task)
        perplexity = predict(model, data).metrics["perplexity"]
        result: dict[str, Any] = {
            "task": options.task,
            "data": source,
            "perplexity": perplexity,
            "windows": len(data.features("eval")),
            "tokens_per_window": data.width,
            "parameters": sum(parameter.numel() for parameter in model.parameters()),
            "seconds": round(seconds, 1),
            "threads": torch.get_num_threads(),
            "settings": {field.name: getattr(settings, field.name) for field in fields(settings)},
            "versions": versions(),
        }
        write_json(beside / RESULT, result)
    print(f"{options.output_dir}: perplexity {perplexity:.2f} on {options.task}, {seconds:.0f} s of training.")


def _check_output(given: str, output: Path) -> None:
    if output.exists() and (not output.is_dir() or any(output.iterdir())):
        raise InputError(f"--output_dir: {given} is not empty; give a new or empty folder.")


def make_parser(family: str) -> argparse.ArgumentParser:
    """The options of a family's command."""
    parser = argparse.ArgumentParser(
        prog=f"train_small_{family}.py",
        description=f"Train a small {NAMES[family]} and its tokenizer on a text, in minutes.",
    )
    parser.add_argument(
        "--output_dir", required=True, metavar="DIR", help="where the model goes; a new or empty folder"
    )
    parser.add_argument("--data_dir", metavar="DIR", help="folder or file of text (default: the embedded corpus)")
    add_choice(parser, "--task", allowed=TEXT_TASKS, default="wikitext2", help="how text is read")
    for name, text in (SIZES | OF_FAMILY.get(family, {})).items():
        parser.add_argument(f"--{name}", type=int, help=text)
    for name, text in RATES.items():
        parser.add_argument(f"--{name}", type=float, help=text)
    parser.add_argument("--threads", type=int, help="processor threads (default: torch's choice)")
    return parser
