"""Pictures of what is left: one heat map per layer and matrix, with the heads' boundaries."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from lightning import Callback, LightningModule, Trainer
from numpy.typing import NDArray

from splora import anatomy
from splora.files import replacing
from splora.masks import block_mean_abs, masked_layers
from splora.training.counting import effective_weight

if TYPE_CHECKING:
    from PIL import Image

#: Pixels: (width, height) of a panel's blocks; width of a panel with margins, height of a picture, margin above blocks.
SIZE = (148, 224)
_PANEL, _HEIGHT, _TOP = 196, 340, 68


class MaskPictures(Callback):
    """Draws ``masks/layer_<i>.png`` at every validation: six panels, one per weight matrix of the layer.

    A block is as dark as its mean absolute weight; pruned blocks are white. Red lines part the heads:
    rows of query, key and value, columns of the attention output.

    Args:
        output_dir: folder of the run; None: the Trainer's `default_root_dir`.
    """

    def __init__(self, output_dir: str | None = None) -> None:
        self.output_dir = output_dir
        self._drawn: dict[Path, dict[str, Matrix]] = {}

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Draw all layers."""
        if trainer.is_global_zero and pl_module.block_masks:
            self.draw(pl_module.network, Path(self.output_dir or trainer.default_root_dir) / "masks")

    def draw(self, network: torch.nn.Module, folder: Path) -> list[Path]:
        """Draw every layer of a masked network into `folder`; returns the files.

        The last state is evaluated twice: a picture that would be the same again stays.
        """
        layers = masked_layers(network)
        head_size = anatomy.head_size(network.config)
        panels: dict[int, dict[str, Any]] = {}
        for name, place in anatomy.encoder_linears(network).items():
            if name in layers:
                panels.setdefault(place.layer, {})[place.role] = layers[name]
        files = []
        for number, matrices in sorted(panels.items()):
            found = {role: Matrix.of(layer) for role, layer in matrices.items()}
            files.append(path := folder / f"layer_{number:02d}.png")
            if path.is_file() and _alike(found, self._drawn.get(path, {})):
                continue
            with replacing(path) as beside:
                picture(number, found, head_size).save(beside, format="png", compress_level=1)
            self._drawn[path] = found
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

    @property
    def kept(self) -> float:
        """Fraction of the blocks that are not pruned."""
        return float((self.strength > 0).mean())


def _alike(found: dict[str, Matrix], drawn: dict[str, Matrix]) -> bool:
    return found.keys() == drawn.keys() and all(
        matrix.block == drawn[role].block and np.array_equal(matrix.strength, drawn[role].strength)
        for role, matrix in found.items()
    )


def picture(number: int, matrices: dict[str, Matrix], head_size: int) -> Image.Image:
    """A layer's matrices side by side; Pillow draws in a tenth of the time that axes of matplotlib take."""
    from PIL import Image, ImageDraw, ImageFont

    image = Image.new("RGB", (_PANEL * len(matrices), _HEIGHT), "white")
    pen, font = ImageDraw.Draw(image), ImageFont.load_default(12)

    def write(x: float, y: float, text: str) -> None:
        pen.multiline_text((x, y), text, "black", font, anchor="ma", align="center")

    write(image.width / 2, 8, f"Layer {number}: mean |W| of each block, pruned blocks white")
    for place, (role, matrix) in enumerate(matrices.items()):
        (left, top), (width, height) = corner(place), SIZE
        grey = 255 - np.rint(255 * matrix.strength / max(float(np.nanmax(matrix.strength)), 1e-12))
        blocks = Image.fromarray(np.nan_to_num(grey).astype(np.uint8))
        image.paste(blocks.resize(SIZE, Image.Resampling.NEAREST), (left, top))
        pen.rectangle((left - 1, top - 1, left + width, top + height), outline="black")
        rows, cols = (count * size for count, size in zip(matrix.strength.shape, matrix.block, strict=True))
        if role in ("query", "key", "value"):
            for end in range(head_size, rows, head_size):
                pen.line((left, y := top + round(height * end / rows), left + width - 1, y), "red")
        if role == "attention_output":
            for end in range(head_size, cols, head_size):
                pen.line((x := left + round(width * end / cols), top, x, top + height - 1), "red")
        middle, ((p, q), (down, across)) = left + width / 2, (matrix.block, matrix.strength.shape)
        write(middle, top - 36, f"{role}\n{matrix.kept:.0%} kept")
        write(middle, top + height + 6, f"{down} by {across} blocks of\n{p} outputs by {q} inputs")
    return image


def corner(place: int) -> tuple[int, int]:
    """Upper left pixel of the panel of a matrix."""
    return place * _PANEL + (_PANEL - SIZE[0]) // 2, _TOP
