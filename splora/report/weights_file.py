"""Tensors of a safetensors file without reading the file: its heading tells where each begins, pages come on demand.

The format: 8 bytes with the heading's length, the heading as JSON (name → dtype, shape, first and last byte), then the
values (https://github.com/huggingface/safetensors#format). The library itself would need torch for half precision;
here a value only has to be told from zero.
"""

from __future__ import annotations

import json
import mmap
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

#: Unsigned integers of each type's width.
_BITS = {"F64": "<u8", "F32": "<u4", "F16": "<u2", "BF16": "<u2", "U8": "u1", "BOOL": "u1"}


class WeightsFile:
    """Names, shapes and values of one file; get one from `weights_file`."""

    def __init__(self, data: mmap.mmap) -> None:
        length = int.from_bytes(data[:8], "little")
        if length > len(data) - 8:
            raise ValueError("ends within its heading")
        self._data, self._start = data, 8 + length
        self._entries: dict[str, dict[str, Any]] = json.loads(data[8 : 8 + length])
        if not isinstance(self._entries, dict):
            raise ValueError("has a heading that is no object")
        self._entries.pop("__metadata__", None)

    def names(self) -> list[str]:
        """Names of all tensors."""
        return list(self._entries)

    def shape(self, name: str) -> tuple[int, ...]:
        """Shape of a tensor."""
        return tuple(self._entries[name]["shape"])

    def bits(self, name: str) -> NDArray[Any]:
        """The values' bits as unsigned integers, in the tensor's shape; only what is looked at is read from disk.

        Raises:
            ValueError: the type is unknown, or the file is shorter than it says.
        """
        entry = self._entries[name]
        if entry["dtype"] not in _BITS:
            raise ValueError(f"{name} has the type {entry['dtype']}, which is not read here")
        first, last = entry["data_offsets"]
        if self._start + last > len(self._data):
            raise ValueError(f"ends before {name} does")
        kind = np.dtype(_BITS[entry["dtype"]])
        values = np.frombuffer(self._data, kind, (last - first) // kind.itemsize, self._start + first)
        return values.reshape(self.shape(name))

    def is_nonzero(self, name: str, rows: slice) -> NDArray[np.bool_]:
        """Whether the values in these rows of a matrix differ from zero of either sign."""
        bits = self.bits(name)[rows]
        sign = bits.dtype.type(1 << (8 * bits.dtype.itemsize - 1))
        found: NDArray[np.bool_] = (bits & ~sign) != 0
        return found


@contextmanager
def weights_file(path: Path) -> Iterator[WeightsFile]:
    """Open a safetensors file.

    Raises:
        ValueError: it is none.
        OSError: it cannot be opened.
    """
    with path.open("rb") as file:
        data = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        with suppress(AttributeError, OSError):  # not on every system, and only advice
            data.madvise(mmap.MADV_RANDOM)
        try:
            yield WeightsFile(data)
        except (KeyError, IndexError, TypeError, AttributeError, RecursionError, UnicodeDecodeError) as error:
            raise ValueError(f"is not a safetensors file ({error!r})") from error
        finally:
            with suppress(BufferError):  # an array that somebody still holds keeps the pages; they are freed with it
                data.close()
