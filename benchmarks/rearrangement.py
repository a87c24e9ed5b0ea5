"""Rearrangement of a layer's neurons: exchanges with running sums against the greedy loop that sums up all chosen rows.

    python benchmarks/rearrangement.py [--layers 1] [--neurons 3072] [--samples 2048] [--threads 2]

Layers are independent of each other, so that one layer's ratio is the ratio of twelve. The Gram matrix of the gradient
rows counts as part of the first. Half of the neurons are kept; rows are random, with correlations.
"""

from __future__ import annotations

import argparse
import time

import torch
from published_fisher import exchange

from splora.posttraining.core.precision import Precision
from splora.posttraining.fisher.rearrange import joint_loss, rearrange

TARGET = 20


def main() -> None:
    """Time both on the same rows, and print the ratio."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--layers", type=int, default=1)
    parser.add_argument("--neurons", type=int, default=3072)
    parser.add_argument("--samples", type=int, default=2048)
    parser.add_argument("--threads", type=int, default=2)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    generator = torch.Generator().manual_seed(0)
    precision = Precision.parse("auto")
    ours = literal = 0.0
    for layer in range(options.layers):
        mixing = torch.randn(options.neurons, options.neurons, generator=generator) / options.neurons**0.5
        rows = torch.randn(options.samples, options.neurons, generator=generator) @ (mixing + torch.eye(len(mixing)))
        kept = torch.zeros(options.neurons, dtype=torch.bool)
        kept[: options.neurons // 2] = True
        begin = time.perf_counter()
        with precision.products(rows.device):
            gram = rows.T @ rows
        found = rearrange(gram, kept)
        ours += time.perf_counter() - begin
        begin = time.perf_counter()
        wanted = exchange(rows, kept)
        literal += time.perf_counter() - begin
        losses = joint_loss(gram.double(), found), joint_loss(gram.double(), wanted)
        same = float((found == wanted).float().mean())
        print(f"layer {layer}: same masks {same:.2%}, joint loss {losses[0]:.6g} and {losses[1]:.6g}")
    print(f"{ours:.2f} s against {literal:.2f} s: {literal / ours:.0f} times faster (target {TARGET})")


if __name__ == "__main__":
    main()
