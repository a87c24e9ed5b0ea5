"""`splora export RUN`: a finished run as the model that is served, merged and without what its masks emptied."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from splora.interruption import ending_tidily


def make_parser() -> argparse.ArgumentParser:
    """The command's options."""
    parser = argparse.ArgumentParser(
        prog="splora export",
        description="Write a finished run as the model that is served: merged, without what its masks emptied.",
    )
    parser.add_argument("run", metavar="RUN", type=Path, help="folder of a finished run, e.g. runs/SQuAD/70")
    parser.add_argument("--output", required=True, type=Path, metavar="DIR", help="folder of the model")
    parser.add_argument("--force", action="store_true", help="replace another model in the output folder")
    return parser


def main(arguments: list[str]) -> None:
    """Export one run and tell what was cut."""
    options = make_parser().parse_args(arguments)
    from splora.quiet import quiet_libraries

    with ending_tidily():
        quiet_libraries()
        from splora.training.export_run import export

        result = export(options.run, options.output, force=options.force)
    print("\n".join(lines(result, options.output)))


def lines(result: dict[str, Any], output: Path) -> list[str]:
    """What was cut, what stays as zeros, what it costs, and how far its logits are from the merged model's."""
    latency, parameters = result["latency_ms"], result["parameters"]
    shape = f"{latency['batch_size']} × {latency['tokens']} tokens, {latency['threads']} threads"
    return [
        f"heads by layer: {', '.join(map(str, result['heads_kept']))}",
        f"neurons by layer: {', '.join(map(str, result['neurons_kept']))}",
        f"zeros in what stays: {result['zeros_percent']:.2f} % of its encoder weights, which cost time all the same",
        f"MACs kept {result['macs_kept']:.3f}, {parameters['kept']:,} of {parameters['dense']:,} parameters, latency "
        f"{latency['pruned']:.1f} of {latency['dense']:.1f} ms ({shape}), largest difference of logits "
        f"{result['largest_difference']:.1e}, {output}",
    ]


if __name__ == "__main__":
    from splora.errors import as_program

    as_program(main)
