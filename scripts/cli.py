"""The console commands `splora` and `lightning`: one table of all commands, from which help and dispatch come."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import NamedTuple

LIGHTNING = "splora.scripts.lightning_cli"


class Command(NamedTuple):
    """A command: the module whose `main` it is, and what it does in a line."""

    module: str
    does: str


#: Headings of the help, and the commands below them.
GROUPS: dict[str, dict[str, Command]] = {
    "train": {
        "run": Command("splora.scripts.run", "rows of the sheet: list, check, run, tell where they stand"),
        "fit": Command(LIGHTNING, "train and prune as a YAML configuration says"),
        "validate": Command(LIGHTNING, "score a finished run on its evaluation data"),
        "test": Command(LIGHTNING, "the same, on data that training never evaluated"),
    },
    "use": {
        "predict": Command("splora.scripts.predict", "answer questions or classify sentences that have no labels"),
        "evaluate": Command("splora.scripts.evaluate", "score a dense, pruned or quantized model on any task"),
    },
    "look at results": {
        "count": Command("splora.scripts.count", "remaining and learned weights of saved runs"),
        "plot": Command("splora.scripts.plot", "scores against density: a picture and a table"),
        "report": Command("splora.scripts.report", "one HTML file that shows all runs of a folder"),
    },
    "make smaller, and heal": {
        "prune": Command("splora.scripts.prune", "heads and neurons of a fine-tuned checkpoint, to a budget"),
        "quantize": Command("splora.scripts.quantize", "store weights in 2, 3, 4 or 8 bits"),
        "heal": Command("splora.scripts.heal", "train a pruned checkpoint towards the dense one"),
        "export": Command("splora.scripts.export", "a finished run, merged, and without what its masks emptied"),
        "generate_lut": Command("splora.scripts.generate_lut", "measure latency tables on this machine"),
    },
    "the same with the flags of published programs": {
        "prune_bert": Command("splora.scripts.prune_bert", "encoders by interpolative decompositions"),
        "prune_fisher": Command("splora.scripts.prune_fisher", "encoders by Fisher information"),
        "prune_opt": Command("splora.scripts.prune_opt", "language models by interpolative decompositions"),
        "quantize_opt": Command("splora.scripts.quantize_opt", "language models, pruned or not, in few bits"),
        "opt_eval": Command("splora.scripts.opt_eval", "perplexity of a language model"),
        "train_small_opt": Command("splora.scripts.train_small_opt", "a small OPT, in minutes"),
        "train_small_llama": Command("splora.scripts.train_small_llama", "a small Llama, in minutes"),
    },
}
COMMANDS: dict[str, Command] = {name: command for group in GROUPS.values() for name, command in group.items()}


def main(arguments: list[str] | None = None) -> None:
    """Run one command; what the user got wrong ends in one sentence and exit code 2."""
    import importlib

    from splora.errors import InputError, exit_on_input_error, nearest
    from splora.machine import wait_passively

    wait_passively()
    given = sys.argv[1:] if arguments is None else arguments
    first = given[0] if given else None
    with exit_on_input_error():
        if first in ("--help", "-h", "help"):
            print(help_text(_program()))
        elif first in ("--version", "-V"):
            from splora import __version__

            print(f"splora {__version__}")
        elif first is None:
            raise InputError(f"no command is given; there are {', '.join(COMMANDS)}; {_program()} --help says more.")
        elif first not in COMMANDS and not first.startswith("-"):
            close = nearest(first, COMMANDS) or "."
            raise InputError(f"{first!r} is no command; there are {', '.join(COMMANDS)}{close}")
        elif first not in COMMANDS or COMMANDS[first].module == LIGHTNING or _is_lightnings_predict(given):
            from splora.scripts.lightning_cli import run_cli

            run_cli(given)
        else:
            importlib.import_module(COMMANDS[first].module).main(given[1:])


def _is_lightnings_predict(given: list[str]) -> bool:
    """Whether `predict` means Lightning's: there are two of this name, and `lightning` has always been the other."""
    if given[0] != "predict":
        return False
    from splora.scripts.predict import is_for_lightning

    return _program() == "lightning" or is_for_lightning(given[1:])


def help_text(program: str) -> str:
    """All commands, a line each."""
    width = max(map(len, COMMANDS)) + 2
    lines = [
        f"usage: {program} COMMAND [OPTIONS]",
        "",
        f"Make transformers smaller and faster. `{program} COMMAND --help` tells the options of a command.",
    ]
    for heading, commands in GROUPS.items():
        lines += ["", f"{heading}:", *(f"  {name:<{width}}{command.does}" for name, command in commands.items())]
    return "\n".join(
        [*lines, "", "options:", f"  {'-h, --help':<{width}}this page", f"  {'--version':<{width}}the version"]
    )


def _program() -> str:
    """The name that the program was started by, where that is one of its own."""
    stem = Path(sys.argv[0]).stem
    return stem if stem in ("splora", "lightning") else "splora"


if __name__ == "__main__":
    main()
