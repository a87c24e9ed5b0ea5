"""Hidden states of all calibration batches at one depth of a model: all that is held between two layers."""

from __future__ import annotations

import os
import shutil
import tempfile
import uuid
import weakref
from collections import deque
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path

import torch
from torch import Tensor, nn

from splora import anatomy
from splora.errors import DiskFull, InputError
from splora.files import is_full, locked_folder, remove_leftovers
from splora.posttraining.core.calls import Call, Calls
from splora.posttraining.core.choices import STORAGES as STORAGES
from splora.posttraining.core.choices import Storage as Storage
from splora.posttraining.core.precision import Precision
from splora.posttraining.core.sublayers import PARTS

#: Where hidden states are kept: in memory as fp32 or as bf16, in fp32 files of a temporary folder, or in memory as long
#: as they are no more than `MEMORY_BYTES`, else in files.
MEMORY_BYTES = 64 * 2**20
#: What the names of these temporary folders are made of.
FOLDER = "splora-states"
#: Activations of all samples at one sub-layer that are kept at most, in bytes.
KEPT_BYTES = 64 * 2**20
#: What all output projections put out for all samples, likewise.
OUTPUT_BYTES = 96 * 2**20


class States:
    """One (batch, tokens, hidden) tensor per batch, read and replaced in turn.

    Args:
        model: whose embeddings fill the states at first.
        batches: model arguments.
        storage: see `Storage`; files are mapped into memory, so that the system decides how much of them it holds.

    Raises:
        InputError: the temporary folder cannot hold the files; `DiskFull` where there is no space left.
    """

    def __init__(self, model: nn.Module, batches: Sequence[dict[str, Tensor]], storage: Storage = "auto") -> None:
        if storage == "auto":
            width = anatomy.layers(model)[0].linears["query"].in_features
            needed = 4 * width * sum(batch["input_ids"].numel() for batch in batches)
            # Beside a GPU's work they would be copied to and fro: there they stay.
            storage = "disk" if needed > MEMORY_BYTES and next(model.parameters()).device.type == "cpu" else "fp32"
        self._dtype = torch.bfloat16 if storage == "bf16" else torch.float32
        self._device = next(model.parameters()).device
        self._folder: Path | None = None
        if storage == "disk":
            try:
                self._folder = self._opened(ExitStack())
            except OSError as error:
                raise _refused(Path(error.filename or "TMPDIR"), error) from error
        self._held: list[Tensor] = []
        self._calls = Calls(model, batches)
        for number in range(len(batches)):
            hidden = self._calls.begin(number).to(self._dtype)
            self._held.append(hidden if self._folder is None else self._mapped(number, hidden))

    def __len__(self) -> int:
        return len(self._held)

    def __getitem__(self, number: int) -> Tensor:
        # What is read from a file must not change when the file is written to.
        return self._held[number].to(self._device, torch.float32, copy=self._folder is not None)

    def __setitem__(self, number: int, hidden: Tensor) -> None:
        if self._folder is None:
            self._held[number] = hidden.to(self._dtype)
        else:
            self._held[number].copy_(hidden)

    def call(self, number: int, layer: int) -> Call:
        """How the model calls a layer, counted from 0, on a batch."""
        return self._calls[number, layer]

    @property
    def bytes(self) -> int:
        """Bytes held, in memory or on disk."""
        return sum(hidden.nbytes for hidden in self._held)

    def _opened(self, stack: ExitStack) -> Path:
        """A temporary folder that lives as long as this object; those of killed programs are removed before."""
        place = Path(tempfile.gettempdir())
        remove_leftovers(place, (FOLDER,), files=False)

        def make() -> Path:
            folder = place / f".{FOLDER}.{uuid.uuid4().hex[:8]}.tmp"
            folder.mkdir(mode=0o700)
            return folder

        folder = stack.enter_context(locked_folder(make))
        weakref.finalize(self, stack.close)
        return folder

    def _mapped(self, number: int, hidden: Tensor) -> Tensor:
        assert self._folder is not None
        path = self._folder / str(number)
        try:
            _reserve(path, hidden.numel() * self._dtype.itemsize)
            mapped = torch.from_file(str(path), shared=True, size=hidden.numel(), dtype=self._dtype).view(hidden.shape)
        except (OSError, RuntimeError) as error:
            shutil.rmtree(self._folder, ignore_errors=True)
            raise _refused(self._folder, error) from error
        return mapped.copy_(hidden)


def _reserve(path: Path, size: int) -> None:
    """Make a file of so many bytes that the disk has set aside.

    Where a file has holes and the disk is full, no error is raised when its map is written to: the system ends the
    program.
    """
    with path.open("wb") as file:
        if hasattr(os, "posix_fallocate"):
            os.posix_fallocate(file.fileno(), 0, size)


def _refused(folder: Path, error: OSError | RuntimeError) -> InputError:
    told = getattr(error, "strerror", None) or str(error)
    kind = DiskFull if is_full(error) else InputError
    return kind(f"{folder}: hidden states cannot be kept here ({told}); set TMPDIR, or keep them in memory.")


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
