"""How many threads of the CPU a run takes: as many as its largest matrix product keeps busy."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import nn

from splora.machine import threads_are_chosen, threads_for


def largest_product(network: nn.Module, tokens: int) -> float:
    """Multiplications of the largest product of so many tokens with a weight of the network."""
    sizes = [module.weight.numel() for module in network.modules() if isinstance(module, nn.Linear)]
    return float(tokens) * max(sizes, default=0)


def fit_threads(network: nn.Module, tokens: int) -> None:
    """Compute from now on with no more threads than batches of so many tokens keep busy.

    What the user or a launcher has chosen stays.
    """
    if not threads_are_chosen():
        torch.set_num_threads(threads_for(largest_product(network, tokens), torch.get_num_threads()))


@contextmanager
def threads_put_back() -> Iterator[None]:
    """The next run of this process starts with as many threads as this one did, however this one ends."""
    before = torch.get_num_threads()
    try:
        yield
    finally:
        torch.set_num_threads(before)
