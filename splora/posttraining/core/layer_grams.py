"""Gram matrices of what meets the output projections of every layer, gathered layer by layer."""

from __future__ import annotations

import logging
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from splora import anatomy
from splora.errors import InputError
from splora.offload import device_of
from splora.posttraining.core.calls import ARGUMENTS, in_turn
from splora.posttraining.core.gram import Gram
from splora.posttraining.core.precision import Precision
from splora.posttraining.core.states import Outputs, States, Storage
from splora.posttraining.core.sublayers import PARTS
from splora.tasks.features import filling

logger = logging.getLogger(__name__)

#: Weight of tokens that no prediction reads, where only the first one counts: they tell directions apart.
OTHERS = 0.05
#: Fewer tokens than this part of a layer's channels say nothing about it.
LEAST_TOKENS = 1 / 16

Batch = dict[str, Tensor]


@dataclass(frozen=True)
class LayerGrams:
    """What was gathered at one layer: by `heads` and `neurons`, the Gram matrix of their activations."""

    number: int
    layer: anatomy.Layer
    grams: dict[str, Gram]


@torch.no_grad()
def layer_grams(
    model: nn.Module,
    batches: Sequence[Batch],
    *,
    parts: Collection[str] = ("heads", "neurons"),
    first_token_only: bool = False,
    storage: Storage = "auto",
    precision: Precision,
    outputs: Outputs | None = None,
) -> Iterator[LayerGrams]:
    """Yield the Gram matrices of each layer; only hidden states are held between two layers.

    Args:
        model: dense or already pruned, in evaluation mode.
        batches: model arguments without labels; padding is not counted.
        parts: of which sub-layers.
        first_token_only: in the last layer the first token of each sequence counts, and the others by `OTHERS`.
        storage: where hidden states are kept between layers.
        precision: what forward passes and products compute in.
        outputs: gets what the output projections put out.

    Raises:
        InputError: far fewer tokens than channels (few: a warning).
    """
    device = device_of(model)
    masks = [batch["attention_mask"].bool().to(device) for batch in batches]
    # Boolean masks would be turned into numbers at every use.
    tokens = [token_numbers(keep) for keep in masks]
    states, layers = States(model, batches, storage), anatomy.layers(model)
    warn_of_few_tokens(layers, sum(map(len, tokens)), parts)
    for number, (layer,) in enumerate(in_turn(layers)):
        last = first_token_only and number == len(layers) - 1
        grams: dict[str, Gram] = {}
        for part in PARTS:
            linear = layer.linears[part.role]
            gram = grams[part.name] = Gram(linear.in_features, device=device, precision=precision)
            # One context for all batches: within it weights are cast once.
            with precision.forward(device):
                for index in range(len(states)):
                    hidden = states[index]
                    inner = part.inner(layer, hidden, states.call(index, number))
                    projected = linear(inner)
                    states[index] = part.close(layer, hidden, projected)
                    if outputs is not None:
                        outputs.put(projected)
                    if part.name in parts:
                        if last:
                            gram.add(inner[:, 0])
                        gram.add(rows_of(inner, tokens[index]), weight=OTHERS if last else 1.0)
        yield LayerGrams(number, layer, {name: grams[name] for name in parts})


def token_numbers(mask: Tensor) -> Tensor:
    """Where a mask, bool (batch, tokens), is set, counted over the whole batch; int64."""
    return torch.nonzero(mask.flatten())[:, 0]


def rows_of(values: Tensor, tokens: Tensor) -> Tensor:
    """Rows of (batch, tokens, channels) with these numbers: (numbers, channels)."""
    return values.flatten(0, 1).index_select(0, tokens)


