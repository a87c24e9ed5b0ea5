"""LightningCLI with this project's module, data modules and defaults."""

from __future__ import annotations

import sys
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from lightning import LightningDataModule
from lightning.pytorch.cli import LightningArgumentParser, LightningCLI

import splora.callbacks
import splora.tasks.glue
import splora.tasks.squad  # noqa: F401  (makes the data modules known by name)
from splora.errors import InputError, cut
from splora.files import write_text
from splora.json_values import one_line
from splora.locks import RUN_LOCK, is_held
from splora.machine import is_first_process
from splora.quiet import quiet_libraries
from splora.run_files import FIT_CONFIGURATION
from splora.scripts import trained_run
from splora.scripts.fit_folder import DEFAULT_FOLDER, claim, is_finished, repeating, settings_of
from splora.scripts.old_yaml import read_old_names
from splora.scripts.run_row import alone, summary
from splora.training.checkpoint_files import checkpoint_of
from splora.training.columns import RunSpecification
from splora.training.configuration import checkpoints, loggers, plugins
from splora.training.module import PruningModule
from splora.training.run import disk_full_is_told, finish
from splora.training.run_folder import class_name, entries, follow, unify
from splora.training.saving import MODEL

#: A configuration that names callbacks replaces these; SparsitySchedule needs thresholds, so it must be named.
DEFAULT_CALLBACKS = ("WeightCount", "MaskPictures", "RunResult", "RunProgressBar")


class SploraCLI(LightningCLI):
    """Trains a `PruningModule` on a task's data module and leaves the same files behind as a row of the workbook."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        # What is claimed while the configuration is read is held until the command ends.
        with ExitStack() as self._held:
            super().__init__(*args, **kwargs)

    def add_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        """What every run of this program needs, unless the configuration says otherwise."""
        callbacks: list[dict[str, Any]] = [{"class_path": f"splora.callbacks.{name}"} for name in DEFAULT_CALLBACKS]
        parser.set_defaults(
            {
                "trainer.use_distributed_sampler": False,  # the project's own sampler knows all ranks
                "trainer.num_sanity_val_steps": 0,  # a score needs the whole evaluation split
                "trainer.enable_model_summary": False,
                "trainer.callbacks": [*callbacks, checkpoints(RunSpecification.checkpoint_every_n_steps)],
                "trainer.logger": loggers(),
                "trainer.plugins": plugins(),
            }
        )

    def before_instantiate_classes(self) -> None:
        """`fit` goes on where a run of the same settings was interrupted; the others leave the run as it is.

        Raises:
            InputError: the folder belongs to a run with other settings or another process trains there, or no trained
                run is named.
        """
        config = self.config[self.subcommand]
        if self.subcommand != "fit":
            trained_run.prepare(self.subcommand, config)
            config.trainer.default_root_dir = config.trainer.default_root_dir or config.model.trained_run
            follow(config.trainer)
            return
        if config.model.trained_run is not None:
            run = Path(config.model.trained_run)
            raise InputError(
                f"fit: model.trained_run is {cut(str(run))}, a finished run for validate, test and predict; "
                f"to start from what it trained, give model.model_name_or_path {run / MODEL} (merge an adapter first)."
            )
        config.trainer.default_root_dir = str(config.trainer.default_root_dir or DEFAULT_FOLDER)
        folder = Path(config.trainer.default_root_dir)
        for entry in entries(config.trainer.callbacks):
            if class_name(entry) == "RunResult" and "init_args" in entry:
                entry.init_args.run = None  # what another configuration was copied from is not what runs
        moved = unify(config.trainer)
        settings, text = settings_of(config), repeating(config)
        follow(config.trainer)
        finished = is_finished(folder, settings, running=is_first_process() and is_held(folder / RUN_LOCK))
        if not finished:
            self._held.enter_context(alone(folder, "trains here"))
            finished = claim(folder, settings)
        if finished:
            print(f"{folder}: this run is finished; choose another trainer.default_root_dir to run it again.")
            raise SystemExit(0)
        if is_first_process():
            write_text(folder / FIT_CONFIGURATION, text)
            for sentence in moved:
                print(f"notice: {sentence}", file=sys.stderr)
        checkpoint = checkpoint_of(folder) if config.ckpt_path is None else None
        if checkpoint is not None:
            config.ckpt_path = str(checkpoint)

    def instantiate_classes(self) -> None:
        """Make data, module and Trainer.

        Raises:
            InputError: the machine lacks what the Trainer is to use, or a package that a logger or callback needs.
        """
        from lightning.fabric.utilities.exceptions import MisconfigurationException

        try:
            super().instantiate_classes()
        except InputError:
            raise
        except (ValueError, ImportError, AttributeError, TypeError, MisconfigurationException) as error:
            raise InputError(
                f"{self.subcommand}: what was asked for cannot be made ({one_line(str(error))})."
            ) from error

    def fit(self, model: Any, **kwargs: Any) -> None:
        """Train, score, save, and say so; a full disk ends in one sentence."""
        folder = Path(self.trainer.default_root_dir)
        with disk_full_is_told(folder):
            self.trainer.fit(model, **kwargs)
            if self.trainer.interrupted:
                return
            results = finish(self.trainer, self.model, self.datamodule)
        if is_first_process():
            print(f"{folder}: {'; '.join(map(summary, results)) or 'finished, without RunResult nothing was saved'}")

    def after_predict(self) -> None:
        """Say where the predictions are."""
        if is_first_process():
            print(f"{Path(self.trainer.default_root_dir) / trained_run.PREDICTIONS}: predictions are there.")


def run_cli(arguments: list[str]) -> None:
    """Parse and run ``fit``, ``validate``, ``test`` or ``predict``."""
    quiet_libraries()
    read_old_names()
    SploraCLI(
        PruningModule,
        LightningDataModule,
        subclass_mode_data=True,
        save_config_callback=None,
        seed_everything_default=RunSpecification.seed,
        load_from_checkpoint_support=False,  # runs are loaded by load_run
        args=None if arguments == sys.argv[1:] else arguments,
    )
