"""What is pruned, and what it is judged by."""

from __future__ import annotations

from dataclasses import dataclass

from torch import nn

from splora.posttraining.core.budget import Costs
from splora.posttraining.core.calibration import Calibration
from splora.posttraining.core.precision import Precision
from splora.tasks.data_module import TaskDataModule


@dataclass(frozen=True)
class Subject:
    """A checkpoint, its task and its calibration examples.

    Attributes:
        model: in evaluation mode, on its device.
        data: whose evaluation split gives the scores.
        calibration: drawn training examples.
        precision: of forward passes and products.
        costs: MACs of a head and of a neuron.
        tokens: the sequence length that they are counted at.
    """

    model: nn.Module
    data: TaskDataModule
    calibration: Calibration
    precision: Precision
    costs: Costs
    tokens: int
