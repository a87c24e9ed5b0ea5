"""The console commands `lightning` and `splora`: fit and the like from YAML; count, plot, prune, quantize, report."""

from __future__ import annotations

import sys

#: Commands of this project besides LightningCLI's own.
COMMANDS = {
    "count": "splora.scripts.count",
    "plot": "splora.scripts.plot",
    "prune": "splora.scripts.prune",
    "quantize": "splora.scripts.quantize",
    "report": "splora.scripts.report",
}


def main(arguments: list[str] | None = None) -> None:
    """Run one command; what the user got wrong ends in one sentence and exit code 2."""
    import importlib

    from splora.errors import exit_on_input_error
    from splora.machine import wait_passively

    wait_passively()
    given = sys.argv[1:] if arguments is None else arguments
    with exit_on_input_error():
        if given and given[0] in COMMANDS:
            importlib.import_module(COMMANDS[given[0]]).main(given[1:])
            return
        if given in (["--version"], ["-V"]):
            from splora import __version__

            print(f"splora {__version__}")
            return
        from splora.scripts.lightning_cli import run_cli

        run_cli(given)


if __name__ == "__main__":
    main()
