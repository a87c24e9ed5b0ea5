"""STAT, as published and by default, and Fisher pruning at equal budgets: scores, divergence, and time.

    python benchmarks/stat.py --task sst2 --model ../shared/models/minilm-sst2 --data ../shared/data/sst2
    python benchmarks/stat.py --task squad --model ../shared/models/minilm-squad --data ../shared/data/squad \
        --max-seq-length 256 --doc-stride 96
    python benchmarks/stat.py --task wikitext2 --model output/small-opt --data ../shared/data/wikitext2 \
        --samples 128 --methods exact default

Every method draws the same samples; they take turns in one process. `exact` is `--exact-paper`; `interpolate` is the
default without its reconstruction, `candidates` with three measured splits of the budget between heads and neurons.
"""

from __future__ import annotations

import argparse
from functools import partial

from comparison import Draw, Method, add_options, compare, last_of
from fisher import fisher
from torch import nn

from splora.posttraining.stat import StatOptions, prune_stat


def main() -> None:
    """Compare, and print a table in Markdown."""
    methods: dict[str, Method] = {
        "exact": partial(stat, options=StatOptions(exact_paper=True)),
        "default": partial(stat, options=StatOptions()),
        "fisher": fisher,
        "interpolate": partial(stat, options=StatOptions(reconstruct=False)),
        "candidates": partial(stat, options=StatOptions(head_factors=(1.0, 0.5, 2.0))),
    }
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    add_options(parser, samples=512)
    parser.set_defaults(budgets=[0.7, 0.6, 0.5, 0.4, 0.3, 0.2], seeds=[0, 1, 2, 3, 4])
    parser.add_argument("--methods", nargs="+", choices=methods, default=["exact", "default", "fisher"])
    options = parser.parse_args()
    compare(options, {name: methods[name] for name in options.methods})


def stat(drawn: Draw, budget: float, options: StatOptions) -> tuple[nn.Module, float]:
    """Pruned by interpolative decompositions."""
    return last_of(
        prune_stat(
            drawn.model,
            drawn.calibration,
            drawn.costs,
            budget,
            options,
            first_token_only=drawn.first_token_only,
            precision=drawn.precision,
            seed=drawn.seed,
        )
    )


if __name__ == "__main__":
    main()
