"""Pruning by interpolative decompositions (Flynn et al. 2024, STAT) as one object."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from splora.posttraining.core.method import Method
from splora.posttraining.stat.options import StatOptions

if TYPE_CHECKING:
    from splora.posttraining.core.pruning import Pruning
    from splora.posttraining.core.stages import Stage


class Stat(Method):
    """The published method, or a default that goes on from it; of encoders and of language models."""

    name = "stat"
    title = "STAT"
    help = "by interpolative decompositions of activations (Flynn et al. 2024)"
    samples = 512
    options = StatOptions
    offloads = True

    def stages(self, pruning: Pruning, options: StatOptions) -> Iterator[Stage]:
        """`interpolate` and `reconstruct`, or, as published, `neurons` and `heads`."""
        from splora.posttraining.stat.method import prune_stat

        return prune_stat(
            pruning.model,
            pruning.examples,
            pruning.costs,
            pruning.share,
            options,
            first_token_only=pruning.first_token_only,
            precision=pruning.precision,
            seed=pruning.seed,
            report=pruning.report,
        )

    def check(self, pruning: Pruning) -> None:
        """Refuse samples that say too little about the model's channels."""
        from splora.posttraining.core.pruning import check_samples

        check_samples(pruning.model, pruning.examples)


METHOD = Stat()
