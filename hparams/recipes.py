"""Recipes: from each task's dense row to small, fast models, with what was measured where somebody ran them.

Per task and for 50, 30 and 20 % of the MACs: STAT, then healing (all weights, SPLoPA, LoRA); heads and neurons chosen
while training, and hybrid masks, filled at the end.
"""

from __future__ import annotations

import csv
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from splora.run_files import REFERENCE
from splora.tasks.registry import WINDOWED
from splora.training.healing_defaults import COMMON, RATES, SENTENCES
from splora.training.specification import RunSpecification

RECIPES = "Recipes"
#: What came out where recipes were run: EXP ID, metric, score, seed, steps, and on what.
MEASURED = Path(__file__).with_name("measured.csv")
PERCENTS = (50, 30, 20)

#: A dense model to start from and to learn from.
DENSE: dict[str, Any] = {
    "precision": "auto",
    "dropout": 0.0,
    "num_train_epochs": 2.0,
    "learning_rate": 1.5e-4,
    "warmup_steps": 100,
    "schedule_total_steps": 1000,
    "checkpoint_every_n_steps": 100,
}
#: Sentences are short: more of them make a batch, and the published length holds them.
_SENTENCES: dict[str, Any] = {**SENTENCES, "max_seq_length": 128}
_ADAPTERS: dict[str, str] = {"none": "all weights", "splopa": "SPLoPA", "lora": "LoRA"}
#: Masks of units, whose scores start as STAT ranks heads and neurons and move little, and are final early. On held-out
#: articles, at 30 % of the MACs and 500 steps: 84.8 F1; with mask_scores_learning_rate 1e-3 and final_warmup 3 81.8.
_UNITS: dict[str, Any] = {
    # All examples train, and the last state is served.
    **{"held_out": 0, "best_checkpoint": False, "evaluate_every_n_steps": None, "judged_by": "score"},
    "pruning_method": "topK_global",
    "mask_scores_learning_rate": 1e-4,
    "mask_init": "stat",
    "mask_scale": 0.5,
    "initial_warmup": 0.5,
    "final_warmup": 6.0,
}


@dataclass(frozen=True)
class _Task:
    """Where a task's rows are, and which dense row they start from.

    Attributes:
        name: the task's.
        first: EXP ID of the first recipe.
        dense: EXP ID of the dense row; `own` where it stands among the recipes.
    """

    name: str
    first: int
    dense: int

    @property
    def own(self) -> bool:
        """Whether the dense row is one of the recipes' sheet."""
        return self.dense == self.first - 1


TASKS = (
    _Task("squad", 80, 63),
    _Task("sst2", 301, 300),
    _Task("qnli", 321, 320),
    _Task("mnli", 341, 340),
    _Task("qqp", 361, 360),
)


def recipes() -> Iterator[tuple[RunSpecification, str]]:
    """Rows of the sheet `Recipes` and where they come from."""
    measured = _measured()
    for task in TASKS:
        shape = {} if task.name in WINDOWED else _SENTENCES
        if task.own:
            yield _row(task.dense, "Dense", {**shape, **DENSE, "task": task.name}), "this project"
        start = {"task": task.name, "model_name_or_path": f"{REFERENCE}{task.dense}", "teacher_type": "bert"}
        base = {**COMMON, **shape, **start, "precision": "auto", "teacher_name_or_path": f"{REFERENCE}{task.dense}"}
        for number, (shows, settings) in enumerate(_ways()):
            spec = _row(task.first + number, shows, {**base, "num_train_epochs": 1.0, **settings})
            scores, source = measured.pop(spec.exp_id, ({}, "this project"))
            yield replace(spec, **scores), source
    assert not measured, f"{MEASURED.name} has scores of rows that are none: {', '.join(map(str, measured))}"


def _ways() -> Iterator[tuple[str, Mapping[str, Any]]]:
    """What a recipe shows, and its settings; the order is that of EXP IDs, to which new ones are appended."""
    for percent in PERCENTS:
        first = {"prune_first": "stat", "prune_first_budget": f"{percent / 100:g}"}
        for adapter, named in _ADAPTERS.items():
            shows = f"STAT to {percent} % of the MACs, then healed: {named}"
            yield shows, {**RATES[adapter], **first, "adapter": adapter}
    for percent in (50, 30):
        for kind in ("none", "splopa", "filled"):
            yield _masked(kind, percent)
    steps = {"prune_first": "stat", "prune_first_budget": "0.7,0.5,0.3", "adapter": "splopa"}
    yield "STAT to 70, 50 and 30 % of the MACs, healed after each: SPLoPA", {**RATES["splopa"], **steps}
    for kind in ("none", "splopa", "filled"):
        yield _masked(kind, 20)


def _masked(kind: str, percent: int) -> tuple[str, Mapping[str, Any]]:
    """A row that learns what to keep: `none` and `splopa` by adapter, or `filled`."""
    settings = {**_UNITS, "final_threshold": percent / 100}
    if kind == "filled":
        shows = f"Movement, hybrid filled, all weights, {percent} %"
        return shows, {**settings, **RATES["none"], "pruning_units": "hybrid_filled"}
    whole = {"adapter": kind, "pruning_units": "heads_and_neurons", "threshold_of": "macs"}
    return f"Heads and neurons, {_ADAPTERS[kind]}, {percent} % of the MACs", {**settings, **RATES[kind], **whole}


def _row(exp_id: int, shows: str, settings: Mapping[str, Any]) -> RunSpecification:
    return RunSpecification(exp_id=exp_id, sheet=RECIPES, model=shows, **settings)


def _measured() -> dict[int | str, tuple[dict[str, Any], str]]:
    """By EXP ID, the score that was measured with a row, as its column, and how."""
    found: dict[int | str, tuple[dict[str, Any], str]] = {}
    with MEASURED.open(encoding="utf-8", newline="") as file:
        for line in csv.DictReader(file):
            told = f"this project; measured on {line['on']}, {line['steps']} steps, seed {line['seed']}"
            found[int(line["exp_id"])] = {f"reported_{line['metric']}": float(line["score"])}, told
    return found
