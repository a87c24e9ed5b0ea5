"""Checkpoints that are renamed into place with a checksum in them, and loaded only if it holds."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import torch
from lightning.fabric.plugins import TorchCheckpointIO

from splora.errors import DiskFull, InputError
from splora.files import replacing
from splora.training.checkpoint_files import damage, keep_previous, previous, seal


class ReplacingCheckpointIO(TorchCheckpointIO):
    """Writes beside the checkpoint's name and renames; the checkpoint that was there is kept as the one before.

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
                seal(beside)
                keep_previous(Path(path))
        except RuntimeError as error:
            # torch's archive writer meets a full disk without saying so.
            free = shutil.disk_usage(Path(path).parent).free
            raise DiskFull(
                f"{path}: the checkpoint cannot be written, {free:,} bytes are free on that disk; free some space and "
                "give the same command again, it goes on from the last checkpoint."
            ) from error

    def load_checkpoint(
        self, path: Any, map_location: Any = lambda storage, _: storage, weights_only: bool | None = None
    ) -> dict[str, Any]:
        """Load what is whole, and of that only numbers, texts and tensors unless `weights_only` is False.

        Raises:
            InputError: it is not there, is damaged, or holds other objects.
        """
        file = Path(path)
        if not file.is_file():
            raise InputError(f"{file}: there is no such checkpoint.")
        problem = damage(file)
        if problem is not None:
            raise InputError(f"{file}: is damaged ({problem}); give another checkpoint.")
        try:
            loaded = torch.load(file, map_location=map_location, weights_only=weights_only is not False)
        except Exception as error:  # whatever pickle and torch make of an archive that is no checkpoint
            reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
            raise InputError(f"{file}: is no checkpoint that can be gone on from ({reason[:200]}).") from error
        if not isinstance(loaded, dict):
            raise InputError(f"{file}: is no checkpoint of a run, it holds a {type(loaded).__name__}.")
        return loaded

    def remove_checkpoint(self, path: Any) -> None:
        """Remove a checkpoint and the one before it."""
        super().remove_checkpoint(path)
        previous(Path(path)).unlink(missing_ok=True)
