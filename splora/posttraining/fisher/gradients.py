"""Gradients of the loss by head and neuron masks, and the Fisher information they make (Kwon et al. 2022, section 3.2).

A mask that scales what meets an output projection has the gradient ⟨x, ∂L/∂x⟩, summed over the tokens and channels that
it scales: no mask has to be multiplied in, and frozen weights get no gradients.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from splora import anatomy
from splora.errors import InputError
from splora.posttraining.core.calibration import LABELS, is_label, to_device
from splora.posttraining.core.directions import direction
from splora.posttraining.core.layer_grams import regrouped
from splora.posttraining.core.precision import Precision
from splora.posttraining.core.sensitivity import TEXT_TOKENS, is_language_model
from splora.posttraining.fisher.options import Labels
from splora.tasks.features import IGNORED

FP32 = Precision("fp32")


class GradientRows:
    """Gradients of one layer's masks, one row per sample, and their Gram matrix.

    At most as many rows are kept as there are masks: then they are folded into the Gram matrix, (masks, masks), so
    that memory does not grow with the number of samples.
    """

    def __init__(self, masks: int) -> None:
        self.masks = masks
        self.samples = 0
        self._rows: list[Tensor] = []
        self._held = 0
        self._gram: Tensor | None = None

    def add(self, rows: Tensor) -> None:
        """Add rows, float (samples, masks)."""
        self.samples += len(rows)
        self._rows.append(rows)
        self._held += len(rows)
        if self._held > max(self.masks, 1):
            self._gram = self.gram()
            self._rows, self._held = [], 0

    def gram(self) -> Tensor:
        """Σ g gᵀ over all rows: the unnormalized Fisher information, float32 (masks, masks)."""
        if not self._rows:
            return torch.zeros(self.masks, self.masks) if self._gram is None else self._gram
        rows = torch.cat(self._rows)
        return rows.T @ rows if self._gram is None else self._gram.addmm_(rows.T, rows)

    def importance(self) -> Tensor:
        """The diagonal of `gram`, float64 (masks,)."""
        total = torch.zeros(self.masks, dtype=torch.float64)
        if self._gram is not None:
            total += self._gram.diagonal().double().cpu()
        for rows in self._rows:
            total += rows.double().square().sum(0).cpu()
        return total


@dataclass(frozen=True)
class MaskGradients:
    """Gradient rows of heads and of neurons, by layer."""

    heads: tuple[GradientRows, ...]
    neurons: tuple[GradientRows, ...]


def mask_gradients(
    model: nn.Module,
    batches: Iterable[dict[str, Tensor]],
    per_sample: bool = True,
    precision: Precision = FP32,
    labels: Labels = "data",
    seed: int = 0,
) -> MaskGradients:
    """One backward pass over the batches.

    Args:
        model: a task model that returns its mean loss over a batch; in evaluation mode, so that nothing is random.
        batches: model arguments with labels; every row is one sample.
        per_sample: a row of gradients per sample, of that sample's own loss; else one per mini-batch, of its mean loss.
        precision: what forward passes compute in.
        labels: `data`: gradients of the loss by the data's labels, as published; `model`: of
            `own_predictions_loss`, the curvature of the divergence from the model's own predictions.
        seed: of random signs.

    Raises:
        InputError: the loss is not a finite number.
    """
    layers = anatomy.layers(model)
    found = MaskGradients(
        tuple(GradientRows(layer.heads) for layer in layers), tuple(GradientRows(layer.neurons) for layer in layers)
    )
    device = next(model.parameters()).device
    causal = is_language_model(model)
    shape, generator = _Shape(), torch.Generator().manual_seed(seed)
    if per_sample and causal:
        batches = regrouped(list(batches), TEXT_TOKENS)
    with _frozen(model), _explicit_attention(model, device), _watched(layers, found, per_sample, shape):
        for number, batch in enumerate(batches):
            if labels == "data" and not any(map(is_label, batch)):
                raise InputError("Fisher information of the data's labels is asked for, but examples have none.")
            batch = to_device(batch, device)
            shape.samples = len(batch["input_ids"])
            with precision.forward(device):
                loss = model(**batch).loss if labels == "data" else own_predictions_loss(model, batch, generator)
            if not bool(torch.isfinite(loss)):
                raise InputError(
                    f"The loss of calibration batch {number + 1} is {float(loss.detach())}; "
                    f"the model or its data are broken."
                )
            # The library averages over the batch: times its size, each sample contributes its own gradient.
            (loss * _terms(batch, labels, causal) if per_sample else loss).backward()
    return found


def _terms(batch: dict[str, Tensor], labels: Labels, causal: bool) -> int:
    """What a loss is the mean of: samples, or, where each token has a label, those that count."""
    of_tokens = batch.get("labels") if labels == "data" else None
    if of_tokens is None or of_tokens.dim() < 2:
        return len(batch["input_ids"])
    # A language model's labels are of the token before.
    return int((of_tokens[:, 1:] if causal else of_tokens).ne(IGNORED).sum())


def own_predictions_loss(model: nn.Module, batch: dict[str, Tensor], generator: torch.Generator) -> Tensor:
    """A loss whose gradients' outer products are, on average, the Fisher information of the model's own predictions.

    Of logits z the loss is (Lu)ᵀz (see `directions`), averaged over the batch: no label is drawn, whose rare surprises
    would carry most of the sum.

    Args:
        batch: model arguments; labels among them are not looked at.
        generator: of the signs, on the CPU.
    """
    outputs = model(**{name: values for name, values in batch.items() if name not in LABELS})
    padding = ~batch["attention_mask"].bool()
    if "logits" in outputs:
        logits = outputs.logits.float()
        if logits.dim() == 2:
            return _weighted(logits, generator)
        # Every token has a prediction: those of a sequence are one sample's, and padding has none.
        return _weighted(logits[~padding], generator, alone=False) * float((~padding).sum()) / len(padding)
    # Start and end are predicted apart: independent signs leave no products of the two.
    positions = [outputs[name].float().masked_fill(padding, -1e9) for name in ("start_logits", "end_logits")]
    return torch.stack([_weighted(logits, generator) for logits in positions]).sum()


def _weighted(logits: Tensor, generator: torch.Generator, alone: bool = True) -> Tensor:
    """(Lu)ᵀz, averaged over rows of logits (rows, labels); `alone`: no two rows are of one sample."""
    return (direction(logits.detach(), generator, many=not alone) * logits).sum(1).mean()


@contextmanager
def _frozen(model: nn.Module) -> Iterator[None]:
    """Let no weight ask for a gradient."""
    before = [(weight, weight.requires_grad) for weight in model.parameters()]
    try:
        model.requires_grad_(False)
        yield
    finally:
        for weight, wanted in before:
            weight.requires_grad_(wanted)


@contextmanager
def _explicit_attention(model: nn.Module, device: torch.device) -> Iterator[None]:
    """On a CPU, let attention be plain matrix products: the fused kernel's backward pass is slower."""
    changeable: Any = model if device.type == "cpu" and hasattr(model, "set_attn_implementation") else None
    before = changeable.config._attn_implementation if changeable is not None else None
    try:
        if changeable is not None:
            changeable.set_attn_implementation("eager")
        yield
    finally:
        if changeable is not None:
            changeable.set_attn_implementation(before)


