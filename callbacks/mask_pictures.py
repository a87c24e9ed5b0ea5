"""Pictures of what is left: one heat map per layer and matrix, with the heads' boundaries."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from lightning import Callback, LightningModule, Trainer

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
        return [_draw_layer(number, matrices, head_size, folder) for number, matrices in sorted(panels.items())]


def _draw_layer(number: int, matrices: dict[str, Any], head_size: int, folder: Path) -> Path:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(15, 4.2), layout="constrained")
    axes = figure.subplots(1, len(matrices), squeeze=False)[0]
    for axis, (role, layer) in zip(axes, matrices.items(), strict=True):
        _draw_matrix(axis, role, layer, head_size)
    figure.suptitle(f"Layer {number}: mean |W| of each block, pruned blocks white")
    path = folder / f"layer_{number:02d}.png"
    with replacing(path) as beside:
        figure.savefig(beside, format="png", dpi=80)
    return path


def _draw_matrix(axis: Any, role: str, layer: Any, head_size: int) -> None:
    rows, cols = layer.block_mask.block
    with torch.no_grad():
        strength = block_mean_abs(effective_weight(layer), (rows, cols)).float().cpu().numpy()
    axis.imshow(strength, cmap="Greys", vmin=0, aspect="auto", interpolation="nearest")
    kept = float((strength > 0).mean())
    axis.set_title(f"{role}\n{kept:.0%} kept", fontsize=9)
    axis.set_xlabel(f"inputs / {cols}", fontsize=8)
    axis.set_ylabel(f"outputs / {rows}", fontsize=8)
    if role in ("query", "key", "value"):
        for boundary in range(head_size, strength.shape[0] * rows, head_size):
            axis.axhline(boundary / rows - 0.5, color="red", linewidth=0.6)
    if role == "attention_output":
        for boundary in range(head_size, strength.shape[1] * cols, head_size):
            axis.axvline(boundary / cols - 0.5, color="red", linewidth=0.6)
