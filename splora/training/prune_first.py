"""What `prune_first` does: a row's model is pruned without training, then the row trains what is left.

With several budgets the row's training follows each of them: prune to 0.7, heal, prune to 0.5, heal. All but the last
are runs of their own in the row's folder, which a repeated command goes on from.
"""

from __future__ import annotations

import dataclasses
import json
import time
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

from splora.errors import InputError
from splora.export.storage import weight_digest
from splora.files import write_json
from splora.json_values import read_object
from splora.machine import is_first_process
from splora.masks.grid import BlockShape
from splora.run_files import BEFORE, MODEL
from splora.tasks.data_module import TaskDataModule
from splora.training.checkpoint_files import checkpoint_of
from splora.training.options import PruneFirstOptions
from splora.training.specification import RunSpecification

#: Folder of the pruned model, in `BEFORE`.
PRUNED = "pruned"
#: File in the pruned model's folder that says what it was made of; written last.
MADE_OF = "made_of.json"
#: Seconds that other processes wait for the first one to prune.
PATIENCE = 3600
#: Trains a specification in a folder, unless that is done already.
Train = Callable[[RunSpecification, Path], None]


def last_of_budgets(spec: RunSpecification, output_dir: Path, train: Train) -> RunSpecification:
    """The specification with its last budget alone, which starts from what was trained after the one before.

    Args:
        output_dir: the row's folder.
        train: trains after each of the other budgets.
    """
    source = spec.model_name_or_path
    for number, budget in enumerate(spec.budgets[:-1]):
        folder = output_dir / BEFORE / f"{number}-{budget:g}"
        train(dataclasses.replace(spec, model_name_or_path=source, prune_first_budget=f"{budget:g}"), folder)
        source = str(folder / MODEL)
    return dataclasses.replace(spec, model_name_or_path=source, prune_first_budget=f"{spec.budgets[-1]:g}")


def pruned_start(
    name: str,
    options: PruneFirstOptions,
    blocks: tuple[BlockShape, BlockShape],
    data: TaskDataModule,
    folder: Path,
    *,
    each_weight: bool = False,
) -> str:
    """The folder of a model that was pruned before training; it is made now unless it is there.

    One process makes it, the others wait.

    Args:
        name: the model to prune.
        blocks: shapes of blocks in attention and feed-forward weights, for the method that takes those.
        data: whose training examples calibrate.
        folder: of the run.
        each_weight: whether each weight keeps the same fraction of its blocks, because the masks will.

    Raises:
        InputError: it cannot be pruned so.
    """
    pruned = folder / BEFORE / PRUNED
    wanted = {"model": name, **asdict(options), "blocks": blocks, "data": data.settings()}
    wanted |= {"each_weight": each_weight, "weights": weight_digest(name)}
    wanted = json.loads(json.dumps(wanted, default=str))
    if is_first_process():
        if not _is_made(pruned, wanted):
            _refuse_other_weights(pruned, wanted, name, folder)
            _prune(name, options, blocks, data, pruned, each_weight=each_weight)
            write_json(pruned / MADE_OF, wanted)
    else:
        end = time.monotonic() + PATIENCE
        while not _is_made(pruned, wanted):
            if time.monotonic() > end:
                raise InputError(f"{pruned}: the first process has not pruned the model within {PATIENCE} s.")
            time.sleep(0.2)
    return str(pruned)


def _refuse_other_weights(pruned: Path, wanted: dict[str, Any], name: str, folder: Path) -> None:
    """What a run has trained fits the weights that it was begun with, and no others under the same name.

    Raises:
        InputError: the run has a checkpoint, and the model that it was pruned from has changed.
    """
    try:
        before = read_object(pruned / MADE_OF) or {}
    except ValueError:
        return
    if before.get("weights") not in (None, wanted["weights"]) and checkpoint_of(folder) is not None:
        raise InputError(
            f"{folder}: was begun with {name} as it was before its weights changed; --force starts the run anew, or "
            f"choose another --output-dir."
        )


def _is_made(pruned: Path, wanted: dict[str, Any]) -> bool:
    """Whether the model is there, and made of what the run says now: a run may be killed, and its settings changed."""
    try:
        return read_object(pruned / MADE_OF) == wanted
    except ValueError:
        return False


def _prune(
    name: str,
    options: PruneFirstOptions,
    blocks: tuple[BlockShape, BlockShape],
    data: TaskDataModule,
    folder: Path,
    *,
    each_weight: bool = False,
) -> None:
    from splora.checkpoints.checkpoint import load_checkpoint
    from splora.export.folder import save_pruned
    from splora.posttraining.core.budget import Budget, Costs
    from splora.posttraining.core.calibration import draw
    from splora.posttraining.core.compute import find_device
    from splora.posttraining.core.method import find_method
    from splora.posttraining.core.precision import Precision
    from splora.posttraining.core.pruning import Pruning, check_samples

    method = find_method(options.method)
    what = "the dense model's MACs" if method.is_command else "its blocks"
    print(f"pruning {name} to {options.budget:g} of {what} ({options.method})", flush=True)
    model = load_checkpoint(name, data.task).to(find_device("auto"))
    pruning = Pruning(
        model,
        draw(data, options.samples),
        Costs.of(model, data.mean_tokens),
        Budget("mac" if method.is_command else "blocks", options.budget),
        Precision.parse("auto"),
        data.seed,
    )
    check_samples(model, pruning.examples)
    if method.is_command and options.budget >= pruning.present:
        raise InputError(
            f"prune_first_budget is {options.budget:g}, and {name} keeps {pruning.present:.3f} of its dense model's "
            f"MACs already; give less than that."
        )
    folder.parent.mkdir(parents=True, exist_ok=True)
    *_, last = method.stages(pruning, method.row_options(blocks=blocks, each_weight=each_weight))
    save_pruned(last.model, data.tokenizer, folder)
