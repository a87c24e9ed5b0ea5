"""Settings of a SPLoPA adapter."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

from splora.adapter_defaults import PROTOTYPE_RANGE, PROTOTYPE_RANK, PROTOTYPES
from splora.adapters.config import MaskedAdapterConfig, positive, positive_whole


@dataclass
class SPLoPAConfig(MaskedAdapterConfig):
    """Structured Pruning Low-rank PHM Adapter (Hedegaard et al., arXiv 2211.10155), see also `MaskedAdapterConfig`.

    Args:
        num_prototypes: K.
        prototype_rank: R, the rank of one prototype c_k r_k.
        shared_prototypes: one set of prototypes for all layers of a block shape; False: a set per layer.
        shared_position_weights: one set of position weights for all layers of a weight and block shape.
        init_range: root mean square of the entries of a prototype c_k r_k at the start. Position weights start at 0, so
            that an untrained adapter changes nothing; the gradient of a position weight is proportional to this range,
            and so is what a step of Adam changes in ΔW. The default is the deviation that weights of BERT
            themselves start with; the published 1e-4 moves ΔW a thousand times more slowly than fine-tuning moves W.
    """

    num_prototypes: int = field(default=PROTOTYPES, metadata={"help": "Number of prototypes K."})
    prototype_rank: int = field(default=PROTOTYPE_RANK, metadata={"help": "Rank of a prototype."})
    shared_prototypes: bool = field(default=True, metadata={"help": "One set for all layers of a block shape."})
    shared_position_weights: bool = field(default=False, metadata={"help": "One set for all layers of a shape."})
    init_range: float = field(
        default=PROTOTYPE_RANGE, metadata={"help": "Root mean square of a prototype's entries at the start."}
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        self.peft_type = "SPLOPA"

    def _problems(self) -> Iterable[str]:
        yield from super()._problems()
        yield from positive_whole(self, "num_prototypes", "prototype_rank")
        yield from positive(self, "init_range")
