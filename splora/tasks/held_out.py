"""Which training examples are held out to judge a training by."""

from __future__ import annotations

from collections.abc import Hashable, Sequence

import numpy as np

from splora.errors import InputError
from splora.tasks.features import Rows

#: Which ones depends on no run's seed: runs of several seeds are judged by the same ones.
SEED = 14
#: At most one of so many examples is held out.
PART = 5


def held_back(groups: Sequence[Hashable], wanted: int, task: str) -> tuple[Rows, Rows]:
    """Numbers of the training examples to train on and of those held out, both ascending.

    Args:
        groups: of each example, what it shares with others (a text): groups are held out as a whole.
        wanted: about so many examples are held out.
        task: for the message.

    Raises:
        InputError: nothing would be left to train on.
    """
    every = np.arange(len(groups), dtype=np.int64)
    if wanted <= 0:
        return every, every[:0]
    names = list(dict.fromkeys(groups))
    numbers = {name: number for number, name in enumerate(names)}
    group_of = np.array([numbers[name] for name in groups], np.int64)
    sizes = np.bincount(group_of)
    order = np.random.default_rng(SEED).permutation(len(names))
    least = min(wanted, max(1, len(groups) // PART))
    held = np.isin(group_of, order[: int(np.searchsorted(np.cumsum(sizes[order]), least)) + 1])
    if held.all():
        raise InputError(
            f"held_out is {wanted}, and all {len(groups):,} training examples of {task} belong to one text; nothing "
            f"would be left to train on: set held_out to 0."
        )
    return every[~held], every[held]
