"""How a pruned model's predictions have drifted from the dense model's, beyond their mean divergence.

A correction can lower the mean divergence by taming a model that is too sure of itself, and at the same time push
predictions over to one class: the divergence falls and so does the score. Three things are therefore looked at, none of
which needs a label:

- the divergence itself, in nats;
- the regret: what is lost of the dense model's probability where the pruned one decides otherwise, max p − p[argmax q].
  Were the dense model right as often as it says, its mean would be the loss of accuracy;
- the shift: how far the shares of predicted classes have moved, half the sum of absolute differences.

Of a regression, whose predictions have no classes: half the squared difference; and, for the regret, what the squared
difference is once a straight line has made up for scale and offset, of which correlations take no notice.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from splora.posttraining.core.sensitivity import divergences


@dataclass(frozen=True)
class Drift:
    """What the predictions of some samples say; float64 (predictions,), and a share from 0 to 1."""

    divergence: Tensor
    regret: Tensor
    shift: float


def drift(dense: Sequence[Tensor], pruned: Sequence[Tensor]) -> Drift:
    """The drift of logits from those of the dense model, batch by batch; each (rows, classes or positions)."""
    if dense[0].shape[-1] == 1:
        ours, theirs = (torch.cat(list(values)).double().flatten() for values in (dense, pruned))
        regret = _unexplained(ours, theirs)
        return Drift(divergences(dense, pruned), regret, 0.0)
    regrets, moved = [], torch.zeros(max(one.shape[-1] for one in dense), dtype=torch.float64)
    rows = 0
    for ours, theirs in zip(dense, pruned, strict=True):
        p, chosen = ours.double().softmax(-1), theirs.argmax(-1)
        regrets.append(p.max(-1).values - p.gather(-1, chosen[:, None])[:, 0])
        for sign, classes in ((1, chosen), (-1, ours.argmax(-1))):
            moved += sign * torch.bincount(classes.cpu(), minlength=len(moved))
        rows += len(ours)
    return Drift(divergences(dense, pruned), torch.cat(regrets), float(moved.abs().sum()) / (2 * max(rows, 1)))


def _unexplained(ours: Tensor, theirs: Tensor) -> Tensor:
    """Half the squared distance of our values from the straight line through theirs that fits them best."""
    centred = theirs - theirs.mean()
    slope = (centred @ (ours - ours.mean())) / centred.square().sum().clamp_min(1e-12)
    return 0.5 * (ours - ours.mean() - slope.clamp_min(0) * centred).square()
