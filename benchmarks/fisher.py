"""Fisher pruning against the procedure of the published program: scores, divergence, and time.

    python benchmarks/fisher.py --task sst2 --model ../shared/models/minilm-sst2 --data ../shared/data/sst2
    python benchmarks/fisher.py --task squad --model ../shared/models/minilm-squad --data ../shared/data/squad \
        --samples 512 --max-seq-length 256 --doc-stride 96

For each seed both draw the same samples; the two take turns in one process. `published` is written anew from the paper
(benchmarks/published_fisher.py); its time is that of plain fp32 code and a stand-in for the original program's. Prints
one line per budget: the mean over seeds of the task's metric and of KL(dense ‖ pruned) on the evaluation data, and
median seconds of pruning (gradients included).
"""

from __future__ import annotations

import argparse
import statistics
import time
from functools import partial
from typing import Any

import torch
from published_fisher import Published
from torch import Tensor

from splora.posttraining.budget import Costs
from splora.posttraining.calibration import draw
from splora.posttraining.checkpoint import load_checkpoint
from splora.posttraining.evaluation import divergence, predict
from splora.posttraining.fisher import FisherOptions, prune_fisher
from splora.posttraining.plan import Plan
from splora.posttraining.precision import Precision
from splora.posttraining.search import search_macs
from splora.quiet import quiet_libraries
from splora.tasks.sources import QA_TASKS, canonical_task, data_sources, make_data_module


def main() -> None:
    """Compare, and print a table in Markdown."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--task", default="sst2")
    parser.add_argument("--model", default="../shared/models/minilm-sst2")
    parser.add_argument("--data", default="../shared/data/sst2")
    parser.add_argument("--budgets", type=float, nargs="+", default=[0.7, 0.6, 0.5, 0.4])
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--samples", type=int, default=2048)
    parser.add_argument("--max-seq-length", type=int)
    parser.add_argument("--doc-stride", type=int, default=128)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--teacher", default="dense")
    parser.add_argument("--labels", default="model")
    parser.add_argument("--without-published", action="store_true", help="splora's own columns only")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    quiet_libraries()
    compare(options)


def compare(options: argparse.Namespace) -> None:
    """Prune to every budget from every seed, both ways."""
    task = canonical_task(options.task)
    questions = task in QA_TASKS
    settings: dict[str, Any] = {"max_seq_length": options.max_seq_length or (384 if questions else 128)}
    if questions:
        settings["doc_stride"] = options.doc_stride
    model = load_checkpoint(options.model, task)
    precision = Precision.parse("auto")
    found: dict[float, list[dict[str, float]]] = {budget: [] for budget in options.budgets}
    dense = None
    for seed in options.seeds:
        data = make_data_module(
            task,
            options.model,
            *data_sources(options.data, task),
            seed=seed,
            max_train_examples=options.samples,
            **settings,
        )
        if dense is None:
            dense = predict(model, data, precision)
            print(f"dense: {dense.metrics}", flush=True)
        metric = data.primary_metric
        calibration, batches = draw(data, options.samples), draw(data, options.samples, 32)
        costs = Costs.of(model, round(calibration.mean_tokens))
        whole = costs.of_plan(Plan.dense(model))
        begin = time.perf_counter()
        published = None if options.without_published else Published(model, batches, costs)
        shared = time.perf_counter() - begin
        for budget in options.budgets:
            begin = time.perf_counter()
            theirs = published.prune(budget, not questions) if published is not None else model
            their_seconds = shared + time.perf_counter() - begin
            stages = prune_fisher(
                model,
                calibration,
                partial(within, costs, whole),
                budget,
                FisherOptions(labels=options.labels, teacher=options.teacher, seed=seed),
                first_token_only=not questions,
                precision=precision,
            )
            last = list(stages)
            ours, our_seconds = last[-1].model, sum(stage.seconds for stage in last)
            scored = {name: predict(network, data, precision) for name, network in (("our", ours), ("their", theirs))}
            row = {
                **{f"{name}_metric": value.metrics[metric] for name, value in scored.items()},
                **{f"{name}_kl": divergence(dense, value) for name, value in scored.items()},
                "our_seconds": our_seconds,
                "their_seconds": their_seconds,
            }
            found[budget].append(row)
            print(f"seed {seed} budget {budget}: " + " ".join(f"{k}={v:.4g}" for k, v in row.items()), flush=True)
    print(f"\n| MACs kept | published {metric} | splora {metric} | published KL | splora KL | seconds | times faster |")
    print("|---|---:|---:|---:|---:|---:|---:|")
    for budget, rows in found.items():
        mean = {name: statistics.fmean(row[name] for row in rows) for name in rows[0]}
        seconds = {name: statistics.median(row[f"{name}_seconds"] for row in rows) for name in ("our", "their")}
        print(
            f"| {budget} | {mean['their_metric']:.2f} | {mean['our_metric']:.2f} | {mean['their_kl']:.4f} | "
            f"{mean['our_kl']:.4f} | {seconds['their']:.1f} → {seconds['our']:.1f} | "
            f"{seconds['their'] / seconds['our']:.1f} × |"
        )


def within(costs: Costs, whole: int, heads: list[Tensor], neurons: list[Tensor], fraction: float) -> Plan:
    """The plan of a MAC budget."""
    return search_macs(heads, neurons, costs, fraction * whole)


if __name__ == "__main__":
    main()
