"""Pruning of blocks of weights by surgery as one object: rows of the sheet that prune first and train masks take it."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from splora.posttraining.core.choices import Storage, states_option
from splora.posttraining.core.method import Method
from splora.posttraining.core.options import Options, option

if TYPE_CHECKING:
    from splora.posttraining.core.pruning import Pruning
    from splora.posttraining.core.stages import Stage


@dataclass(frozen=True)
class BlocksOptions(Options):
    """Options of the method.

    Attributes:
        blocks: shapes in attention and in feed-forward weights, which divide them.
        each_weight: of each weight the same fraction stays.
        storage: where hidden states are kept between layers.
    """

    blocks: tuple[tuple[int, int], tuple[int, int]] = option(((1, 1), (1, 1)), "shapes of blocks")
    each_weight: bool = option(False, "of each weight the same fraction of its blocks stays")
    storage: Storage = states_option()


class Blocks(Method):
    """Blocks become zeros, layer by layer, and what stays makes up for them; no smaller model by itself."""

    name = "blocks"
    title = "blocks by surgery"
    help = "blocks of weights, layer by layer (a row of the sheet that prunes first)"
    samples = 512
    options = BlocksOptions
    budgets = ("blocks",)

    def stages(self, pruning: Pruning, options: BlocksOptions) -> Iterator[Stage]:
        """The one stage, `blocks`."""
        from splora.export.plan import Plan
        from splora.posttraining.blocks.method import prune_blocks
        from splora.posttraining.core.layer_grams import arguments_of
        from splora.posttraining.core.stages import Stage

        begin = time.perf_counter()
        done = prune_blocks(
            pruning.model,
            arguments_of(list(pruning.examples)),
            options.blocks,
            pruning.budget.fraction,
            each_weight=options.each_weight,
            precision=pruning.precision,
            seed=pruning.seed,
            storage=options.storage,
            report=pruning.report,
        )
        yield Stage("blocks", done, Plan.dense(done), time.perf_counter() - begin, last=True)

    def row_options(self, **row: Any) -> BlocksOptions:
        """The blocks of the row's masks."""
        return BlocksOptions(blocks=row["blocks"], each_weight=row["each_weight"])


METHOD = Blocks()
