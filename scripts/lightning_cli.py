"""LightningCLI with this project's module, data modules and defaults."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import splora.callbacks
from lightning import LightningDataModule
from lightning.pytorch.cli import LightningArgumentParser, LightningCLI
from splora.scripts.old_yaml import read_old_names

import splora.tasks.glue
import splora.tasks.squad  # noqa: F401  (makes the data modules known by name)
from splora.errors import InputError
from splora.files import write_json
from splora.machine import is_first_process
from splora.quiet import quiet_libraries
from splora.training.checkpoint_files import checkpoint_of, is_begun
from splora.training.module import PruningModule
from splora.training.run import RESULT, disk_full_is_told, finish

#: Settings of a run that was started from YAML, in its folder.
SETTINGS = "fit.json"

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
                "trainer.callbacks": [{"class_path": f"splora.callbacks.{name}"} for name in DEFAULT_CALLBACKS],
            }
        )

    def before_instantiate_classes(self) -> None:
        """`fit` goes on where a run of the same settings was interrupted, as a row of the workbook does.

        Raises:
            InputError: the folder belongs to a run with other settings.
        """
        config = self.config.get("fit")
        if config is None or config.trainer.default_root_dir is None or config.ckpt_path is not None:
            return
        folder = Path(config.trainer.default_root_dir)
        settings = {name: config.get(name) for name in ("seed_everything", "model", "data")}
        known = json.loads(json.dumps({name: _plain(value) for name, value in settings.items()}, default=str))
        if claim(folder, known):
            print(f"{folder}: this run is finished; choose another trainer.default_root_dir to run it again.")
            raise SystemExit(0)
        checkpoint = checkpoint_of(folder)
        if checkpoint is not None:
            config.ckpt_path = str(checkpoint)

    def fit(self, model: Any, **kwargs: Any) -> None:
        """Train; a full disk ends in one sentence."""
        with disk_full_is_told(Path(self.trainer.default_root_dir)):
            self.trainer.fit(model, **kwargs)

    def after_fit(self) -> None:
        """Score and save as every run does."""
        if not self.trainer.interrupted:
            finish(self.trainer, self.model, self.datamodule)


def claim(folder: Path, settings: dict[str, Any]) -> bool:
    """Make `folder` that of a run with these settings; returns whether such a run is finished there.

    Raises:
        InputError: it belongs to a run with other settings, or to a row of the workbook.
    """
    begun = is_begun(folder) or (folder / RESULT).is_file()
    if is_first_process():
        path = folder / SETTINGS
        found = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else None
        if begun and found != settings:
            raise InputError(
                f"trainer.default_root_dir: {folder} belongs to a run with other settings; choose another folder."
            )
        write_json(path, settings)
    return (folder / RESULT).is_file()


def _plain(value: Any) -> Any:
    return value.as_dict() if hasattr(value, "as_dict") else value


def run_cli(arguments: list[str]) -> None:
    """Parse and run ``fit``, ``validate``, ``test`` or ``predict``."""
    quiet_libraries()
    read_old_names()
    SploraCLI(
        PruningModule,
        LightningDataModule,
        subclass_mode_data=True,
        save_config_callback=None,
        seed_everything_default=92,
        args=None if arguments == sys.argv[1:] else arguments,
    )
