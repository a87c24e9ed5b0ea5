"""Latencies of cut models: what a MAC budget of 0.5 gains, and whether a latency budget of 0.6 is kept.

    python benchmarks/latency_budget.py [--task sst2] [--model …] [--data …] [--tokens 128] [--threads 2]

Tables of attention and feed-forward blocks are measured first; the plans come from Fisher information of 256 samples.
Dense and cut models then take turns on the same batch without padding, and medians are compared.
"""

from __future__ import annotations

import argparse

import torch

from splora.checkpoints.checkpoint import load_checkpoint
from splora.export.cut import cut
from splora.export.plan import Plan
from splora.posttraining.core.budget import Costs
from splora.posttraining.core.calibration import draw
from splora.posttraining.core.precision import Precision
from splora.posttraining.fisher.gradients import mask_gradients
from splora.posttraining.fisher.search import search_macs
from splora.posttraining.latency.budget import LatencyBudget
from splora.posttraining.latency.fit import relative_error
from splora.posttraining.latency.measure import clock, measure, median_times, model_call
from splora.quiet import quiet_libraries
from splora.tasks.registry import REGISTRY
from splora.tasks.sources import canonical_task, data_sources, make_data_module

MACS, LATENCY = 0.5, 0.6


def main() -> None:
    """Measure, and print ratios against their targets."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--task", default="sst2")
    parser.add_argument("--model", default="../shared/models/minilm-sst2")
    parser.add_argument("--data", default="../shared/data/sst2")
    parser.add_argument("--batch-size", type=int, default=32)
    parser.add_argument("--tokens", type=int, default=128)
    parser.add_argument("--repeats", type=int, default=20)
    parser.add_argument("--threads", type=int, default=2)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    quiet_libraries()
    task = canonical_task(options.task)
    data = make_data_module(
        task,
        options.model,
        *data_sources(options.data, task),
        max_train_examples=256,
        max_seq_length=256 if "doc_stride" in REGISTRY[task].takes else 128,
    )
    model = load_checkpoint(options.model, task)
    gradients = mask_gradients(model, draw(data, 256), precision=Precision.parse("auto"), labels="model")
    heads, neurons = ([rows.importance() for rows in part] for part in (gradients.heads, gradients.neurons))

    tables = LatencyBudget(*measure(model, options.batch_size, options.tokens, repeats=options.repeats))
    for table in (tables.mha, tables.ffn):
        print(f"{table.kind}: the fit misses by {relative_error(table.fit(), table.sizes, table.costs):.1%} at most")
    costs = Costs.of(model, options.tokens)
    plans = {
        "macs": search_macs(heads, neurons, costs, MACS * costs.of_plan(Plan.dense(model))),
        "latency": tables.search(heads, neurons, LATENCY),
    }
    with torch.inference_mode():
        calls = {
            name: model_call(network, options.batch_size, options.tokens, 0)
            for name, network in (("dense", model), *((name, cut(model, plan)) for name, plan in plans.items()))
        }
        times = median_times(calls, 2 * options.repeats, 2, 0, clock(torch.device("cpu")))
    for name, milliseconds in times.items():
        print(f"{name}: {milliseconds:.1f} ms")
    print(
        f"MAC budget {MACS}: {times['dense'] / times['macs']:.2f} times as fast (target 1.7; MACs allow {1 / MACS:.1f})"
    )
    reached = times["latency"] / times["dense"]
    print(
        f"latency budget {LATENCY}: {reached:.3f} of the dense one, {reached / LATENCY - 1:+.1%} (target: within 5 %)"
    )


if __name__ == "__main__":
    main()
