"""Trains a causal language model on windows of text: what makes the project's own small OPT."""

from __future__ import annotations

from typing import Any

import torch.nn.functional as F
from lightning import LightningModule
from torch import Tensor, nn
from torch.optim import Optimizer

from splora.training.optimizer import make_optimizer
from splora.training.options import OptimizerOptions


class LanguageModule(LightningModule):
    """Next-token cross-entropy with AdamW, linear warm-up and linear decay.

    Args:
        network: a causal language model of transformers.
        optimizer: rate, weight decay and warm-up steps.
        betas: of AdamW.
    """

    def __init__(self, network: nn.Module, optimizer: OptimizerOptions, betas: tuple[float, float] = (0.9, 0.95)):
        super().__init__()
        self.network = network
        self.optimizer_options = optimizer
        self.betas = betas

    def training_step(self, batch: dict[str, Tensor], batch_index: int) -> Tensor:
        """Mean loss over all predicted tokens of `input_ids` (batch, tokens)."""
        ids = batch["input_ids"]
        logits = self.network(input_ids=ids, attention_mask=batch["attention_mask"], use_cache=False).logits
        loss = F.cross_entropy(logits[:, :-1].flatten(0, 1).float(), ids[:, 1:].flatten())
        self.log("loss", loss, prog_bar=True)
        return loss

    def configure_gradient_clipping(
        self,
        optimizer: Optimizer,
        gradient_clip_val: float | None = None,
        gradient_clip_algorithm: str | None = None,
    ) -> None:
        """By the norm of all gradients; Lightning's own refuses fused optimizers, for fp16's loss scale, not in use."""
        if gradient_clip_val is not None:
            nn.utils.clip_grad_norm_(self.network.parameters(), gradient_clip_val)

    def configure_optimizers(self) -> dict[str, Any]:
        """One rate for all parameters; no weight decay on biases and norms."""
        steps = int(self.trainer.estimated_stepping_batches)
        warmup = self.optimizer_options.warmup_steps
        optimizer, schedule = make_optimizer(self.network, self.optimizer_options, warmup, steps)
        for group in optimizer.param_groups:
            group["betas"] = self.betas
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}
