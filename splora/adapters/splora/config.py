"""Settings of a SPLoRA adapter."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

from splora.adapter_defaults import SPLORA_RANGE, SPLORA_RANK
from splora.adapters.config import MaskedAdapterConfig, positive


@dataclass
class SPLoRAConfig(MaskedAdapterConfig):
    """Structured Pruning Low-rank Adapter (Hedegaard et al., arXiv 2211.10155), see also `MaskedAdapterConfig`.

    Args:
        rank: r; below 1 a fraction of each layer's out_features.
        init_range: A starts uniform between ∓init_range; B starts at 0, so that an untrained adapter changes nothing.
    """

    rank: float = field(default=SPLORA_RANK, metadata={"help": "Rank; below 1 a fraction of out_features."})
    init_range: float = field(default=SPLORA_RANGE, metadata={"help": "A starts uniform between ∓init_range."})

    def __post_init__(self) -> None:
        super().__post_init__()
        self.peft_type = "SPLORA"

    def _problems(self) -> Iterable[str]:
        yield from super()._problems()
        fine = True
        for problem in positive(self, "rank", "init_range"):
            fine = fine and ": rank is" not in problem
            yield problem
        if fine and self.rank >= 1 and self.rank != int(self.rank):
            yield f"{type(self).__name__}: rank is {self.rank}; a whole number, or a fraction below 1, is needed."

    def rank_of(self, out_features: int) -> int:
        """The rank r of a layer: `rank`, or that fraction of its out_features, at least 1."""
        return int(self.rank) if self.rank >= 1 else max(1, round(self.rank * out_features))
