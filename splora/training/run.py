"""One run from a run specification: build, resume, train, score, save."""

from __future__ import annotations

import importlib
import json
import os
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

from splora.errors import DiskFull, InputError
from splora.files import inside, is_full, refuse_link, remove_leftovers, write_json, write_text
from splora.json_values import one_line, read_object
from splora.locks import RUN_LOCK
from splora.machine import is_first_process
from splora.run_files import CONFIGURATION, FILES, FOLDERS, LOG, STATE
from splora.run_files import RESULT as RESULT
from splora.run_files import SPECIFICATION as SPECIFICATION
from splora.training.checkpoint_files import checkpoint_of, is_begun
from splora.training.configuration import identity, lightning_config
from splora.training.options import model_arguments
from splora.training.result_file import read_result
from splora.training.run_folder import class_name, follow
from splora.training.specification import FIELDS, RunSpecification


def claim_folder(spec: RunSpecification, output_dir: Path, force: bool = False) -> bool:
    """Make `output_dir` the folder of this run; returns whether the run is finished already.

    Only the first process of a run writes; the others see what it decided.

    Args:
        force: throw away what an earlier run left there.

    Raises:
        InputError: the folder belongs to another specification (the settings that differ are named), or is not
            empty and no run's: neither is ever cleared without or with `force`, except a run's by `force`. Or its
            result is damaged, or it is or holds a link to elsewhere, which only `force` removes.
    """
    import yaml

    finished = is_finished(spec, output_dir, force)
    if finished or not is_first_process():
        return finished
    if force:
        _clear(output_dir)
    # In the folder itself another command may just be writing: only what this run writes there is its own.
    remove_leftovers(output_dir, (*FOLDERS, *FILES, *_artifacts(output_dir)))
    for part in FOLDERS:
        for folder, _, _ in os.walk(output_dir / part):
            remove_leftovers(Path(folder))
    write_json(output_dir / SPECIFICATION, _plain(spec))
    several = "# The last of several trainings (prune_first_budget): the sheet's command repeats all of them.\n"
    text = yaml.safe_dump(lightning_config(spec, str(output_dir)), sort_keys=False)
    write_text(output_dir / CONFIGURATION, several * (len(spec.budgets) > 1) + text)
    return False


def is_finished(spec: RunSpecification, output_dir: Path, force: bool = False) -> bool:
    """Whether `output_dir` holds the finished run; nothing is written.

    Raises:
        InputError: see `claim_folder`.
    """
    if not is_first_process():
        # The first process may just be clearing the folder.
        return not force and (output_dir / RESULT).is_file()
    try:
        return _is_finished(spec, output_dir, force)
    except OSError as error:  # not to be looked into, or a name that is too long
        raise InputError(f"{one_line(str(output_dir))}: cannot be used ({error.strerror or error}).") from error


def _is_finished(spec: RunSpecification, output_dir: Path, force: bool) -> bool:
    path = output_dir / SPECIFICATION
    refuse_link(output_dir)
    if output_dir.exists() and not output_dir.is_dir():
        raise InputError(f"{output_dir}: is a file; choose another --output-dir.")
    if not path.is_file() and output_dir.is_dir() and any(not _is_ours(entry) for entry in output_dir.iterdir()):
        raise InputError(
            f"{output_dir}: is not empty and holds no run ({SPECIFICATION} is missing); choose another --output-dir."
        )
    if not force:
        refuse_foreign(output_dir)
    if force or not path.is_file():
        return False
    if is_begun(output_dir) or (output_dir / RESULT).is_file():
        _refuse_another(_read_specification(path), _plain(spec), output_dir)
    if not (output_dir / RESULT).is_file():
        return False
    try:
        read_result(output_dir)
    except InputError as error:
        remedy = "remove this file and the run goes on from its last checkpoint, or --force to start it anew."
        raise InputError(f"{problem.rstrip('.')}; {remedy}" for problem in error.problems) from error
    return True


