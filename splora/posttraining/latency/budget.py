"""A latency budget in use: two tables read, checked against the model at hand, and handed to the search."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor, nn

from splora.export.plan import Plan
from splora.posttraining.latency.conditions import conditions
from splora.posttraining.latency.search import search_latency
from splora.posttraining.latency.table import LatencyTable, budget_milliseconds, check, read_table


@dataclass(frozen=True)
class LatencyBudget:
    """Measured latencies of attention and feed-forward blocks."""

    mha: LatencyTable
    ffn: LatencyTable

    @classmethod
    def read(cls, files: tuple[str, str]) -> LatencyBudget:
        """Read both files.

        Raises:
            InputError: one of them is no table of its kind.
        """
        return cls(read_table(files[0], "mha"), read_table(files[1], "ffn"))

    @property
    def batch_size(self) -> int:
        """Sequences per batch that were measured."""
        return self.mha.measured_with.batch_size

    @property
    def tokens(self) -> int:
        """Tokens per sequence that were measured."""
        return self.mha.measured_with.sequence_length

    def check(self, model: nn.Module, batch_size: int | None, tokens: int | None) -> list[str]:
        """Make sure that the tables hold for this model on its device; returns warnings.

        Args:
            batch_size: that the person asked for; None: as measured.
            tokens: per sequence, likewise.

        Raises:
            InputError: a sentence for each condition that does not hold.
        """
        return check(self.mha, self.ffn, conditions(model, batch_size or self.batch_size, tokens or self.tokens))

    def search(self, heads: Sequence[Tensor], neurons: Sequence[Tensor], fraction: float) -> Plan:
        """The plan of least Fisher loss within `fraction` of the dense model's measured latency."""
        budget = budget_milliseconds(fraction, self.mha, self.ffn)
        return search_latency(heads, neurons, self.mha.fit(), self.ffn.fit(), budget)
