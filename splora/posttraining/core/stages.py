"""What a post-training method yields as it goes: after each stage, a smaller model and what it cost to get there."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from torch import nn

from splora.export.plan import Plan

#: Told of each step of a stage: the stage, what it works on, and how much of it is done (0 to 1).
Report = Callable[[str, str, float], None]


def silent(stage: str, item: str, done: float) -> None:
    """A report that goes nowhere."""


@dataclass(frozen=True)
class Stage:
    """The state after one stage.

    Attributes:
        name: as in the result (`search`, `rearrange`, `rescale`, …).
        model: cut and, where the method changes weights, corrected.
        plan: which heads and neurons stay.
        seconds: what the stage took, evaluation not included.
        notes: what else the result should say about it.
        last: whether this is what the method was asked for: its model does not change any more.
    """

    name: str
    model: nn.Module
    plan: Plan
    seconds: float
    notes: dict[str, Any] = field(default_factory=dict)
    last: bool = False