def refuse_foreign(output_dir: Path) -> None:
    """Refuse a folder, as somebody else may have packed it, in which a run would write elsewhere or could not write.

    Raises:
        InputError: names what is in the way.
    """
    for name in (*FILES, RUN_LOCK):
        _refuse_leading_out(output_dir / name, output_dir)
        if (output_dir / name).is_dir():
            raise InputError(f"{output_dir / name}: is a folder where a run has a file; choose another --output-dir.")
    for name in FOLDERS:
        part = output_dir / name
        _refuse_leading_out(part, output_dir)
        if part.exists() and not part.is_dir():
            raise InputError(f"{part}: is a file where a run has a folder; remove it, or --force to start anew.")
        for folder, folders, files in os.walk(part):
            for inner in (*folders, *files):
                _refuse_leading_out(Path(folder) / inner, output_dir)


def _refuse_leading_out(path: Path, output_dir: Path) -> None:
    if not path.is_symlink():
        return
    try:
        leads_out = not path.resolve().is_relative_to(output_dir.resolve())
    except (OSError, RuntimeError):  # links that lead to each other
        leads_out = True
    if leads_out:
        raise InputError(
            f"{path}: is a link to {path.readlink()}, and a run writes to nothing outside of its folder; remove the "
            "link, or choose another --output-dir."
        )


def _plain(spec: RunSpecification) -> dict[str, Any]:
    return dict(json.loads(json.dumps(asdict(spec))))


def _is_ours(entry: Path) -> bool:
    """Whether a run puts such a file into its folder before its specification: locks, logs, what a kill cut short."""
    return entry.name in (STATE, LOG) or (entry.name.startswith(".") and entry.suffix in (".lock", ".tmp"))


def _refuse_another(found: dict[str, Any], known: dict[str, Any], output_dir: Path) -> None:
    """What a row is called and what others reported of it changes nothing of its run."""
    relevant = [name for name in known if name not in ("model", "logger") and not name.startswith("reported_")]
    # What an adapter is made of is no matter where there is none of its kind.
    for kind in ("splopa", "splora"):
        if known["adapter"] != kind:
            relevant = [name for name in relevant if kind not in name]
    differing = sorted(name for name in relevant if found.get(name, FIELDS[name].default) != known[name])
    if differing:
        there = {name: one_line(repr(found.get(name)), 80) for name in differing}
        told = ", ".join(f"{name} {there[name]} there, {known[name]!r} here" for name in differing[:4])
        more = f" and {len(differing) - 4} more" if len(differing) > 4 else ""
        raise InputError(
            f"{output_dir}: belongs to a run with other settings ({told}{more}); "
            "choose another --output-dir, or --force to start it anew."
        )


def run(
    spec: RunSpecification,
    output_dir: Path,
    *,
    force: bool = False,
    trainer: dict[str, Any] | None = None,
    callbacks: Sequence[Any] = (),
) -> None:
    """Train, prune, score and save one run; go on from its last checkpoint if it was interrupted.

    Args:
        trainer: settings of the machine that are no part of the specification (devices, strategy, accelerator).
        callbacks: Lightning callbacks that observe the run, besides those of its specification.

    Raises:
        InputError: something the user gave cannot be; `DiskFull` where only space is missing.
    """
    if claim_folder(spec, output_dir, force):
        return
    from lightning import seed_everything

    if len(spec.budgets) > 1:
        from splora.training.prune_first import last_of_budgets

        def train(each: RunSpecification, folder: Path) -> None:
            run(each, folder, trainer=trainer, callbacks=callbacks)

        spec = last_of_budgets(spec, output_dir, train)
    config = lightning_config(spec, str(output_dir))
    config["trainer"].update(trainer or {})
    follow(config["trainer"])
    for entry in config["trainer"]["callbacks"]:
        if class_name(entry) == "RunResult":
            entry["init_args"]["run"] = identity(spec)
    seed_everything(config["seed_everything"], verbose=False)
    from splora.training.threads import threads_put_back

    with disk_full_is_told(output_dir), threads_put_back():
        _fit(config, output_dir, callbacks)


@contextmanager
def disk_full_is_told(output_dir: Path) -> Iterator[None]:
    """Turn a full disk, wherever a library meets it, into one sentence.

    Raises:
        DiskFull: the disk is full.
    """
    try:
        yield
    except OSError as error:
        if not is_full(error):
            raise
        raise DiskFull(
            f"{output_dir}: the disk is full; free some space and give the same command again, "
            "it goes on from the last checkpoint."
        ) from error


