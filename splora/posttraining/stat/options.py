"""Options of pruning by interpolative decompositions; imports no torch."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from splora.posttraining.core.choices import Storage, states_option
from splora.posttraining.core.options import Options, Written, option

#: What heads' errors are multiplied by when they compete with neurons. Several are candidates for the split of the
#: budget: the first one stays unless another is better by more than the standard error of their difference. As errors
#: are measured by what they do to the predictions, others have not been found to be better (docs/posttraining.md).
HEAD_FACTORS = (1.0,)


_FACTORS = Written(
    lambda text: [float(part) for part in text.split(",")],
    lambda factors: ",".join(f"{factor:g}" for factor in factors),
)


@dataclass(frozen=True)
class StatOptions(Options):
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

    exact_paper: bool = option(
        False, "the published method: its budgets, its corrections from the dense model, no gradients", "--exact_paper"
    )
    head_factors: Sequence[float] = option(
        HEAD_FACTORS,
        "what errors of heads count against those of neurons; several are candidates whose divergence is measured",
        "--head_factors",
        holds=lambda factors: len(factors) > 0 and all(0 < factor < float("inf") for factor in factors),
        form="it is a list of numbers above 0, e.g. 1,0.5,2",
        written=_FACTORS,
        shown="LIST",
    )
    reconstruct: bool = option(
        True,
        "leave out the last stage, which solves projections again on the pruned model's activations",
        "--no_reconstruction",
    )
    storage: Storage = states_option()
    bias: bool = option(True, "combine what varies about the activations, and put the rest of their means into biases")
    sensitivities: bool = option(True, "measure errors by what they do to the predictions")
