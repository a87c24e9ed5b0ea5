"""The masks of a finished run as shares of weights kept: from the bits of its adapter, or the zeros of its model."""

from __future__ import annotations

import functools
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from splora.json_values import read_object
from splora.model_sizes import is_cut_folder
from splora.report.weights_file import WeightsFile, weights_file

#: Heads of the embedded model, which has no configuration file to ask.
EMBEDDED_HEAD_SIZE = 32
#: Weights that are not pruned by blocks of at least so many are shown in cells of `CELL` × `CELL`.
LEAST, CELL = 64, 32
_WEIGHTS = {"adapter": "adapter_model.safetensors", "model": "model.safetensors"}
_MASKS = ("splopa_", "splora_")
Blocks = tuple[tuple[int, int], tuple[int, int]]


@dataclass(frozen=True)
class Matrix:
    """One weight matrix (out, in) in cells of p × q weights.

    Attributes:
        kept: share of each cell's weights that is not pruned, 0 to 1, shape (out/p, in/q).
        cell: p and q.
    """

    layer: int
    role: str
    kept: NDArray[np.float32]
    cell: tuple[int, int]

    @property
    def density(self) -> float:
        """Share of the matrix' weights that is not pruned; cells are of equal size."""
        return float(self.kept.mean())


@dataclass(frozen=True)
class Masks:
    """All matrices of a run, by layer and then by role, and the channels of a head where they are known."""

    matrices: tuple[Matrix, ...]
    head_size: int | None

    @property
    def by_layer(self) -> list[list[Matrix]]:
        """The matrices of each layer."""
        numbers = sorted({matrix.layer for matrix in self.matrices})
        return [[matrix for matrix in self.matrices if matrix.layer == number] for number in numbers]


def read_masks(folder: Path, blocks: Blocks | None, base: str) -> Masks | None:
    """The masks of a run; None where it saved no weights.

    Args:
        blocks: sides of a block of attention and of feed-forward weights.
        base: the model that an adapter belongs to, as the run names it.

    Raises:
        ValueError: what is wrong with the saved weights.
    """
    for part, file in _WEIGHTS.items():
        path = folder / part / file
        if not path.is_file():
            continue
        if is_cut_folder(path.parent):  # what stays is not what the masks were laid over
            return None
        try:
            with weights_file(path) as weights:
                found = _of_adapter(weights, path) if part == "adapter" else _of_model(weights, blocks)
                matrices = tuple(sorted(found, key=lambda matrix: (matrix.layer, _order(matrix.role))))
        except OSError as error:
            raise ValueError(f"{path.name} cannot be read ({error.strerror or error})") from error
        return Masks(matrices, _head_size(path.parent if part == "model" else folder, part, base)) if matrices else None
    return None


def _of_adapter(weights: WeightsFile, path: Path) -> Iterator[Matrix]:
    settings = read_object(path.parent / "adapter_config.json") or {}
    sizes, names = _sizes(weights), set(weights.names())
    for name, layer, role in _places(weights.names(), [f".{prefix}mask" for prefix in _MASKS]):
        module, _, attribute = name.rpartition(".")
        prefix = attribute.removesuffix("mask")
        own = module.removeprefix("base_model.model.")
        # The mask may have blocks of its own: whole heads or neurons.
        shape = settings.get("mask_shapes", {}).get(own) or settings.get("block_shapes", {}).get(own)
        p, q = shape or settings["block_shape"]
        bias = f"{module}.{prefix}bias"
        out = weights.shape(bias)[0] if bias in names else sizes.get("neurons" if role == "ffn_in" else "hidden")
        inner = sizes.get("neurons" if role == "ffn_out" else "hidden")
        if out is None or inner is None:
            raise ValueError(f"{path.name} does not tell the size of {module}")
        rows, cols = out // p, inner // q
        bits = np.unpackbits(weights.bits(name))
        if not rows * cols <= bits.size < rows * cols + 8:
            raise ValueError(f"{path.name}: the mask of {module} does not fit {rows} × {cols} blocks")
        kept = bits[: rows * cols].reshape(rows, cols).astype(np.float32)
        yield Matrix(layer, role, kept, (p, q))