def _fit(config: dict[str, Any], output_dir: Path, callbacks: Sequence[Any]) -> None:
    from lightning import Trainer
    from lightning.pytorch.utilities.exceptions import MisconfigurationException

    from splora.training.module import PruningModule

    module = PruningModule(**model_arguments(config["model"]))
    data = instantiate(config["data"])
    settings = dict(config["trainer"])
    for kind in ("logger", "callbacks", "plugins"):
        settings[kind] = [_made(item) for item in settings[kind]]
    settings["callbacks"] += callbacks
    try:
        trainer = Trainer(**settings)
    except (ValueError, MisconfigurationException) as error:
        machine = ", ".join(f"{name} {settings[name]!r}" for name in ("accelerator", "devices", "precision"))
        raise InputError(
            f"The Trainer cannot be made with {machine}, strategy {settings.get('strategy', 'auto')!r}: {error}"
        ) from error
    checkpoint = checkpoint_of(output_dir)
    trainer.fit(module, datamodule=data, ckpt_path=None if checkpoint is None else str(checkpoint))
    finish(trainer, module, data)
    for logger in trainer.loggers:
        if type(logger).__name__ == "WandbLogger" and is_first_process():
            logger.experiment.finish()  # the next row of this process is another run


def _made(item: dict[str, Any]) -> Any:
    """A logger, callback or plugin; what it lacks to be made is the user's to install or to set."""
    try:
        return instantiate(item)
    except (ImportError, AttributeError, TypeError) as error:
        raise InputError(f"{item['class_path']} cannot be made: {' '.join(str(error).split())}") from error


def finish(trainer: Any, module: Any, data: Any) -> list[dict[str, Any]]:
    """Score the trained weights unless training ended with a score of them, write the result and return it."""
    from lightning import Callback

    results = []
    restored = [callback.restore(trainer, module) for callback in trainer.callbacks if hasattr(callback, "restore")]
    if any(restored):
        # The curves have this score already, at its own step.
        loggers, trainer.loggers = trainer.loggers, []
        trainer.validate(module, datamodule=data, verbose=False)
        trainer.loggers = loggers
    for callback in trainer.callbacks:
        if isinstance(callback, Callback) and hasattr(callback, "is_scored") and hasattr(callback, "write"):
            if not callback.is_scored(trainer):
                trainer.validate(module, datamodule=data, verbose=False)
            results.append(callback.write(trainer, module))
    return results


def instantiate(item: dict[str, Any]) -> Any:
    """The object of a ``{class_path, init_args}`` entry of a Lightning configuration."""
    module, _, name = item["class_path"].rpartition(".")
    return getattr(importlib.import_module(module), name)(**item.get("init_args", {}))


def _read_specification(path: Path) -> dict[str, Any]:
    try:
        return read_object(path) or {}
    except ValueError as error:
        raise InputError(f"{path}: {error}; choose another --output-dir, or --force.") from error


def _clear(output_dir: Path) -> None:
    """Remove what a run writes, and only that: a folder given by mistake must not be emptied.

    A link is removed itself; what it leads to stays.

    Raises:
        InputError: something cannot be removed.
    """
    requeued = [path.name for path in output_dir.glob("hpc_ckpt_*.ckpt")]  # Lightning's, when SLURM's time was up
    artifacts = _artifacts(output_dir)
    try:
        for name in FOLDERS:
            if (output_dir / name).is_dir() and not (output_dir / name).is_symlink():
                shutil.rmtree(output_dir / name)
            else:
                (output_dir / name).unlink(missing_ok=True)
        for name in (*FILES, *requeued, *artifacts):
            (output_dir / name).unlink(missing_ok=True)
    except OSError as error:
        raise InputError(f"{error.filename}: cannot be removed ({error.strerror or error}).") from error


def _artifacts(output_dir: Path) -> list[str]:
    """Files that the result names as its own; nothing where the run did not get that far, or left what is none.

    Whoever wrote the result may have named anything: only JSON files of the folder itself are what a run writes.
    """
    try:
        names = (read_object(output_dir / RESULT) or {}).get("artifacts")
    except ValueError:
        return []
    return [
        name
        for name in (names if isinstance(names, list) else [])
        if isinstance(name, str) and name.endswith(".json") and inside(output_dir, name) == output_dir / Path(name).name
    ]
