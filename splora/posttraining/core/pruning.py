"""What a method is handed: a model, the samples it looks at, and what may be left."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from torch import Tensor, nn

from splora import anatomy
from splora.export.plan import Plan
from splora.posttraining.core.budget import Budget, Costs
from splora.posttraining.core.examples import CalibrationExamples
from splora.posttraining.core.layer_grams import check_tokens
from splora.posttraining.core.precision import Precision
from splora.posttraining.core.stages import Report, silent
from splora.posttraining.core.sublayers import PARTS

#: From importances of heads and of neurons, by layer, and a fraction of the dense cost, to a plan within that budget.
Search = Callable[[Sequence[Tensor], Sequence[Tensor], float], Plan]


@dataclass(frozen=True)
class Pruning:
    """One pruning, asked of a method.

    Attributes:
        model: a task model in evaluation mode, dense or already pruned, on its device.
        examples: calibration examples.
        costs: MACs of a head and of a neuron.
        budget: what may be left, as a fraction of the dense model's cost.
        precision: what forward passes and products compute in.
        seed: of what the method draws.
        report: told of progress.
        latency: of a latency budget, the search by measured times.
    """

    model: nn.Module
    examples: CalibrationExamples
    costs: Costs
    budget: Budget
    precision: Precision
    seed: int = 0
    report: Report = silent
    latency: Search | None = None

    @property
    def first_token_only(self) -> bool:
        """Whether the task head reads the first token alone."""
        return anatomy.reads_first_token(self.model)

    @property
    def dense_macs(self) -> int:
        """MACs before anything was cut."""
        return dense_macs(self.model, self.costs)

    @property
    def present(self) -> float:
        """The part of these that the model has."""
        return self.costs.of_plan(Plan.dense(self.model)) / self.dense_macs

    @property
    def share(self) -> float:
        """The part of the model's own MACs that a budget of the dense model's leaves."""
        return self.budget.fraction / self.present

    @property
    def keeps_less(self) -> bool:
        """Whether the model was cut to less than the budget before."""
        return self.budget.fraction > self.present and self.present < 1


def dense_macs(model: nn.Module, costs: Costs) -> int:
    """MACs before anything was cut: what a budget is a fraction of, also where a pruned model is pruned again."""
    return costs.total(*anatomy.dense_sizes(anatomy.config_of(model)))


def check_samples(model: nn.Module, examples: CalibrationExamples) -> None:
    """Refuse samples that say too little about a model's channels, before anything costly.

    Raises:
        InputError: they hold far fewer tokens than a layer has channels.
    """
    tokens = sum(int(batch["attention_mask"].sum()) for batch in examples)
    check_tokens(anatomy.layers(model), tokens, [part.name for part in PARTS])
