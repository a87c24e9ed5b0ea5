"""Quantization of a whole model, layer by layer: each weight meets inputs that quantized weights have made.

The linears of the transformer layers are quantized; embeddings, projections around the layers and the task head stay
(as in Frantar et al., arXiv 2210.17323). Within a layer, too, each linear's inputs come from what is quantized already:
query, key and value share theirs, and so one Hessian; then follow the attention's output, the first and the second
linear of the feed-forward part. Only hidden states are held between layers.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from splora import anatomy
from splora.export.storage import round_off, sharing_copy
from splora.posttraining.core.layer_grams import Batch, arguments_of, warn_of_few_tokens
from splora.posttraining.core.precision import Precision
from splora.posttraining.core.stages import Report, silent
from splora.posttraining.core.states import Kept, States
from splora.posttraining.core.sublayers import PARTS, Part
from splora.posttraining.quantize.gptq import Hessian, factorize, gptq
from splora.posttraining.quantize.grid import QuantizedWeight, round_to_nearest
from splora.posttraining.quantize.options import QuantizeOptions

__all__ = ["quantize_model", "quantized_copy", "sharing_copy"]


def quantized_copy(
    model: nn.Module,
    examples: Sequence[Batch],
    options: QuantizeOptions,
    *,
    dtype: torch.dtype | None = None,
    precision: Precision,
    report: Report = silent,
) -> tuple[nn.Module, dict[str, QuantizedWeight]]:
    """A quantized copy of a model, which shares with it what is not quantized; and the weights by parameter name.

    Args:
        examples: calibration examples; their labels are not looked at.
        dtype: what all its weights are rounded to before; None: they stay as they are.

    Raises:
        InputError: as `quantize_model`.
    """
    quantized = sharing_copy(model)
    if dtype is not None:
        round_off(quantized, dtype)
    weights = quantize_model(quantized, arguments_of(list(examples)), options, precision=precision, report=report)
    return quantized, weights


@torch.no_grad()
def quantize_model(
    model: nn.Module,
    batches: Sequence[Batch],
    options: QuantizeOptions,
    *,
    precision: Precision,
    report: Report = silent,
) -> dict[str, QuantizedWeight]:
    """Quantize the linears of all layers.

    Args:
        model: dense or pruned, in evaluation mode. Its weights become those that the codes stand for; parameters that
            it shares with another model stay as they are there.
        batches: model arguments without labels; padding is not counted. `rtn` looks at none.
        precision: what forward passes and Hessians compute in.

    Returns:
        By parameter name; weights of layers that have lost all their heads or neurons are not among them.

    Raises:
        InputError: options that do not fit the model, or far fewer tokens than channels.
    """
    layers = anatomy.layers(model)
    places = {(place.layer, place.role): name for name, place in anatomy.encoder_linears(model).items()}
    linears = [linear for layer in layers for linear in layer.matrices.values() if linear.weight.numel()]
    options.check(max((linear.in_features for linear in linears), default=None))
    found: dict[str, QuantizedWeight] = {}

    def replace(number: int, roles: Sequence[str], round_off: Callable[[Tensor], QuantizedWeight]) -> None:
        """Quantize weights that share their inputs."""
        report("quantize", f"layer {number}, {' '.join(roles)}", number / len(layers))
        of = layers[number].matrices
        here = [(role, of[role]) for role in roles if of[role].weight.numel()]
        if not here:
            return
        # Rows do not depend on one another: one matrix is as good as three, and quicker.
        whole = round_off(torch.cat([linear.weight for _, linear in here]))
        for (role, linear), part in zip(here, whole.split([linear.out_features for _, linear in here]), strict=True):
            found[f"{places[number, role]}.weight"] = part
            weight = part.dequantize().to(linear.weight.dtype)
            linear.weight = nn.Parameter(weight, requires_grad=linear.weight.requires_grad)

    if options.method == "rtn":
        for number in range(len(layers)):
            for role in layers[number].matrices:
                replace(number, (role,), lambda weight: round_to_nearest(weight, options.grid))
    else:
        _Walk(model, batches, options, precision, replace).run()
    report("quantize", "", 1.0)
    return found


Replace = Callable[[int, Sequence[str], Callable[[Tensor], QuantizedWeight]], None]


class _Walk:
    """Takes hidden states through the layers and has each weight replaced when its inputs are known."""

    def __init__(
        self,
        model: nn.Module,
        batches: Sequence[Batch],
        options: QuantizeOptions,
        precision: Precision,
        replace: Replace,
    ) -> None:
        self._options, self._precision, self._replace = options, precision, replace
        self._device = next(model.parameters()).device
        self._masks = [batch["attention_mask"].bool().to(self._device) for batch in batches]
        self._layers = anatomy.layers(model)
        warn_of_few_tokens(self._layers, sum(int(keep.sum()) for keep in self._masks), [part.name for part in PARTS])
        self._states = States(model, batches, options.storage)

    def run(self) -> None:
        for number, layer in enumerate(self._layers):
            for part in PARTS:
                self._pass(number, layer, part)

    def _pass(self, number: int, layer: anatomy.Layer, part: Part) -> None:
        """Quantize one sub-layer, and take the states past it."""
        linear, states = layer.linears[part.role], self._states
        # What meets the output projection is made twice where it is too much to keep.
        kept = Kept()
        if linear.in_features:
            self._quantize(number, part.inputs_of(layer), lambda index: part.enter(layer, states[index]))
            self._quantize(
                number,
                (part.role,),
                lambda index: kept.put(part.inner(layer, states[index], states.call(index, number))),
            )
        for index in range(len(states)):
            with self._precision.forward(self._device):
                hidden = states[index]
                known = kept.whole and index < len(kept.tensors)
                inner = kept.tensors[index] if known else part.inner(layer, hidden, states.call(index, number))
                states[index] = part.close(layer, hidden, linear(inner))

    def _quantize(self, number: int, roles: Sequence[str], inputs: Callable[[int], Tensor]) -> None:
        """Quantize weights that get `inputs(batch)`, (batch, tokens, channels)."""
        hessian = Hessian(self._layers[number].matrices[roles[0]].in_features, self._device)
        for index, keep in enumerate(self._masks):
            with self._precision.forward(self._device):
                x = inputs(index)
            with self._precision.products(self._device):
                hessian.add(x[keep])
        factor = factorize(hessian.matrix(), self._options.damping, self._options.act_order)
        self._replace(number, roles, lambda weight: gptq(weight, factor, self._options.grid))
