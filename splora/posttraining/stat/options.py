"""Choices of pruning by interpolative decompositions."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from splora.posttraining.core.states import Storage

#: What heads' errors are multiplied by when they compete with neurons. Several are candidates for the split of the
#: budget: the first one stays unless another is better by more than the standard error of their difference. As errors
#: are measured by what they do to the predictions, others have not been found to be better (docs/posttraining.md).
HEAD_FACTORS = (1.0,)


@dataclass(frozen=True)
class StatOptions:
    """The published method, or the default with each of its parts on or off.

    Attributes:
        exact_paper: the published method, which looks at `storage` alone of what follows.
        sensitivities: measure the errors of heads and neurons by what they do to the predictions, which takes a
            backward pass over some samples; else as errors of the projections' outputs.
        head_factors: see `HEAD_FACTORS`; at least one; one value: nothing is compared.
        bias: combine what varies about the activations, and put what is left of their means into biases; else
            activations are combined as they are, and only reconstruction, if there is one, changes biases.
        reconstruct: solve projections again, with biases, on the pruned model's activations.
        storage: where hidden states are kept between layers.
    """

    exact_paper: bool = False
    head_factors: Sequence[float] = HEAD_FACTORS
    reconstruct: bool = True
    storage: Storage = "auto"
    bias: bool = True
    sensitivities: bool = True
