"""Options of pruning by Fisher information; imports no torch."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from splora.posttraining.core.choices import Storage, states_option
from splora.posttraining.core.options import Options, Written, at_least, option

#: Whose labels the loss is of.
Labels = Literal["model", "data"]


def _batch_size(text: str) -> int:
    if text == "sample":
        return 0
    if not text.isdigit() or int(text) < 1:
        raise ValueError
    return int(text)


@dataclass(frozen=True)
class FisherOptions(Options):
    """Options of the method.

    Attributes:
        gradient_batch_size: samples per gradient row, drawn at random; 0: every sample has its own row.
        labels: Fisher information of the model's own predictions, or of the data's labels.
        teacher: of rescaling: the dense model, or, as the published program has it, the model pruned to the square
            root of the budget. By divergence from the dense model the first is the better one (docs/posttraining.md).
        bias_correction: whether biases take up what pruned heads and neurons put out on average, which no factor can.
            auto: where held-out samples say that nothing is lost by it (`correction`).
        damping: of the least squares of rescaling.
        storage: where rescaling keeps hidden states.
    """

    gradient_batch_size: int = option(
        0,
        "Fisher information from every sample's gradient (sample) or from mini-batches of N",
        "--gradients",
        holds=lambda size: size >= 0,
        form="it is 'sample' or a mini-batch's number of samples",
        written=Written(_batch_size, lambda size: str(size or "sample")),
        shown="sample|N",
    )
    labels: Labels = option(
        "model", "Fisher information of the model's own predictions, or of the data's labels", "--fisher_labels"
    )
    teacher: Literal["dense", "sqrt"] = option(
        "dense", "rescale towards the dense model, or the one pruned to the square root of the budget", "--teacher"
    )
    bias_correction: Literal["auto", "on", "off"] = option(
        "auto",
        "let biases take up what is lost on average; auto: if held-out samples say that nothing is lost by it; off: as "
        "published",
        "--bias_correction",
    )
    damping: float = option(1.0, "of the least squares of rescaling", "--damping", **at_least(0))
    storage: Storage = states_option()
