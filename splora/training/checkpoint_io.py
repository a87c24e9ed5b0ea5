"""Checkpoints that are renamed into place, on whatever file system the temporary folder lies."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import torch
from lightning.fabric.plugins import TorchCheckpointIO

from splora.errors import DiskFull
from splora.files import replacing


class ReplacingCheckpointIO(TorchCheckpointIO):
    """Writes beside the checkpoint's name and renames.

    Lightning's own writes into the system's temporary folder and moves, which across file systems is a copy that a
    kill can cut short.
    """

    def save_checkpoint(self, checkpoint: dict[str, Any], path: Any, storage_options: Any = None) -> None:
        """Save atomically.

        Raises:
            InputError: the folder cannot be written to; `DiskFull` where that is the reason.
        """
        try:
            with replacing(Path(path)) as beside:
                torch.save(checkpoint, beside)
        except RuntimeError as error:
            # torch's archive writer meets a full disk without saying so.
            free = shutil.disk_usage(Path(path).parent).free
            raise DiskFull(
                f"{path}: the checkpoint cannot be written, {free:,} bytes are free on that disk; free some space and "
                "give the same command again, it goes on from the last checkpoint."
            ) from error
