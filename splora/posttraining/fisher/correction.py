"""Whether biases are to take up what pruned heads and neurons put out on average: held-out samples decide.

No factor can make up for a lost mean, a bias can. By mean divergence that is a gain on single sentences; on pairs of
sentences the divergence falls as well, but predictions move over to one class and the score falls. The published
procedure changes no bias: it is left only for what is better by every sign (`drift`).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from splora.posttraining.core.drift import Drift, drift
from splora.posttraining.core.layer_grams import Batch, thinned
from splora.posttraining.core.precision import Precision
from splora.posttraining.core.sensitivity import logits

#: Sequences at most that the choice looks at: it is fitted on one half of them, and judged by the other.
MOST_SEQUENCES = 1024
#: Held-out sequences below which nothing can be told.
LEAST_HELD_OUT = 64

#: From samples and whether biases are corrected, to a rescaled model.
Fit = Callable[[Sequence[Batch], bool], nn.Module]


def choose_bias_correction(
    model: nn.Module, batches: Sequence[Batch], fit: Fit, precision: Precision
) -> tuple[bool, dict[str, Any]]:
    """Whether to correct biases, and what was measured.

    Args:
        model: the dense model.
        batches: calibration samples without labels.
        fit: makes a candidate.
        precision: what forward passes compute in.
    """
    fitted, held_out = halves(_at_most(batches, MOST_SEQUENCES))
    number = sum(len(batch["attention_mask"]) for batch in held_out)
    if number < LEAST_HELD_OUT:
        return False, {"bias": "off", "because": f"only {number} samples could be held out"}
    dense = logits(model, held_out, precision)
    found: dict[bool, Drift] = {}
    for corrected in (False, True):
        found[corrected] = drift(dense, logits(fit(fitted, corrected), held_out, precision))
    chosen = is_better(found[True], found[False])
    told = {
        name: {
            "divergence": float(one.divergence.mean()),
            "regret": float(one.regret.mean()),
            "shift": one.shift,
        }
        for name, one in (("off", found[False]), ("on", found[True]))
    }
    return chosen, {"bias": "on" if chosen else "off", "held_out": number, "drift": told}


def is_better(one: Drift, other: Drift) -> bool:
    """Whether one drift is smaller by every sign.

    Its divergence is by more than the standard error of the difference, its regret is not larger even with that added,
    and its shift is not larger.
    """
    gained, lost = other.divergence - one.divergence, one.regret - other.regret
    return (
        float(gained.mean()) > _standard_error(gained)
        and float(lost.mean()) + _standard_error(lost) <= 0
        and one.shift <= other.shift
    )


def _standard_error(values: Tensor) -> float:
    return float(values.std()) / math.sqrt(len(values))


def halves(batches: Sequence[Batch]) -> tuple[list[Batch], list[Batch]]:
    """Every other sequence, and the others; batches of similar lengths stay such."""
    found: tuple[list[Batch], list[Batch]] = ([], [])
    start = 0
    for batch in batches:
        rows = len(batch["attention_mask"])
        side = (torch.arange(rows) + start) % 2
        for number in (0, 1):
            if bool((side == number).any()):
                found[number].append({name: _rows(values, side == number) for name, values in batch.items()})
        start += rows
    return found


def _at_most(batches: Sequence[Batch], sequences: int) -> Sequence[Batch]:
    every = sum(len(batch["attention_mask"]) for batch in batches)
    return batches if every <= sequences else thinned(batches, 1, sequences)


def _rows(values: Tensor, chosen: Tensor) -> Tensor:
    return values[chosen.to(values.device)]
