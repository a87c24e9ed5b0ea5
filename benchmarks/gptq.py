"""GPTQ against rounding to nearest: perplexity of a language model; and against a loop over columns: seconds.

    python benchmarks/gptq.py [--model DIR] [--data DIR] [--task wikitext2] [--groups -1,64] [--seeds 3] [--threads 2]

Perplexities are means over calibration seeds; `removed` is the share of the loss by rounding that GPTQ takes away.
Without --model only the time is measured, against the rule of the paper as it stands, one input after the other, whose
error goes to all later inputs at once, on the same Cholesky factor: on the weights as they are stored (out × in), and,
a fairer opponent, on their transpose, as GPTQ here works. Medians over rounds, by turns, on the same weights.
"""

from __future__ import annotations

import argparse
import statistics
import time
from pathlib import Path

import torch
from comparison import shorten
from torch import Tensor

from splora.posttraining.core.budget import Budget
from splora.posttraining.core.evaluation import predict
from splora.posttraining.core.layer_grams import arguments_of
from splora.posttraining.core.stages import silent
from splora.posttraining.pipeline import prepare
from splora.posttraining.quantize.gptq import Factor, Hessian, factorize, gptq
from splora.posttraining.quantize.grid import GridOptions, fit_grid, to_codes
from splora.posttraining.quantize.model import quantize_model, sharing_copy
from splora.posttraining.quantize.options import QuantizeOptions
from splora.posttraining.quantize.request import QuantizeRequest
from splora.quiet import quiet_libraries

REMOVED, FASTER = 0.6, 5


def column_by_column(weight: Tensor, factor: Factor, options: GridOptions) -> Tensor:
    """One input after the other, every error carried to all later inputs at once; the rounded weights, (out, in)."""
    weight = weight.clone()
    found = torch.empty_like(weight)
    width = options.width(weight.shape[1])
    for column in range(weight.shape[1]):
        if column % width == 0:
            step, zero = fit_grid(weight[:, column : column + width].T, options)
        found[:, column] = (to_codes(weight[:, column], step, zero, options) - zero) * step
        error = (weight[:, column] - found[:, column]) / factor.upper[column, column]
        weight[:, column:] -= torch.outer(error, factor.upper[column, column:])
    return found


def transposed(weight: Tensor, factor: Factor, options: GridOptions) -> Tensor:
    """The same on (in, out), where an input's weights are neighbours."""
    columns = weight.T.contiguous()
    found = torch.empty_like(columns)
    width = options.width(len(columns))
    for column in range(len(columns)):
        if column % width == 0:
            step, zero = fit_grid(columns[column : column + width], options)
        found[column] = (to_codes(columns[column], step, zero, options) - zero) * step
        error = (columns[column] - found[column]) / factor.upper[column, column]
        columns[column:].addr_(factor.upper[column, column:], error, alpha=-1)
    return found.T


def compare_times(rounds: int) -> None:
    """Print seconds on the shapes of BERT-base's and OPT-125M's feed-forward linears."""
    generator = torch.Generator().manual_seed(0)
    ways = {
        "gptq": lambda *given: gptq(*given).dequantize(),
        "column by column": column_by_column,
        "transposed": transposed,
    }
    print("| weight | groups | gptq, s | column by column, s | ratio | transposed, s | ratio | equal weights |")
    print("|---|---|---:|---:|---:|---:|---:|---:|")
    for rows, columns in ((768, 3072), (3072, 768)):
        weight = torch.randn(rows, columns, generator=generator) / columns**0.5
        hessian = Hessian(columns, torch.device("cpu"))
        mixing = torch.randn(columns, columns, generator=generator) / columns**0.5
        hessian.add(torch.randn(4 * columns, columns, generator=generator) @ mixing)
        factor = factorize(hessian.matrix())
        for group_size in (None, 128):
            taken: dict[str, list[float]] = {name: [] for name in ways}
            found: dict[str, Tensor] = {}
            for _ in range(rounds):
                for name, way in ways.items():
                    begin = time.perf_counter()
                    found[name] = way(weight, factor, GridOptions(4, group_size))
                    taken[name].append(time.perf_counter() - begin)
            one, literal, other = (statistics.median(values) for values in taken.values())
            same = float((found["gptq"] == found["column by column"]).float().mean())
            print(
                f"| {rows}×{columns} | {group_size or 'rows'} | {one:.3f} | {literal:.2f} | {literal / one:.1f} | "
                f"{other:.2f} | {other / one:.1f} | {same:.1%} |",
                flush=True,
            )
    print(f"target: {FASTER} times faster than column by column")


def compare_perplexities(options: argparse.Namespace) -> None:
    """Print a table of perplexities."""
    losses: dict[tuple[int, int, str], list[float]] = {}
    dense = 0.0
    for seed in range(options.seeds):
        request = QuantizeRequest(
            method="gptq", model=options.model, task=options.task, data=options.data, budget=Budget("mac", 1.0),
            output=Path("unused"), samples=options.samples, seed=seed, device="cpu",
        )  # fmt: skip
        subject = prepare(request, silent)
        batches = arguments_of(list(subject.calibration))
        shorten(subject.data, options.windows)
        if seed == 0:
            dense = predict(subject.model, subject.data, subject.precision).metrics["perplexity"]
            print(f"dense: perplexity {dense:.2f} on {options.task}")
        for bits in (4, 3, 2):
            for group_size in options.groups:
                grid = GridOptions(bits, None if group_size == -1 else group_size)
                for name, chosen in (
                    ("rtn", QuantizeOptions(grid, "rtn")),
                    ("gptq", QuantizeOptions(grid)),
                    ("gptq, act-order", QuantizeOptions(grid, act_order=True)),
                ):
                    if name == "rtn" and seed:
                        continue
                    model = sharing_copy(subject.model)
                    quantize_model(model, batches, chosen, precision=subject.precision)
                    found = predict(model, subject.data, subject.precision).metrics["perplexity"]
                    losses.setdefault((bits, group_size, name), []).append(found)
    print("| bits | groups | rtn | gptq | removed | gptq, act-order | removed |\n|---|---|---:|---:|---:|---:|---:|")
    for bits, group_size in dict.fromkeys((bits, group_size) for bits, group_size, _ in losses):
        names = ("rtn", "gptq", "gptq, act-order")
        rounded, plain, ordered = (statistics.mean(losses[bits, group_size, name]) for name in names)
        removed = [f"{found:.2f} | {(rounded - found) / (rounded - dense):.0%}" for found in (plain, ordered)]
        groups = "rows" if group_size == -1 else str(group_size)
        print(f"| {bits} | {groups} | {rounded:.2f} | {' | '.join(removed)} |")
    print(f"target at 4 bits: {REMOVED:.0%} removed")


def main() -> None:
    """Print both."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--model", help="folder of an OPT")
    parser.add_argument("--data", default="embedded", help="folder or file of text")
    parser.add_argument("--task", default="wikitext2")
    parser.add_argument("--groups", default="-1,64", type=lambda text: [int(part) for part in text.split(",")])
    parser.add_argument("--samples", type=int, default=128)
    parser.add_argument("--windows", type=int, help="to evaluate on (default: all)")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=2)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    quiet_libraries()
    if options.model:
        compare_perplexities(options)
    compare_times(options.rounds)


if __name__ == "__main__":
    main()
