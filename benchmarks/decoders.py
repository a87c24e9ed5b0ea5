"""Small decoders: pruning by default, as published, and slicing by rotations, at equal MACs; perplexity · KL.

    python benchmarks/decoders.py --models output/small-opt output/small-llama --data ../shared/data/wikitext2 \
        --write docs/decoders.md

`slicegpt` counts the products of its residual connections, `slicegpt-free` does not (benchmarks/slicegpt.py). All draw
the same windows to calibrate and are evaluated alike. Ends with whether the default is best in every cell, by
perplexity and by divergence, and writes the table between the marks of the page.
"""

from __future__ import annotations

import argparse
import re
import statistics
from functools import partial
from pathlib import Path

from comparison import Measured, Method, add_options, compare, stat
from slicegpt import slice_model

from splora.posttraining.stat.method import StatOptions

METHODS: dict[str, tuple[str, Method]] = {
    "default": ("default", partial(stat, options=StatOptions())),
    "exact": ("`--exact-paper`", partial(stat, options=StatOptions(exact_paper=True))),
    "slicegpt": ("SliceGPT-style", slice_model),
    "slicegpt-free": ("the same, residual products not counted", partial(slice_model, residuals=False)),
}
BEGIN, END = "<!-- written by benchmarks/decoders.py -->", "<!-- end -->"


def main() -> None:
    """Measure, print and, where asked to, write."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    add_options(parser, samples=128)
    parser.set_defaults(task="wikitext2", data="../shared/data/wikitext2", budgets=[0.7, 0.5, 0.3], seeds=[0])
    parser.add_argument("--models", nargs="+", default=["output/small-opt", "output/small-llama"])
    parser.add_argument("--methods", nargs="+", choices=METHODS, default=list(METHODS))
    parser.add_argument("--write", type=Path, help="page whose table is written")
    options = parser.parse_args()
    methods = {name: METHODS[name][1] for name in options.methods}
    lines = [
        "| model | MACs kept | " + " | ".join(METHODS[name][0] for name in methods) + " |",
        "|---|---|" + "---:|" * len(methods),
    ]
    lost = []
    for model in options.models:
        options.model = model
        measured = compare(options, methods)
        for budget in options.budgets:
            scores = scores_of(measured, budget)
            best = {min(scores, key=lambda name: scores[name][kind]) for kind in (0, 1)}
            cells = [f"{score:.2f} · {kl:.2g}" for score, kl in scores.values()]
            lines.append(f"| {Path(model).name} | {budget} | " + " | ".join(cells) + " |")
            lost += [f"{Path(model).name} at {budget}: {name}" for name in sorted(best - {"default"})]
    print("\n".join(["", *lines]))
    print("the default is best in every cell" if not lost else f"the default is not best: {', '.join(lost)}")
    if options.write:
        write_table(options.write, "\n".join(lines))


def scores_of(measured: Measured, budget: float) -> dict[str, tuple[float, float]]:
    """By method, means over seeds: perplexity, and divergence from the dense model in nats per token."""
    return {
        name: (statistics.fmean(row["metric"] for row in rows), statistics.fmean(row["kl"] for row in rows))
        for (name, at), rows in measured.items()
        if at == budget
    }


def write_table(page: Path, table: str) -> None:
    """Put a table between the marks of a page."""
    text = page.read_text(encoding="utf-8")
    place = re.compile(f"{re.escape(BEGIN)}.*?{re.escape(END)}", re.S)
    page.write_text(place.sub(lambda _: f"{BEGIN}\n\n{table}\n\n{END}", text), encoding="utf-8")


if __name__ == "__main__":
    main()
