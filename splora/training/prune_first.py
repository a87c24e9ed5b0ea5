"""What `prune_first` does: a row's model is pruned without training, then the row trains what is left.

With several budgets the row's training follows each of them: prune to 0.7, heal, prune to 0.5, heal. All but the last
are runs of their own in the row's folder, which a repeated command goes on from.
"""

from __future__ import annotations

import dataclasses
import json
import time
from collections import deque
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
from splora.posttraining.core.budget import Budget
from splora.posttraining.core.request import PruneRequest
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
    from splora.export.plan import Plan
    from splora.posttraining.blocks.method import prune_blocks
    from splora.posttraining.core.budget import Costs
    from splora.posttraining.core.calibration import draw
    from splora.posttraining.core.compute import find_device
    from splora.posttraining.core.layer_grams import arguments_of
    from splora.posttraining.core.precision import Precision
    from splora.posttraining.core.stages import silent
    from splora.posttraining.core.subject import Subject
    from splora.posttraining.pipeline import check_samples, dense_macs, run_method

    what = "its blocks" if options.method == "blocks" else "the dense model's MACs"
    print(f"pruning {name} to {options.budget:g} of {what} ({options.method})", flush=True)
    model = load_checkpoint(name, data.task).to(find_device("auto"))
    tokens = data.mean_tokens
    calibration, precision = draw(data, options.samples), Precision.parse("auto")
    subject = Subject(model, data, calibration, precision, Costs.of(model, tokens), tokens)
    check_samples(subject)
    kept = subject.costs.of_plan(Plan.dense(model)) / dense_macs(subject)
    if options.method != "blocks" and options.budget >= kept:
        raise InputError(
            f"prune_first_budget is {options.budget:g}, and {name} keeps {kept:.3f} of its dense model's MACs already; "
            f"give less than that."
        )
    folder.parent.mkdir(parents=True, exist_ok=True)
    if options.method == "blocks":
        batches = arguments_of(list(calibration))
        done = prune_blocks(
            model, batches, blocks, options.budget, each_weight=each_weight, precision=precision, seed=data.seed
        )
        save_pruned(done, data.tokenizer, folder)
        return
    request = PruneRequest(
        method=options.method,
        model=name,
        task=data.task,
        data=None,
        budget=Budget("mac", options.budget),
        output=folder,
        samples=options.samples,
        seed=data.seed,
    )
    stages = deque(run_method(subject, request, None, silent), maxlen=1)
    save_pruned(stages[0].model, data.tokenizer, folder)
