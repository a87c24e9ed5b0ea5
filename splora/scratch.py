"""Tensors in a temporary file, for what is needed again later and is too much for memory."""

from __future__ import annotations

import tempfile
import uuid
import weakref
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from splora.errors import DiskFull, InputError
from splora.files import is_full, locked_folder, remove_leftovers

#: What the names of these temporary folders are made of.
FOLDER = "splora-states"


class Held:
    """A tensor that stays in memory; `()` gives it, `fill` replaces it by another one in the same type."""

    def __init__(self, tensor: Tensor) -> None:
        self._tensor = tensor

    def __call__(self) -> Tensor:
        return self._tensor

    def fill(self, tensor: Tensor) -> None:
        """Hold another tensor instead."""
        self._tensor = tensor.to(self._tensor.dtype)

    @property
    def nbytes(self) -> int:
        """Bytes held."""
        return self._tensor.nbytes


@dataclass(frozen=True)
class Slot:
    """A tensor in a file; `()` reads it, each time a new one on the device that it came from."""

    scratch: Scratch
    place: int
    shape: torch.Size
    dtype: torch.dtype
    device: torch.device

    def __call__(self) -> Tensor:
        return self.scratch.read(self.place, torch.empty(self.shape, dtype=self.dtype)).to(self.device)

    def fill(self, tensor: Tensor) -> None:
        """Write another tensor of this shape over it."""
        self.scratch.write(self.place, tensor.to(self.dtype))

    @property
    def nbytes(self) -> int:
        """Bytes in the file."""
        return self.shape.numel() * self.dtype.itemsize


#: Puts a tensor somewhere, from where it comes back.
Keep = Callable[[Tensor], Held | Slot]


class Scratch:
    """A temporary file, which is gone when neither this object nor one of its slots is held any more.

    It is read and written, not mapped: pages of a map would count as the program's memory.

    Raises:
        InputError: the temporary folder cannot hold it; `DiskFull` where there is no space left.
    """

    def __init__(self) -> None:
        self._stack, self._end = ExitStack(), 0
        place = Path(tempfile.gettempdir())
        remove_leftovers(place, (FOLDER,), files=False)  # of killed programs

        def make() -> Path:
            folder = place / f".{FOLDER}.{uuid.uuid4().hex[:8]}.tmp"
            folder.mkdir(mode=0o700)
            return folder

        try:
            self._folder = self._stack.enter_context(locked_folder(make))
            self._file = self._stack.enter_context((self._folder / "tensors").open("w+b", buffering=0))
        except OSError as error:
            self._stack.close()
            raise _refused(Path(error.filename or "TMPDIR"), error) from error
        weakref.finalize(self, self._stack.close)

    def put(self, tensor: Tensor) -> Slot:
        """Write a tensor at the end of the file."""
        slot = Slot(self, self._end, tensor.shape, tensor.dtype, tensor.device)
        self.write(slot.place, tensor)
        self._end += slot.nbytes
        return slot

    def write(self, place: int, tensor: Tensor) -> None:
        """Write a tensor's bytes from a place on."""
        left = _bytes(tensor.detach().cpu().contiguous())
        try:
            self._file.seek(place)
            while left:  # a system writes and reads no more than some GiB at once
                left = left[self._file.write(left) :]
        except OSError as error:
            self._stack.close()
            raise _refused(self._folder, error) from error

    def read(self, place: int, into: Tensor) -> Tensor:
        """Fill a new contiguous tensor with what lies at a place."""
        left = _bytes(into)
        try:
            self._file.seek(place)
            while left:
                count = self._file.readinto(left)
                if not count:
                    raise InputError(f"{self._folder}: the temporary file was cut short by something; start again.")
                left = left[count:]
        except OSError as error:
            raise _refused(self._folder, error) from error
        return into


def _bytes(tensor: Tensor) -> memoryview:
    values: Any = tensor.flatten().view(torch.uint8).numpy()
    return memoryview(values)


def _refused(folder: Path, error: OSError) -> InputError:
    told = error.strerror or str(error)
    kind = DiskFull if is_full(error) else InputError
    return kind(f"{folder}: hidden states cannot be kept here ({told}); set TMPDIR, or keep them in memory.")
