"""Logs how many weights remain and how many were learned."""

from __future__ import annotations

from typing import Any

from lightning import Callback, LightningModule, Trainer


class WeightCount(Callback):
    """Remaining and learned weights in percent at every validation, and the density of the masks while training."""

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Log the density as often as the loss: reading it costs a look at every mask."""
        if trainer.global_step % trainer.log_every_n_steps == 0 and getattr(pl_module, "block_masks", None):
            pl_module.log("density", pl_module.mask_density(), prog_bar=True)

    def on_validation_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Log the percentages that DESIGN defines."""
        counts = pl_module.weight_counts()
        pl_module.log("remaining_weights_percent", counts.remaining_percent, prog_bar=True, sync_dist=False)
        pl_module.log("learned_weights_percent", counts.learned_percent, sync_dist=False)
