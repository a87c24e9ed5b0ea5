"""LightningCLI with this project's module, data modules and defaults."""

from __future__ import annotations

import logging

import splora.tasks.glue
import torch
from lightning import LightningDataModule
from lightning.pytorch.cli import LightningArgumentParser, LightningCLI

import callbacks  # noqa: F401  (makes the callbacks known by name)
import splora.tasks.squad  # noqa: F401  (makes the data modules known by name)
from splora.training.module import PruningModule
from splora.training.run import finish


class SploraCLI(LightningCLI):
    """Trains a `PruningModule` on a task's data module and leaves the same files behind as a row of the workbook."""

    def add_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        """The data module owns model_name_or_path's tokenizer; module and data must name the same model."""
        parser.set_defaults({"trainer.use_distributed_sampler": False, "trainer.num_sanity_val_steps": 0})

    def after_fit(self) -> None:
        """Score and save as every run does."""
        if not self.trainer.interrupted:
            finish(self.trainer, self.model, self.datamodule)


def run_cli(arguments: list[str]) -> None:
    """Parse and run ``fit``, ``validate``, ``test`` or ``predict``."""
    logging.getLogger("lightning.pytorch").setLevel(logging.WARNING)
    torch.set_float32_matmul_precision("high")
    SploraCLI(
        PruningModule,
        LightningDataModule,
        subclass_mode_data=True,
        save_config_callback=None,
        seed_everything_default=92,
        args=arguments,
    )