def check_tokens(layers: Sequence[anatomy.Layer], tokens: int, parts: Collection[str]) -> None:
    """Refuse samples that say nothing about the widest layer.

    Raises:
        InputError: fewer tokens than `LEAST_TOKENS` of a layer's channels.
    """
    name, channels = max(_channels(layers, parts).items(), key=lambda pair: pair[1], default=("", 0))
    if tokens < channels * LEAST_TOKENS:
        raise InputError(
            f"The calibration samples hold {tokens:,} tokens, but {name} has {channels:,} channels; "
            f"at least {int(-(-channels * LEAST_TOKENS // 1)):,} are needed: give more samples."
        )


def warn_of_few_tokens(layers: Sequence[anatomy.Layer], tokens: int, parts: Collection[str]) -> None:
    """Name the layers that have more channels than there are tokens, those that are alike once.

    Raises:
        InputError: as `check_tokens`.
    """
    check_tokens(layers, tokens, parts)
    alike: dict[tuple[str, int], list[str]] = {}
    for name, channels in _channels(layers, parts).items():
        if channels > tokens:
            alike.setdefault((name.rpartition(".")[2], channels), []).append(name)
    for (part, channels), names in alike.items():
        others = f" and {part} of {len(names) - 1} more layers" if len(names) > 1 else ""
        logger.warning(
            "%s%s: %s channels, but the calibration samples hold only %s tokens: some channels look like "
            "combinations of others by chance; give more samples.",
            names[0],
            others,
            f"{channels:,}",
            f"{tokens:,}",
        )


def _channels(layers: Sequence[anatomy.Layer], parts: Collection[str]) -> dict[str, int]:
    """By sub-layer, what meets its output projection."""
    return {
        f"layer.{number}.{part.name}": layer.linears[part.role].in_features
        for number, layer in enumerate(layers)
        for part in PARTS
        if part.name in parts
    }


def arguments_of(batches: Sequence[Batch]) -> list[Batch]:
    """The batches without labels."""
    return [{name: batch[name] for name in ARGUMENTS if name in batch} for batch in batches]


def thinned(batches: Sequence[Batch], tokens: int, sequences: int = 1) -> list[Batch]:
    """Every n-th sequence, n being the largest that leaves at least about so many tokens and so many sequences."""
    every = sum(len(batch["attention_mask"]) for batch in batches)
    total = sum(int(batch["attention_mask"].sum()) for batch in batches)
    step = max(1, min(total // tokens, every // sequences))
    if step == 1:
        return list(batches)
    found, start = [], 0
    for batch in batches:
        rows = len(batch["attention_mask"])
        if start < rows:
            found.append({name: values[start::step] for name, values in batch.items()})
        start = (start - rows) % step
    return found


def beginnings(batches: Sequence[Batch], tokens: int) -> list[Batch]:
    """The first tokens of every sequence: to a decoder, shorter texts."""
    return [{name: values[:, :tokens] for name, values in batch.items()} for batch in batches]


def regrouped(batches: Sequence[Batch], tokens: int) -> Iterator[Batch]:
    """The same sequences in batches of at most `tokens` tokens, padding included, one sequence at least.

    Neighbours are put together, padded to the widest: a model's time on few tokens is mostly not theirs.
    """
    held: list[Batch] = []
    for batch in batches:
        rows, width = batch["attention_mask"].shape
        size = max(1, tokens // width)
        for start in range(0, rows, size):
            piece = {name: values[start : start + size] for name, values in batch.items()}
            together = [*held, piece]
            if held and sum(map(_rows, together)) * max(map(_width, together)) > tokens:
                yield _joined(held)
                together = [piece]
            held = together
    if held:
        yield _joined(held)


def _rows(batch: Batch) -> int:
    return len(batch["attention_mask"])


def _width(batch: Batch) -> int:
    return batch["attention_mask"].shape[1]


def _joined(batches: Sequence[Batch]) -> Batch:
    """One batch; what is added is padding (`attention_mask` 0)."""
    width = max(map(_width, batches))

    def widened(name: str, values: Tensor) -> Tensor:
        return values if values.dim() == 1 else F.pad(values, (0, width - values.shape[1]), value=filling(name))

    return {name: torch.cat([widened(name, batch[name]) for batch in batches]) for name in batches[0]}
