"""Pruning by Fisher information (Kwon et al. 2022) as one object."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from splora.posttraining.core.method import Method
from splora.posttraining.fisher.options import FisherOptions
from splora.tasks.registry import REGISTRY

if TYPE_CHECKING:
    from splora.posttraining.core.pruning import Pruning
    from splora.posttraining.core.request import Request
    from splora.posttraining.core.stages import Stage


class Fisher(Method):
    """Mask search, rearrangement, rescaling; `--fisher_labels data` alone looks at labels."""

    name = "fisher"
    title = "Fisher"
    help = "by Fisher information of heads and neurons (Kwon et al. 2022)"
    samples = 2048
    options = FisherOptions
    budgets = ("mac", "latency")

    def stages(self, pruning: Pruning, options: FisherOptions) -> Iterator[Stage]:
        """`search`, `rearrange`, `rescale`."""
        from splora.posttraining.fisher.method import prune_fisher
        from splora.posttraining.fisher.search import search_macs

        macs = pruning.dense_macs
        return prune_fisher(
            pruning.model,
            pruning.examples,
            pruning.latency
            or (lambda heads, neurons, fraction: search_macs(heads, neurons, pruning.costs, fraction * macs)),
            pruning.budget.fraction,
            options,
            first_token_only=pruning.first_token_only,
            precision=pruning.precision,
            seed=pruning.seed,
            report=pruning.report,
        )

    def batch_size(self, options: Any) -> int | None:
        """That of a row of gradients."""
        return options.gradient_batch_size or None

    def problems(self, request: Request) -> list[str]:
        """Labels that are asked for and not there."""
        if request.options.get("labels") != "data":
            return []
        if request.task in REGISTRY and REGISTRY[request.task].causal:
            return [f"--fisher_labels is data, and {request.task} has no labels; model needs none."]
        return (
            [] if request.labelled else ["--no_labels is given, but --fisher_labels data needs them; model does not."]
        )


METHOD = Fisher()