@dataclass
class _Shape:
    """Samples in the batch at hand: some models flatten samples and tokens on the way."""

    samples: int = 0


@contextmanager
def _watched(layers: list[anatomy.Layer], found: MaskGradients, per_sample: bool, shape: _Shape) -> Iterator[None]:
    """Collect ⟨x, ∂L/∂x⟩ at both output projections of every layer."""
    handles = []
    try:
        for number, layer in enumerate(layers):
            for role, rows, size in (
                ("attention_output", found.heads[number], layer.head_size),
                ("ffn_out", found.neurons[number], 1),
            ):
                if rows.masks:
                    watch = partial(_watch, rows, size, per_sample, shape)
                    handles.append(layer.linears[role].register_forward_pre_hook(watch))
        yield
    finally:
        for handle in handles:
            handle.remove()


def _watch(
    rows: GradientRows, size: int, per_sample: bool, shape: _Shape, _: nn.Module, arguments: tuple[Tensor, ...]
) -> tuple[Tensor]:
    (x,) = arguments
    # The first projection of all is where gradients end: below it nothing asks for any.
    x = x if x.requires_grad else x.detach().requires_grad_()

    # A hook that held `x` itself would keep it, and all that it was computed from, for ever.
    values = x.detach()

    def collect(gradient: Tensor) -> None:
        products = values.float() * gradient
        by_mask = products.view(shape.samples, -1, rows.masks, size).sum((1, 3))
        rows.add(by_mask if per_sample else by_mask.sum(0, keepdim=True))

    x.register_hook(collect)
    return (x,)
