"""Fisher pruning against the procedure of the published program: scores, divergence, and time.

    python benchmarks/fisher.py --task sst2 --model ../shared/models/minilm-sst2 --data ../shared/data/sst2
    python benchmarks/fisher.py --task squad --model ../shared/models/minilm-squad --data ../shared/data/squad \
        --samples 512 --max-seq-length 256 --doc-stride 96

For each seed both draw the same samples; the two take turns in one process. `published` is written anew from the paper
(benchmarks/published_fisher.py); its time is that of plain fp32 code and a stand-in for the original program's.
"""

from __future__ import annotations

import argparse
import time
from functools import partial

from comparison import Draw, Method, add_options, compare, last_of
from published_fisher import Published
from torch import Tensor, nn

from splora.export.plan import Plan
from splora.posttraining.core.budget import Costs
from splora.posttraining.core.calibration import draw
from splora.posttraining.fisher.method import FisherOptions, prune_fisher
from splora.posttraining.fisher.search import search_macs


def main() -> None:
    """Compare, and print a table in Markdown."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    add_options(parser, samples=2048)
    parser.add_argument("--teacher", default="dense")
    parser.add_argument("--labels", default="model")
    parser.add_argument("--bias", nargs="+", default=["auto"], metavar="auto|on|off", help="one column each")
    parser.add_argument("--without-published", action="store_true", help="splora's own columns only")
    options = parser.parse_args()
    methods: dict[str, Method] = {} if options.without_published else {"published": published}
    for bias in options.bias:
        name = "splora" if bias == "auto" else f"bias {bias}"
        methods[name] = partial(fisher, labels=options.labels, teacher=options.teacher, bias=bias)
    compare(options, methods)


def fisher(
    drawn: Draw, budget: float, labels: str = "model", teacher: str = "dense", bias: str = "auto"
) -> tuple[nn.Module, float]:
    """This program's own."""
    return last_of(
        prune_fisher(
            drawn.model,
            drawn.calibration,
            partial(within, drawn.costs, drawn.whole),
            budget,
            FisherOptions(labels=labels, teacher=teacher, bias_correction=bias),  # type: ignore[arg-type]
            first_token_only=drawn.first_token_only,
            precision=drawn.precision,
            seed=drawn.seed,
        )
    )


def published(drawn: Draw, budget: float) -> tuple[nn.Module, float]:
    """The published procedure; its gradients are computed once for all budgets, and counted in each."""
    begin = time.perf_counter()
    if "published" not in drawn.held:
        drawn.held["published"] = Published(drawn.model, draw(drawn.data, drawn.samples, 32), drawn.costs)
        drawn.held["gradients"] = time.perf_counter() - begin
        begin = time.perf_counter()
    model = drawn.held["published"].prune(budget, drawn.first_token_only)
    return model, drawn.held["gradients"] + time.perf_counter() - begin


def within(costs: Costs, whole: int, heads: list[Tensor], neurons: list[Tensor], fraction: float) -> Plan:
    """The plan of a MAC budget."""
    return search_macs(heads, neurons, costs, fraction * whole)


if __name__ == "__main__":
    main()
