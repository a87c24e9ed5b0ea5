"""Checkpoints that are renamed into place, on whatever file system the temporary folder lies."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from lightning.fabric.plugins import TorchCheckpointIO

from splora.files import replacing


class ReplacingCheckpointIO(TorchCheckpointIO):
    """Writes beside the checkpoint's name and renames.

    Lightning's own writes into the system's temporary folder and moves, which across file systems is a copy that a
    kill can cut short.
    """

    def save_checkpoint(self, checkpoint: dict[str, Any], path: Any, storage_options: Any = None) -> None:
        """Save atomically.

        Raises:
            InputError: the disk is full, or the folder cannot be written to.
        """
        with replacing(Path(path)) as beside:
            torch.save(checkpoint, beside)
