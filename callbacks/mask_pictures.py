"""Pictures of what is left: one heat map per layer and matrix, with the heads' boundaries."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from lightning import Callback, LightningModule, Trainer
from numpy.typing import NDArray

from splora import anatomy
from splora.files import replacing
from splora.masks import block_mean_abs, masked_layers
from splora.training.counting import effective_weight


class MaskPictures(Callback):
    """Draws ``masks/layer_<i>.png`` at every validation: six panels, one per weight matrix of the layer.

    A block is as dark as its mean absolute weight; pruned blocks are white. Red lines part the heads:
    rows of query, key and value, columns of the attention output.

    Args:
        output_dir: folder of the run; None: the Trainer's `default_root_dir`.
    """

    def __init__(self, output_dir: str | None = None) -> None:
        self.output_dir = output_dir

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Draw all layers."""
        if trainer.is_global_zero and pl_module.block_masks:
            self.draw(pl_module.network, Path(self.output_dir or trainer.default_root_dir) / "masks")

    def draw(self, network: torch.nn.Module, folder: Path) -> list[Path]:
        """Draw every layer of a masked network into `folder`; returns the files."""
        layers = masked_layers(network)
        head_size = anatomy.head_size(network.config)
        panels: dict[int, dict[str, Any]] = {}
        for name, place in anatomy.encoder_linears(network).items():
            if name in layers:
                panels.setdefault(place.layer, {})[place.role] = layers[name]
        sheets: dict[tuple[Any, ...], Sheet] = {}
        files = []
        for number, matrices in sorted(panels.items()):
            found = {role: Matrix.of(layer) for role, layer in matrices.items()}
            shape = tuple((role, matrix.strength.shape, matrix.block) for role, matrix in found.items())
            if shape not in sheets:
                sheets[shape] = Sheet(found, head_size)
            files.append(sheets[shape].save(number, found, folder / f"layer_{number:02d}.png"))
        return files


@dataclass(frozen=True)
class Matrix:
    """Mean absolute weight of each block of a matrix, shape (out / rows, in / cols), and a block's (rows, cols)."""

    strength: NDArray[np.float32]
    block: tuple[int, int]

    @classmethod
    @torch.no_grad()
    def of(cls, layer: Any) -> Matrix:
        """That of a masked layer, as it would be served."""
        block = layer.block_mask.block
        return cls(block_mean_abs(effective_weight(layer), block).float().cpu().numpy(), tuple(block))


class Sheet:
    """The axes of one layer's picture, which layers of the same shape share: making them is most of the work.

    Attributes:
        axes: those of each matrix, by its role.
    """

    def __init__(self, matrices: dict[str, Matrix], head_size: int) -> None:
        from matplotlib.figure import Figure
        from matplotlib.ticker import MaxNLocator

        self._figure = Figure(figsize=(15, 4.2))
        axes = self._figure.subplots(1, len(matrices), squeeze=False)[0]
        self._figure.subplots_adjust(left=0.045, right=0.99, bottom=0.13, top=0.8, wspace=0.35)
        self.axes, self._images = dict(zip(matrices, axes, strict=True)), {}
        for role, matrix in matrices.items():
            axis, (rows, cols) = self.axes[role], matrix.block
            self._images[role] = axis.imshow(matrix.strength, cmap="Greys", aspect="auto", interpolation="nearest")
            axis.set_xlabel(f"inputs / {cols}", fontsize=8)
            axis.set_ylabel(f"outputs / {rows}", fontsize=8)
            for side in (axis.xaxis, axis.yaxis):
                side.set_major_locator(MaxNLocator(4, integer=True))
                side.set_tick_params(labelsize=8)
            if role in ("query", "key", "value"):
                places = np.arange(head_size, matrix.strength.shape[0] * rows, head_size) / rows - 0.5
                axis.hlines(places, -0.5, matrix.strength.shape[1] - 0.5, color="red", linewidth=0.6)
            if role == "attention_output":
                places = np.arange(head_size, matrix.strength.shape[1] * cols, head_size) / cols - 0.5
                axis.vlines(places, -0.5, matrix.strength.shape[0] - 0.5, color="red", linewidth=0.6)

    def save(self, number: int, matrices: dict[str, Matrix], path: Path) -> Path:
        """Draw a layer's matrices."""
        for role, matrix in matrices.items():
            self._images[role].set_data(matrix.strength)
            self._images[role].set_clim(0, max(float(np.nanmax(matrix.strength)), 1e-12))
            self.axes[role].set_title(f"{role}\n{float((matrix.strength > 0).mean()):.0%} kept", fontsize=9)
        self._figure.suptitle(f"Layer {number}: mean |W| of each block, pruned blocks white")
        with replacing(path) as beside:
            self._figure.savefig(beside, format="png", dpi=80)
        return path
