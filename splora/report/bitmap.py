"""Small pictures of shares as PNG files in memory: transparent where nothing is kept, black where all is."""

from __future__ import annotations

import base64
import struct
import zlib

import numpy as np
from numpy.typing import NDArray

#: Grey levels of a picture whose values are not only 0 and 1.
_LEVELS = 16


def data_uri(shares: NDArray[np.floating]) -> str:
    """Shares between 0 and 1, shape (rows, cols), as the address of a PNG that holds itself."""
    return "data:image/png;base64," + base64.b64encode(png(shares)).decode("ascii")


def png(shares: NDArray[np.floating]) -> bytes:
    """Shares between 0 and 1, shape (rows, cols), as a PNG: one bit per value if all are 0 or 1, else four."""
    rows, cols = shares.shape
    binary = bool(np.isin(shares, (0, 1)).all())
    depth, levels = (1, 2) if binary else (4, _LEVELS)
    values = np.rint(shares * (levels - 1)).astype(np.uint8)
    if binary:
        packed = np.packbits(values, axis=1)
    else:
        even = np.pad(values, ((0, 0), (0, cols % 2)))
        packed = (even[:, ::2] << 4) | even[:, 1::2]
    lines = np.concatenate([np.zeros((rows, 1), np.uint8), packed], axis=1)  # each line begins with its filter: none
    opacity = bytes(round(255 * level / (levels - 1)) for level in range(levels))
    return b"".join(
        (
            b"\x89PNG\r\n\x1a\n",
            _chunk(b"IHDR", struct.pack(">IIBBBBB", cols, rows, depth, 3, 0, 0, 0)),
            _chunk(b"PLTE", bytes(3 * levels)),
            _chunk(b"tRNS", opacity),
            _chunk(b"IDAT", zlib.compress(lines.tobytes(), 9)),
            _chunk(b"IEND", b""),
        )
    )


def _chunk(kind: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))
