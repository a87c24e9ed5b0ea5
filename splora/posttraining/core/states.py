"""Hidden states of all calibration batches at one depth of a model: all that is held between two layers."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Sequence
from typing import Any, cast

import torch
from torch import Tensor, nn

from splora import anatomy
from splora.offload import device_of, is_offloaded, present
from splora.posttraining.core.calibration import to_device
from splora.posttraining.core.calls import Call, Calls, finish, in_turn, layer_modules
from splora.posttraining.core.choices import STORAGES as STORAGES
from splora.posttraining.core.choices import Storage as Storage
from splora.posttraining.core.precision import Precision
from splora.posttraining.core.sublayers import PARTS
from splora.scratch import Held, Keep, Scratch, Slot

#: Where hidden states are kept: in memory as fp32 or as bf16, in an fp32 temporary file, or in memory as long as they
#: are no more than `MEMORY_BYTES`, else in a file, as always for a model that is itself in files.
MEMORY_BYTES = 64 * 2**20
#: Activations of all samples at one sub-layer that are kept at most, in bytes.
KEPT_BYTES = 64 * 2**20
#: What all output projections put out for all samples, likewise.
OUTPUT_BYTES = 96 * 2**20


class States:
    """One (batch, tokens, hidden) tensor per batch, read and replaced in turn.

    Args:
        model: whose embeddings fill the states at first.
        batches: model arguments.
        storage: see `Storage`.

    Raises:
        InputError: the temporary folder cannot hold the file; `DiskFull` where there is no space left.
    """

    def __init__(self, model: nn.Module, batches: Sequence[dict[str, Tensor]], storage: Storage = "auto") -> None:
        self._device = device_of(model)
        if storage == "auto":
            width = anatomy.layers(model)[0].linears["query"].in_features
            needed = 4 * width * sum(batch["input_ids"].numel() for batch in batches)
            # Beside a GPU's work they would be copied to and fro: there they stay.
            large = needed > MEMORY_BYTES and self._device.type == "cpu"
            storage = "disk" if large or is_offloaded(model) else "fp32"
        dtype = torch.bfloat16 if storage == "bf16" else torch.float32
        keep: Keep = Scratch().put if storage == "disk" else Held
        self._calls = Calls(model, batches)
        with present(model, without=layer_modules(model)):
            self._held: list[Held | Slot] = [
                keep(self._calls.begin(number).to(dtype)) for number in range(len(batches))
            ]

    def __len__(self) -> int:
        return len(self._held)

    def __getitem__(self, number: int) -> Tensor:
        return self._held[number]().to(self._device, torch.float32)

    def __setitem__(self, number: int, hidden: Tensor) -> None:
        self._held[number].fill(hidden)

    def call(self, number: int, layer: int) -> Call:
        """How the model calls a layer, counted from 0, on a batch."""
        return self._calls[number, layer]

    @property
    def bytes(self) -> int:
        """Bytes held, in memory or on disk."""
        return sum(hidden.nbytes for hidden in self._held)


@torch.no_grad()
def last_hidden(model: nn.Module, batches: Sequence[dict[str, Tensor]], precision: Precision) -> Iterator[Tensor]:
    """What the base model of a language model puts out for each batch, (batch, tokens, hidden).

    A model in files is run layer by layer over all batches; what is around its layers has its values between two of
    them.
    """
    device, network = device_of(model), cast(Any, model).base_model
    if not is_offloaded(model):
        for batch in batches:
            with precision.forward(device):
                hidden = network(**to_device(batch, device), use_cache=False).last_hidden_state
            yield hidden
        return
    states = States(model, batches)
    for number, (layer,) in enumerate(in_turn(anatomy.layers(model))):
        with precision.forward(device):
            for index in range(len(states)):
                states[index] = states.call(index, number)(layer.module, states[index])
    with present(model, without=layer_modules(model)):
        for index, batch in enumerate(batches):
            with precision.forward(device):
                hidden = finish(model, network, to_device(batch, device), states[index]).last_hidden_state
            yield hidden


class Kept:
    """Activations of all batches at one sub-layer, or none of them where they are more than `KEPT_BYTES`."""

    def __init__(self) -> None:
        self.tensors: list[Tensor] = []
        self.whole, self._bytes = True, 0

    def put(self, tensor: Tensor) -> Tensor:
        """Add the tensor of the next batch, and return it."""
        self._bytes += tensor.nbytes
        if self._bytes > KEPT_BYTES:
            self.whole, self.tensors = False, []
        if self.whole:
            self.tensors.append(tensor)
        return tensor


class Outputs:
    """What a model's output projections put out in one pass through its layers, for a later one over the same batches.

    Attributes:
        held: whether it is no more than `OUTPUT_BYTES`; else nothing is held.
    """

    def __init__(self, model: nn.Module, batches: Sequence[dict[str, Tensor]], precision: Precision) -> None:
        width = precision.itemsize * sum(
            layer.linears[part.role].out_features for layer in anatomy.layers(model) for part in PARTS
        )
        self.held = width * sum(batch["input_ids"].numel() for batch in batches) <= OUTPUT_BYTES
        self._tensors: deque[Tensor] = deque()

    def put(self, projected: Tensor) -> None:
        """Add the output of the next batch, or of the first batch at the next projection."""
        if self.held:
            self._tensors.append(projected)

    def take(self) -> Tensor | None:
        """The outputs in the order in which they were put, each once; None where nothing is held."""
        return self._tensors.popleft() if self.held else None
