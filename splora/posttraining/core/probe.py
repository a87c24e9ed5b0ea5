"""A look at whether a family's description of its parts is true of a model, before anything relies on it.

A few tokens go through each layer as it is and by its parts (`sublayers`), and both must agree. Then a head's rows and
a neuron's are scaled: nothing but its own columns may change, and what is linear in them by as much.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from splora import anatomy
from splora.anatomy import Layer, Linear
from splora.errors import InputError
from splora.offload import device_of
from splora.posttraining.core.calls import Call, in_turn, record
from splora.posttraining.core.sublayers import PARTS, attention_close, forward_layer

#: Sequences and tokens of the probe.
SHAPE = (2, 6)
#: Differences, relative to the largest value, that rounding explains, by bits of the data type.
TOLERANCES = {64: 1e-8, 32: 1e-3, 16: 5e-2}


@torch.no_grad()
def check_parts(model: nn.Module) -> None:
    """Refuse a model whose layers are not what `anatomy` says of its family.

    Args:
        model: a bare task model.

    Raises:
        InputError: which part of which layer is something else.
    """
    training = model.training
    model.eval()
    try:
        _check(model)
    finally:
        model.train(training)


def _check(model: nn.Module) -> None:
    config = anatomy.config_of(model)
    device, few = device_of(model), min(int(config.vocab_size), 1000)
    ids = torch.randint(few, SHAPE, generator=torch.Generator().manual_seed(0)).to(device)
    hidden, calls = record(model, {"input_ids": ids, "attention_mask": torch.ones_like(ids)})
    tolerance = TOLERANCES[torch.finfo(hidden.dtype).bits]
    seen: set[str] = set()
    # What is doubled is put back exactly.
    for number, ((layer,), call) in enumerate(zip(in_turn(anatomy.layers(model), stays=False), calls, strict=True)):
        whole = call(layer.module, hidden)
        if not _close(forward_layer(layer, hidden, call), whole, tolerance):
            raise _wrong(config, number, "put together its parts compute something else than the layer itself")
        for problem in _units(layer, hidden, call, tolerance, seen):
            raise _wrong(config, number, problem)
        hidden = whole


def _units(layer: Layer, hidden: Tensor, call: Call, tolerance: float, seen: set[str]) -> Iterator[str]:
    """What is wrong with the rows and columns of a head and of a neuron, of the first layer that has any."""
    for part, units in zip(PARTS, (layer.heads, layer.neurons), strict=True):
        if part.name in seen:
            continue
        before = part.inner(layer, hidden, call)
        if not units:
            hidden = part.close(layer, hidden, layer.linears[part.role](before))
            continue
        seen.add(part.name)
        size, unit = part.size(layer), units - 1
        for role in (role for role in part.inputs if role in layer.linears):
            rows = layer.rows_of_head(role) if part.name == "heads" else 1
            with _doubled(layer.linears[role], slice(unit * rows, (unit + 1) * rows)):
                after = part.inner(layer, hidden, call)
            own = slice(unit * size, (unit + 1) * size)
            # The last unit: all others come before it.
            if not _close(after[..., : own.start], before[..., : own.start], tolerance):
                yield f"rows of {part.name[:-1]} {unit} in its {role} change what others put out"
            if _is_linear(layer, role) and not _close(after[..., own], 2 * before[..., own], tolerance):
                yield f"rows of {part.name[:-1]} {unit} in its {role} are not those that its columns get"
        if part.name == "heads":
            hidden = attention_close(layer, hidden, layer.linears[part.role](before))


def _is_linear(layer: Layer, role: str) -> bool:
    """Whether what a unit puts out is linear in these rows: values are averaged, and gates multiply."""
    return role == "value" or (role == "ffn_in" and "ffn_gate" in layer.linears)


@contextmanager
def _doubled(linear: Linear, rows: slice) -> Iterator[None]:
    """Twice the rows' weights and biases, for a while; then exactly what was there."""
    tensors = [tensor[rows] for tensor in (linear.weight, linear.bias) if tensor is not None]
    kept = [tensor.clone() for tensor in tensors]
    try:
        for tensor in tensors:
            tensor.mul_(2)
        yield
    finally:
        for tensor, values in zip(tensors, kept, strict=True):
            tensor.copy_(values)


def _close(one: Tensor, other: Tensor, tolerance: float) -> bool:
    largest = float(other.abs().max()) if other.numel() else 0.0
    return not other.numel() or float((one - other).abs().max()) <= tolerance * max(largest, 1e-6)


def _wrong(config: object, number: int, problem: str) -> InputError:
    kind = anatomy.family_of(config).model_type
    return InputError(
        f"{kind}: layer {number} is not what splora/anatomy/families/ says of this family: {problem}; "
        f"correct its description, or use the version of transformers that it was written for."
    )
