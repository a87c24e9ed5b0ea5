"""LightningCLI with this project's module, data modules and defaults."""

from __future__ import annotations

import sys

from lightning import LightningDataModule
from lightning.pytorch.cli import LightningArgumentParser, LightningCLI

import callbacks  # noqa: F401  (makes the callbacks known by name)
import splora.tasks.glue
import splora.tasks.squad  # noqa: F401  (makes the data modules known by name)
from splora.training.module import PruningModule
from splora.training.quiet import quiet_libraries
from splora.training.run import finish

#: A configuration that names callbacks replaces these; SparsitySchedule needs thresholds, so it must be named.
DEFAULT_CALLBACKS = ("WeightCount", "MaskPictures", "RunResult", "RunProgressBar")


class SploraCLI(LightningCLI):
    """Trains a `PruningModule` on a task's data module and leaves the same files behind as a row of the workbook."""

    def add_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        """What every run of this program needs, unless the configuration says otherwise."""
        parser.set_defaults(
            {
                "trainer.use_distributed_sampler": False,  # the project's own sampler knows all ranks
                "trainer.num_sanity_val_steps": 0,  # a score needs the whole evaluation split
                "trainer.enable_model_summary": False,
                "trainer.callbacks": [{"class_path": f"callbacks.{name}"} for name in DEFAULT_CALLBACKS],
            }
        )

    def after_fit(self) -> None:
        """Score and save as every run does."""
        if not self.trainer.interrupted:
            finish(self.trainer, self.model, self.datamodule)


def run_cli(arguments: list[str]) -> None:
    """Parse and run ``fit``, ``validate``, ``test`` or ``predict``."""
    quiet_libraries()
    SploraCLI(
        PruningModule,
        LightningDataModule,
        subclass_mode_data=True,
        save_config_callback=None,
        seed_everything_default=92,
        args=None if arguments == sys.argv[1:] else arguments,
    )
