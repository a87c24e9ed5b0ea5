"""How a model calls its layers on a batch: masks, positions and whatever else its family hands them.

They are recorded from the model itself while its layers are passed over: no layer computes anything, and nothing about
a family's arguments has to be known. A layer can then be run alone, on other hidden states.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from splora import anatomy
from splora.offload import device_of, present
from splora.posttraining.core.calibration import to_device

#: Arguments of a model that decide what its layers do.
ARGUMENTS = ("input_ids", "attention_mask", "token_type_ids")
#: Bytes of recorded arguments that are kept; beyond them they are recorded anew where they are needed.
CALL_BYTES = 64 * 2**20


class Reached(Exception):
    """A forward pass came as far as it was wanted."""


@dataclass(frozen=True)
class Call:
    """What a layer is given beside its hidden states.

    Attributes:
        arguments: those that follow the hidden states by position.
        named: those by name.
    """

    arguments: tuple[Any, ...] = ()
    named: tuple[tuple[str, Any], ...] = ()

    def __call__(self, layer: nn.Module, hidden: Tensor) -> Tensor:
        """Run a layer; its hidden states (batch, tokens, hidden) come out."""
        output = layer(hidden, *self.arguments, **dict(self.named))
        states: Tensor = output[0] if isinstance(output, tuple) else output
        return states

    def changed(self, change: Callable[[Tensor], Tensor]) -> Call:
        """The same with each tensor among the arguments replaced by what a change makes of it."""
        return Call(_changed(self.arguments, change), _changed(self.named, change))


def layer_modules(model: nn.Module) -> list[nn.Module]:
    """The layers as the model calls them."""
    return [layer.module for layer in anatomy.layers(model)]


def in_turn(*models: Sequence[anatomy.Layer], stays: bool = True) -> Iterator[tuple[anatomy.Layer, ...]]:
    """The layers of one number of each model, from the first to the last, their weights in memory until the next.

    Args:
        stays: whether what is changed in their weights stays.
    """
    for layers in zip(*models, strict=True):
        with present(*(layer.module for layer in layers), stays=stays):
            yield layers


def record(model: nn.Module, batch: dict[str, Tensor]) -> tuple[Tensor, list[Call]]:
    """What enters the first layer, (batch, tokens, hidden), and how each layer is called.

    Args:
        model: a bare task model in evaluation mode.
        batch: model arguments on the model's device.
    """
    family, layers = anatomy.family_of(anatomy.config_of(model)), layer_modules(model)
    entered: list[Tensor] = []
    calls: list[Call] = []

    def passed_over(*arguments: Any, **named: Any) -> Any:
        hidden = arguments[0] if arguments else named.pop("hidden_states")
        entered.append(hidden)
        calls.append(Call(arguments[1:], tuple(named.items())))
        if len(calls) == len(layers):
            raise Reached
        return (hidden, None) if family.gives_tuple else hidden

    # Decoders would fill a cache.
    options = {"use_cache": False} if family.causal else {}
    with _layers_are(layers, passed_over), present(model, without=layers), suppress(Reached):
        model(**{name: batch[name] for name in ARGUMENTS if name in batch}, **options)
    return entered[0], calls


def finish(model: nn.Module, network: nn.Module, batch: dict[str, Tensor], hidden: Tensor) -> Any:
    """What a model makes of the hidden states that its last layer puts out.

    Args:
        model: a bare task model in evaluation mode.
        network: itself, or its base model.
        batch: model arguments on the model's device.
        hidden: (batch, tokens, hidden).
    """
    family, layers = anatomy.family_of(anatomy.config_of(model)), layer_modules(model)
    options = {"use_cache": False} if family.causal else {}
    with _layers_are(layers, lambda *_, **__: (hidden, None) if family.gives_tuple else hidden):
        return network(**batch, **options)


class Calls:
    """How a model calls its layers, by batch; kept as long as it is no more than `CALL_BYTES`.

    Args:
        model: a bare task model in evaluation mode.
        batches: model arguments, on any device.
    """

    def __init__(self, model: nn.Module, batches: Sequence[dict[str, Tensor]]) -> None:
        self._model, self._batches = model, batches
        self._device = device_of(model)
        self._kept: dict[int, list[Call]] = {}
        self._storages: dict[int, Tensor] = {}
        self._bytes = 0
        self._last: tuple[int, list[Call]] = (-1, [])

    def begin(self, index: int) -> Tensor:
        """What enters the first layer for a batch, (batch, tokens, hidden); its calls are recorded."""
        hidden, calls = record(self._model, to_device(self._batches[index], self._device))
        new: dict[int, Tensor] = {}
        calls = [call.changed(lambda tensor: self._known(tensor, new)) for call in calls]
        self._last = index, calls
        needed = sum(tensor.untyped_storage().nbytes() for tensor in new.values())
        if self._bytes + needed <= CALL_BYTES:
            self._kept[index] = calls
            self._storages.update(new)
            self._bytes += needed
        return hidden

    def _known(self, tensor: Tensor, new: dict[int, Tensor]) -> Tensor:
        """The tensor, or an equal one that is kept: batches of one shape mostly share tables of positions."""
        place = tensor.untyped_storage().data_ptr()
        if place in self._storages or place in new:
            return tensor
        equal = (known for known in self._storages.values() if _is_equal(known, tensor))
        found = next(equal, None)
        if found is None:
            new[place] = tensor
        return tensor if found is None else found

    def __getitem__(self, place: tuple[int, int]) -> Call:
        """Of a batch, and there of a layer."""
        index, layer = place
        if index in self._kept:
            return self._kept[index][layer]
        if self._last[0] != index:
            self._last = index, record(self._model, to_device(self._batches[index], self._device))[1]
        return self._last[1][layer]


@contextmanager
def _layers_are(layers: Sequence[nn.Module], forward: Any) -> Iterator[None]:
    """Let layers do something else."""
    for layer in layers:
        layer.forward = forward
    try:
        yield
    finally:
        for layer in layers:
            del layer.forward


def _is_equal(one: Tensor, other: Tensor) -> bool:
    alike = one.shape == other.shape and one.dtype == other.dtype and one.stride() == other.stride()
    return alike and torch.equal(one, other)


def _changed(values: Any, change: Callable[[Tensor], Tensor]) -> Any:
    if isinstance(values, Tensor):
        return change(values)
    if isinstance(values, dict):
        return {name: _changed(value, change) for name, value in values.items()}
    if type(values) in (tuple, list):
        return type(values)(_changed(value, change) for value in values)
    return values
