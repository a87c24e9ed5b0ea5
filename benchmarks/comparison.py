"""Prunes one checkpoint by several methods at several budgets and seeds, and prints scores, divergences and seconds."""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from splora import anatomy
from splora.checkpoints.checkpoint import load_checkpoint
from splora.export.plan import Plan
from splora.posttraining.core.budget import Costs
from splora.posttraining.core.calibration import Calibration, draw
from splora.posttraining.core.evaluation import Predictions, divergence, predict
from splora.posttraining.core.precision import Precision
from splora.posttraining.core.stages import Stage
from splora.posttraining.stat.method import StatOptions, prune_stat
from splora.quiet import quiet_libraries
from splora.tasks.data_module import TaskDataModule
from splora.tasks.features import FeatureSet
from splora.tasks.registry import REGISTRY
from splora.tasks.sources import canonical_task, data_sources, make_data_module


@dataclass(frozen=True)
class Draw:
    """One seed's samples of a task, for a checkpoint.

    Attributes:
        whole: MACs of the dense model at the samples' average length.
        held: what a method keeps between budgets.
    """

    model: nn.Module
    data: TaskDataModule
    samples: int
    calibration: Calibration
    costs: Costs
    whole: int
    first_token_only: bool
    precision: Precision
    seed: int
    held: dict[str, Any] = field(default_factory=dict)


#: From samples and a budget to a smaller model and the seconds that it took.
Method = Callable[[Draw, float], tuple[nn.Module, float]]


def add_options(parser: argparse.ArgumentParser, samples: int) -> None:
    """What to compare on."""
    parser.add_argument("--task", default="sst2")
    parser.add_argument("--model", default="../shared/models/minilm-sst2")
    parser.add_argument("--data", default="../shared/data/sst2")
    parser.add_argument("--budgets", type=float, nargs="+", default=[0.7, 0.6, 0.5, 0.4])
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--samples", type=int, default=samples)
    parser.add_argument("--max-seq-length", type=int)
    parser.add_argument("--windows", type=int, help="to evaluate on, the first ones (default: all)")
    parser.add_argument("--doc-stride", type=int, default=128)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--log", help="file of measurements, one JSON line each, that are not made again")


def last_of(stages: Iterable[Stage]) -> tuple[nn.Module, float]:
    """The final model and the seconds of all stages."""
    found = list(stages)
    return found[-1].model, sum(stage.seconds for stage in found)


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


#: By method and budget, one measurement per seed: `metric`, `kl`, `seconds`, `elapsed`.
Measured = dict[tuple[str, float], list[dict[str, float]]]


def compare(options: argparse.Namespace, methods: Mapping[str, Method]) -> Measured:
    """Measure every cell, methods taking turns in one process, and print one line per method and budget."""
    torch.set_num_threads(options.threads)
    quiet_libraries()
    task = canonical_task(options.task)
    known = _known(options.log)
    rows: Measured = {}
    model = load_checkpoint(options.model, task)
    dense: Predictions | None = None
    for seed in options.seeds:
        drawn: Draw | None = None
        for budget in options.budgets:
            for name, method in methods.items():
                cell = cell_of(options, name, budget, seed)
                found = known.get(json.dumps(cell))
                if found is None:
                    drawn = drawn or _draw(model, task, options, seed)
                    if dense is None:
                        dense = predict(model, drawn.data, drawn.precision)
                        print(f"dense: {dense.metrics}", flush=True)
                    begin = time.perf_counter()
                    pruned, seconds = method(drawn, budget)
                    elapsed = time.perf_counter() - begin
                    scored = predict(pruned, drawn.data, drawn.precision, dense=model)
                    found = {
                        "metric": scored.metrics[drawn.data.primary_metric],
                        "kl": divergence(dense, scored),
                        "seconds": seconds,
                        "elapsed": elapsed,
                    }
                    if options.log:
                        with Path(options.log).open("a", encoding="utf-8") as file:
                            file.write(json.dumps({"cell": cell, "found": found}) + "\n")
                    told = " ".join(f"{key}={value:.4g}" for key, value in found.items())
                    print(f"{name} seed {seed} budget {budget}: {told}", flush=True)
                rows.setdefault((name, budget), []).append(found)
    _print(rows, list(methods), options.budgets)
    return rows


def cell_of(options: argparse.Namespace, method: str, budget: float, seed: int) -> dict[str, Any]:
    """What a logged measurement is of: another model, other data or windows are another cell."""
    named = ("samples", "model", "data", "max_seq_length", "doc_stride", "windows", "threads")
    given = {name: getattr(options, name) for name in named}
    return {"task": canonical_task(options.task), "method": method, "budget": budget, "seed": seed, **given}


def shorten(data: TaskDataModule, windows: int | None) -> None:
    """Evaluate the first windows only."""
    every = data.features("eval")
    columns = {name: column[:windows] for name, column in every.columns.items() if isinstance(column, np.ndarray)}
    data._features["eval"] = FeatureSet(columns, every.lengths[:windows])


def _print(rows: Measured, names: list[str], budgets: list[float]) -> None:
    """Means over seeds with standard deviations, and median seconds."""
    print("\n| MACs kept | " + " | ".join(f"{name}: score · KL · seconds" for name in names) + " |")
    print("|---|" + "---:|" * len(names))
    for budget in budgets:
        cells = []
        for name in names:
            found = rows[name, budget]
            scores, divergences = [row["metric"] for row in found], [row["kl"] for row in found]
            spread = f" ± {statistics.stdev(scores):.2f}" if len(scores) > 1 else ""
            seconds = statistics.median(row["seconds"] for row in found)
            cells.append(
                f"{statistics.fmean(scores):.2f}{spread} · {statistics.fmean(divergences):.4f} · {seconds:.1f}"
            )
        print(f"| {budget} | " + " | ".join(cells) + " |")


def _draw(model: nn.Module, task: str, options: argparse.Namespace, seed: int) -> Draw:
    data = make_data_module(
        task,
        options.model,
        *data_sources(options.data, task),
        seed=seed,
        max_train_examples=options.samples,
        max_seq_length=options.max_seq_length or REGISTRY[task].length,
        doc_stride=options.doc_stride,
    )
    if options.windows is not None:
        shorten(data, options.windows)
    calibration = draw(data, options.samples)
    costs = Costs.of(model, round(calibration.mean_tokens))
    return Draw(
        model,
        data,
        options.samples,
        calibration,
        costs,
        costs.of_plan(Plan.dense(model)),
        anatomy.reads_first_token(model),
        Precision.parse("auto"),
        seed,
    )


def _known(path: str | None) -> dict[str, dict[str, float]]:
    if path is None or not Path(path).exists():
        return {}
    lines = [json.loads(line) for line in Path(path).read_text(encoding="utf-8").splitlines()]
    return {json.dumps(line["cell"]): line["found"] for line in lines}