def _sizes(weights: WeightsFile) -> dict[str, int]:
    """The hidden size and the number of neurons, from vectors as long."""
    names, found = weights.names(), {}
    for name in names:
        if len(weights.shape(name)) == 1 and re.search(r"layer_?norm\.weight$", name, re.IGNORECASE):
            found["hidden"] = weights.shape(name)[0]
    for name, _, role in _places(names, [f".{prefix}bias" for prefix in _MASKS]):
        if role in ("ffn_in", "ffn_out"):
            found["neurons" if role == "ffn_in" else "hidden"] = weights.shape(name)[0]
    return found


def _of_model(weights: WeightsFile, blocks: Blocks | None) -> Iterator[Matrix]:
    """Pruned blocks of a saved model are exactly zero: one row of each block tells which ones."""
    for name, layer, role in _places(weights.names(), [".weight"]):
        out, inner = weights.shape(name)
        p, q = (blocks or ((1, 1), (1, 1)))[role.startswith("ffn")]
        by_blocks = p * q >= LEAST and out % p == 0 and inner % q == 0
        if not by_blocks:
            p, q = _divisor(out), _divisor(inner)
        step = p if by_blocks else max(1, p // 8)
        found = weights.is_nonzero(name, slice(None, None, step)).reshape(out // p, p // step, inner // q, q)
        kept = np.asarray(found.any(axis=(1, 3)) if by_blocks else found.mean(axis=(1, 3)), dtype=np.float32)
        yield Matrix(layer, role, kept, (p, q))


def _places(names: list[str], endings: list[str]) -> Iterator[tuple[str, int, str]]:
    """Tensors that belong to a layer's prunable linears: their names, layers and roles."""
    pattern, roles = _pattern("|".join(re.escape(ending) for ending in endings))
    for name in names:
        if (match := pattern.match(name)) is not None and (match["layers"], match["path"]) in roles:
            yield name, int(match["layer"]), roles[match["layers"], match["path"]]


@functools.cache
def _pattern(endings: str) -> tuple[re.Pattern[str], dict[tuple[str, str], str]]:
    """What such names look like, and the roles by path of the layers and path within a layer, for all families."""
    from splora.anatomy import FAMILIES

    families = FAMILIES.values()
    roles = {(family.layers, path): of[0] for family in families for path, of in family.matrices().items()}
    layers = "|".join(re.escape(family.layers) for family in families)
    paths = "|".join(dict.fromkeys(re.escape(path) for _, path in roles))
    return re.compile(rf"(?:.*\.)?(?P<layers>{layers})\.(?P<layer>\d+)\.(?P<path>{paths})(?:{endings})$"), roles


def _order(role: str) -> int:
    from splora.anatomy import ROLES

    return ROLES.index(role)


def _divisor(size: int) -> int:
    """The largest divisor of a side up to `CELL`."""
    return next(side for side in range(min(CELL, size), 0, -1) if size % side == 0)


def _head_size(folder: Path, part: str, base: str) -> int | None:
    """Channels of a head, from the configuration of the model itself or of the one below the adapter."""
    from splora.anatomy import FAMILIES

    if part == "model":
        candidates = [folder / "config.json"]
    elif base == "embedded":
        return EMBEDDED_HEAD_SIZE
    else:
        # As the run named it, from here or from a folder above the run's own.
        candidates = [Path(base) / "config.json", *(above / base / "config.json" for above in folder.resolve().parents)]
    for path in candidates:
        try:
            config = read_object(path) or {}
            family = FAMILIES[config["model_type"]]
            return int(config.get("head_dim") or int(config[family.width]) // int(config[family.sizes[0]]))
        except (OSError, ValueError, KeyError, TypeError, ZeroDivisionError, OverflowError):
            continue
    return None


def head_densities(matrices: list[Matrix], head_size: int) -> NDArray[np.float64]:
    """Share of the weights of each head of a layer that is kept: its rows of query, key and value, its columns of the
    attention output. Shape (heads,)."""
    shares = []
    for matrix in matrices:
        if matrix.role in ("query", "key", "value", "attention_output"):
            axis = 0 if matrix.role == "attention_output" else 1
            channels = np.repeat(matrix.kept.mean(axis=axis, dtype=np.float64), matrix.cell[1 - axis])
            shares.append(channels.reshape(-1, head_size).mean(axis=1))
    found: NDArray[np.float64] = np.mean(shares, axis=0)
    return found
