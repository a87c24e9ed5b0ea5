"""How a model calls its layers on a batch: masks, positions and whatever else its family hands them.

They are recorded from the model itself while its layers are passed over: no layer computes anything, and nothing about
a family's arguments has to be known. A layer can then be run alone, on other hidden states.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn

from splora import anatomy
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

    def tensors(self) -> Iterator[Tensor]:
        """All tensors among the arguments."""
        yield from _tensors((self.arguments, dict(self.named)))


def record(model: nn.Module, batch: dict[str, Tensor]) -> tuple[Tensor, list[Call]]:
    """What enters the first layer, (batch, tokens, hidden), and how each layer is called.

    Args:
        model: a bare task model in evaluation mode.
        batch: model arguments on the model's device.
    """
    family = anatomy.family_of(anatomy.config_of(model))
    layers = [layer.module for layer in anatomy.layers(model)]
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
    with ExitStack() as stack:
        for layer in layers:
            stack.enter_context(_forward_is(layer, passed_over))
        stack.enter_context(suppress(Reached))
        model(**{name: batch[name] for name in ARGUMENTS if name in batch}, **options)
    return entered[0], calls


class Calls:
    """How a model calls its layers, by batch; kept as long as it is no more than `CALL_BYTES`.

    Args:
        model: a bare task model in evaluation mode.
        batches: model arguments, on any device.
    """

    def __init__(self, model: nn.Module, batches: Sequence[dict[str, Tensor]]) -> None:
        self._model, self._batches = model, batches
        self._device = next(model.parameters()).device
        self._kept: dict[int, list[Call]] = {}
        self._storages: set[int] = set()
        self._bytes = 0
        self._last: tuple[int, list[Call]] = (-1, [])

    def begin(self, index: int) -> Tensor:
        """What enters the first layer for a batch, (batch, tokens, hidden); its calls are recorded."""
        hidden, calls = record(self._model, to_device(self._batches[index], self._device))
        self._last = index, calls
        new = {tensor.untyped_storage().data_ptr(): tensor for call in calls for tensor in call.tensors()}
        new = {place: tensor for place, tensor in new.items() if place not in self._storages}
        needed = sum(tensor.untyped_storage().nbytes() for tensor in new.values())
        if self._bytes + needed <= CALL_BYTES:
            self._kept[index] = calls
            self._storages.update(new)
            self._bytes += needed
        return hidden

    def __getitem__(self, place: tuple[int, int]) -> Call:
        """Of a batch, and there of a layer."""
        index, layer = place
        if index in self._kept:
            return self._kept[index][layer]
        if self._last[0] != index:
            self._last = index, record(self._model, to_device(self._batches[index], self._device))[1]
        return self._last[1][layer]


@contextmanager
def _forward_is(module: nn.Module, forward: Any) -> Iterator[None]:
    """Let a module do something else."""
    module.forward = forward
    try:
        yield
    finally:
        del module.forward


def _tensors(values: Any) -> Iterator[Tensor]:
    if isinstance(values, Tensor):
        yield values
    elif isinstance(values, dict):
        for value in values.values():
            yield from _tensors(value)
    elif isinstance(values, (tuple, list)):
        for value in values:
            yield from _tensors(value)
