"""STAT, as published and by default, and Fisher pruning at equal budgets: scores, divergence, and time.

    python benchmarks/stat.py --task sst2 --model ../shared/models/minilm-sst2 --data ../shared/data/sst2
    python benchmarks/stat.py --task squad --model ../shared/models/minilm-squad --data ../shared/data/squad \
        --max-seq-length 256 --doc-stride 96
    python benchmarks/stat.py --task wikitext2 --model output/small-opt --data ../shared/data/wikitext2 \
        --samples 128 --methods exact default

Every method draws the same samples; they take turns in one process. `exact` is `--exact-paper`; `published` the same
method by the published program's factorizations (benchmarks/published_stat.py): predictions should be the same, but its
seconds are fewer than that program's, which goes through the layers more often. `interpolate` is the default without
its reconstruction, `no-bias` without biases in its combinations, `no-sensitivities` with errors as they are, not by
what they do to the predictions, `candidates` with three measured splits between heads and neurons.
Ends with the ratios that have a target.
"""

from __future__ import annotations

import argparse
import statistics
import time
from functools import partial

from comparison import Draw, Measured, Method, add_options, compare, stat
from fisher import fisher
from published_stat import prune_plainly
from torch import nn

from splora.posttraining.core.layer_grams import arguments_of
from splora.posttraining.stat.method import StatOptions

#: Methods with targets: what part of the published program's seconds they may take.
RATIOS = {"exact": 15, "default": 10}
#: Divergence of the default against that of the plain method, at small budgets.
LARGEST_RATIO, LARGEST_BUDGET = 0.8, 0.4
#: Seconds of the published program at this budget, with so many samples and threads.
PUBLISHED_SECONDS, PUBLISHED_BUDGET, PUBLISHED_WITH = {"sst2": 34, "squad": 510}, 0.5, (512, 2)


def main() -> None:
    """Compare, and print a table in Markdown."""
    methods: dict[str, Method] = {
        "exact": partial(stat, options=StatOptions(exact_paper=True)),
        "default": partial(stat, options=StatOptions()),
        "fisher": fisher,
        "published": published,
        "interpolate": partial(stat, options=StatOptions(reconstruct=False)),
        "no-bias": partial(stat, options=StatOptions(bias=False)),
        "no-sensitivities": partial(stat, options=StatOptions(sensitivities=False)),
        "candidates": partial(stat, options=StatOptions(head_factors=(1.0, 0.5, 2.0))),
    }
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    add_options(parser, samples=512)
    parser.set_defaults(budgets=[0.7, 0.6, 0.5, 0.4, 0.3, 0.2], seeds=[0, 1, 2, 3, 4])
    parser.add_argument("--methods", nargs="+", choices=methods, default=["exact", "default", "fisher"])
    options = parser.parse_args()
    print_ratios(compare(options, {name: methods[name] for name in options.methods}), options)


def print_ratios(measured: Measured, options: argparse.Namespace) -> None:
    """Divergence of the default against the plain method, and seconds against those of the published program."""
    for budget in options.budgets:
        if ("exact", budget) in measured and ("default", budget) in measured:
            exact, default = (statistics.fmean(row["kl"] for row in measured[name, budget]) for name in RATIOS)
            goal = f" (target {LARGEST_RATIO})" if budget <= LARGEST_BUDGET else ""
            print(f"KL, default against exact, {budget} of the MACs: {default / exact:.2f} ×{goal}")
    told = PUBLISHED_SECONDS.get(options.task)
    if told is not None and (options.samples, options.threads) == PUBLISHED_WITH:
        for name, part in RATIOS.items():
            if rows := measured.get((name, PUBLISHED_BUDGET)):
                seconds = statistics.median(row["seconds"] for row in rows)
                print(f"{name}: {seconds:.1f} s, 1/{told / seconds:.1f} of {told} s (target 1/{part})")


def published(drawn: Draw, budget: float) -> tuple[nn.Module, float]:
    """The published method by its own factorizations."""
    begin = time.perf_counter()
    batches = arguments_of(list(drawn.calibration))
    pruned = prune_plainly(drawn.model, batches, drawn.costs, budget * drawn.whole)
    return pruned, time.perf_counter() - begin


if __name__ == "__main__":
    main()
