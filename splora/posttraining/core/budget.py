"""What a model costs, and what a budget leaves of it. MACs as DESIGN counts them: embeddings and task head left out."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from splora.errors import InputError, nearest

if TYPE_CHECKING:
    from torch import nn

    from splora.export.plan import Plan

#: What the budgets of commands count.
METRICS = ("mac", "latency")


@dataclass(frozen=True)
class Costs:
    """Multiply-accumulate operations of a model's parts for one sequence.

    Attributes:
        head: of one attention head.
        neuron: of one feed-forward neuron.
    """

    head: int
    neuron: int

    @classmethod
    def of(cls, model: nn.Module, tokens: int) -> Costs:
        """Costs at a length of `tokens`: 4·s·d·h + 2·s²·h for a head of size h, 2·s·d for a neuron, hidden size d.

        Four projections (query, key, value, output) and two attention products; two linears, three where one is a gate.
        With grouped queries, key and value have fewer rows than query.
        """
        from splora import anatomy

        layer = anatomy.layers(model)[0]
        hidden, size = layer.linears["query"].in_features, layer.head_size
        rows = sum(anatomy.head_rows(anatomy.config_of(model)).values())
        linears = 3 if "ffn_gate" in layer.linears else 2
        return cls(tokens * hidden * (rows + size) + 2 * tokens**2 * size, linears * tokens * hidden)

    def total(self, head_counts: Sequence[int], neuron_counts: Sequence[int]) -> int:
        """MACs of all layers."""
        return self.head * sum(head_counts) + self.neuron * sum(neuron_counts)

    def of_plan(self, plan: Plan) -> int:
        """MACs of what a plan keeps."""
        return self.total(plan.head_counts, plan.neuron_counts)


@dataclass(frozen=True)
class Budget:
    """What the pruned model may cost.

    Attributes:
        metric: what is counted: MACs, measured milliseconds, or the blocks of a row that prunes first.
        fraction: of what the dense model costs, above 0 and at most 1 (all of it stays); of milliseconds, below 1.
    """

    metric: Literal["mac", "latency", "blocks"]
    fraction: float

    @classmethod
    def parse(cls, text: str, option: str = "--budget") -> Budget:
        """Read `mac=0.5` or `latency=0.6`.

        Raises:
            InputError: another form, another metric, or a fraction out of range.
        """
        matched = re.fullmatch(r"\s*([A-Za-z_]+)\s*=\s*(\S+)\s*", text)
        if matched is None:
            raise InputError(f"{option} is {text!r}; it reads mac=0.5 or latency=0.6.")
        return cls.checked(matched[1], matched[2], option, option)

    @classmethod
    def checked(cls, metric: str, fraction: str | float, metric_option: str, fraction_option: str) -> Budget:
        """A budget of these values.

        Raises:
            InputError: an unknown metric, or a fraction out of range.
        """
        problems = []
        name = {"macs": "mac"}.get(metric.lower(), metric.lower())
        if name not in METRICS:
            problems.append(
                f"{metric_option}: {metric!r} is no budget; allowed are mac and latency{nearest(name, METRICS) or '.'}"
            )
        try:
            value = float(fraction)
        except ValueError:
            value = float("nan")
        if name == "latency" and value == 1:
            problems.append(
                f"{fraction_option}: {fraction} of the dense model's latency asks for no speed-up at all; a latency "
                f"budget is larger than 0 and smaller than 1, and mac=1 keeps everything."
            )
        elif not 0 < value <= 1:
            most = "smaller than 1" if name == "latency" else "at most 1"
            problems.append(
                f"{fraction_option}: {fraction} is out of range; a budget is a fraction of the dense model's cost, "
                f"larger than 0 and {most}."
            )
        if problems:
            raise InputError(problems)
        return cls("mac" if name == "mac" else "latency", value)
