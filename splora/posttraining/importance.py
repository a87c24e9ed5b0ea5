"""What heads, neurons and blocks are worth, as pruning without training sees it: scores that a training starts from.

The worth of a head or neuron is the error that the predictions gain when its turn to go comes, all others of its layer
making up for it (`elimination`, measured as `stat.default` does, so that layers compare). That of a block is the same
for its block row of one weight (`block_surgeon`), as a part of what the linear puts out.
"""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn

from splora import anatomy
from splora.posttraining.core.layer_grams import Batch
from splora.posttraining.core.precision import Precision
from splora.posttraining.core.stages import silent
from splora.posttraining.core.states import Storage
from splora.posttraining.core.sublayers import PARTS
from splora.posttraining.stat.default import chosen_by, removal_paths, sensitivities
from splora.posttraining.stat.elimination import worth


def unit_importances(
    model: nn.Module,
    batches: Sequence[Batch],
    *,
    first_token_only: bool,
    precision: Precision,
    seed: int = 0,
    storage: Storage = "auto",
) -> list[dict[str, Tensor]]:
    """By layer, of its `heads` and its `neurons`: float64 (heads,) and (neurons,), comparable between layers.

    Args:
        model: a task model in evaluation mode, dense or pruned.
        batches: model arguments; labels are not looked at.
        first_token_only: whether the task head reads the first token alone.
        precision: what forward passes and products compute in.
        seed: of random directions.
        storage: where hidden states are kept between layers.
    """
    metrics = sensitivities(model, batches, seed, precision)
    paths, _ = removal_paths(
        model,
        chosen_by(model, batches),
        metrics,
        {"first_token_only": first_token_only, "storage": storage, "precision": precision, "outputs": None},
        silent,
        bias=True,
    )
    layers = len(anatomy.layers(model))
    return [{part.name: worth(paths[part.name][number]) for part in PARTS} for number in range(layers)]
