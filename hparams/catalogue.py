"""The rows of the project's own workbook: published runs from `published.csv`, and the project's own."""

from __future__ import annotations

import csv
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from splora.hparams.cells import from_text
from splora.hparams.original import steps
from splora.hparams.recipes import DENSE, RECIPES, recipes
from splora.run_files import REFERENCE
from splora.training.specification import FIELDS, RunSpecification

#: The published rows, with the scores reported for them.
PUBLISHED = Path(__file__).with_name("published.csv")
#: The first EXP ID of each sheet; the gaps leave room for rows of the project's own.
FIRST = {"Demo": 1, "SQuAD": 11, "MNLI": 101, "QQP": 201}
_TASKS = {"squad": "SQuAD", "mnli": "MNLI", "qqp": "QQP"}

#: Rows that start in seconds on the embedded corpus: EXP ID, what the row shows, and what differs from `_DEMO`.
_DEMO: dict[str, Any] = {
    "task": "squad",
    "model_name_or_path": "run:1",
    "train_file": "embedded",
    "predict_file": "embedded",
    "max_seq_length": 128,
    "doc_stride": 32,
    "per_gpu_train_batch_size": 16,
    "num_train_epochs": 4.0,
    "warmup_steps": 100,
    "schedule_total_steps": 1000,
    "learning_rate": 1e-3,
}
_SCORES: dict[str, Any] = {"mask_scores_learning_rate": 1e-2, "final_warmup": 2.0}
_DEMO_SPLOPA: dict[str, Any] = {
    "adapter": "splopa",
    "num_splopa_prototypes": 16,
    "splopa_prototype_rank": 2,
    "splopa_init_range": 2e-2,
    "position_weights_learning_rate": 2e-3,
}
_DISTILLED: dict[str, Any] = {"teacher_type": "bert", "teacher_name_or_path": "run:1"}
_TOPK: dict[str, Any] = {**_SCORES, "pruning_method": "topK", "final_threshold": 0.5}
_MAGNITUDE: dict[str, Any] = {"pruning_method": "magnitude", "final_threshold": 0.5, "final_warmup": 2.0}
_SOFT: dict[str, Any] = {
    **_SCORES,
    "pruning_method": "sigmoied_threshold",
    "initial_threshold": 0.0,
    "final_threshold": 0.1,
    "regularization": "l1",
    "final_lambda": 50.0,
}
_L0: dict[str, Any] = {
    "pruning_method": "l0",
    "mask_scores_learning_rate": 1e-1,
    "mask_scale": 2.197,
    "regularization": "l0",
    "final_lambda": 10.0,
}
_CUT: dict[str, Any] = {
    **_TOPK,
    "pruning_method": "topK_global",
    "pruning_units": "heads_and_neurons",
    "mask_init": "fisher",
    "mask_scale": 0.5,
    "alpha_hidden": 1.0,
}
DEMO: Sequence[tuple[int, str, Mapping[str, Any]]] = (
    (1, "Dense, from scratch", {"model_name_or_path": "embedded"}),
    (2, "Movement, SPLoPA", {**_TOPK, **_DEMO_SPLOPA, **_DISTILLED}),
    (3, "Movement, plain", {**_TOPK, **_DISTILLED}),
    (4, "Magnitude, SPLoPA", {**_MAGNITUDE, **_DEMO_SPLOPA, **_DISTILLED}),
    (5, "Magnitude, plain", {**_MAGNITUDE, **_DISTILLED}),
    (6, "Soft movement, SPLoPA", {**_SOFT, **_DEMO_SPLOPA, **_DISTILLED}),
    (7, "Soft movement, plain", {**_SOFT, **_DISTILLED}),
    (8, "L0, SPLoPA", {**_L0, **_DEMO_SPLOPA, **_DISTILLED}),
    (9, "L0, plain", {**_L0, **_DISTILLED}),
    (10, "Global movement, SPLoPA", {**_TOPK, "pruning_method": "topK_global", **_DEMO_SPLOPA, **_DISTILLED}),
    (100, "Heads and neurons, SPLoPA: half the MACs, cut out", {**_CUT, **_DEMO_SPLOPA, **_DISTILLED}),
)

#: The project's own rows at the end of the SQuAD sheet. They start from the dense row's model, which also teaches.
_PRUNED: dict[str, Any] = {
    **DENSE,
    "model_name_or_path": "run:63",
    "teacher_type": "bert",
    "teacher_name_or_path": "run:63",
    "alpha_ce": 0.1,
    "alpha_distil": 0.9,
    "initial_warmup": 0.5,
    "final_warmup": 3.0,
}
_PLAIN: dict[str, Any] = {"learning_rate": 2e-4}
_SPLOPA: dict[str, Any] = {
    "adapter": "splopa",
    "num_splopa_prototypes": 64,
    "splopa_prototype_rank": 2,
    "splopa_init_range": 2e-2,
    "learning_rate": 5e-4,
    "adapter_learning_rate": 1e-3,
    "position_weights_learning_rate": 2e-3,
}
_OWN_METHODS: dict[str, tuple[str, dict[str, Any]]] = {
    "magnitude": ("Magnitude", {"pruning_method": "magnitude"}),
    "topK": ("Movement", {"pruning_method": "topK", "mask_scores_learning_rate": 1e-2}),
    "soft": (
        "Soft movement",
        {
            "pruning_method": "sigmoied_threshold",
            "mask_scores_learning_rate": 5e-2,
            "initial_threshold": 0.0,
            "final_threshold": 0.1,
            "regularization": "l1",
        },
    ),
    "l0": (
        "L0",
        {"pruning_method": "l0", "mask_scores_learning_rate": 5e-2, "mask_scale": 2.197, "regularization": "l0"},
    ),
}
#: What makes about 50 % and about 30 %: final_threshold, or final_lambda for the methods that learn their density.
_DENSITIES: dict[str, tuple[str, float, float]] = {
    "magnitude": ("final_threshold", 0.5, 0.3),
    "topK": ("final_threshold", 0.5, 0.3),
    # Measured with SPLoPA, 500 steps of 8 on a 6-layer encoder: λ 80 and 200 left 54.7 and 34.8 % (soft movement), 58.4
    # and 26.6 % (L0). A longer run leaves less at the same λ.
    "soft": ("final_lambda", 100.0, 260.0),
    "l0": ("final_lambda", 100.0, 180.0),
}


def _own_squad() -> Iterator[tuple[int, str, Mapping[str, Any]]]:
    yield 63, "Dense", DENSE
    exp_id = 64
    for method, (name, settings) in _OWN_METHODS.items():
        field, *values = _DENSITIES[method]
        for density, value in zip((50, 30), values, strict=True):
            for kind, adapter in (("SPLoPA", _SPLOPA), ("plain", _PLAIN)):
                yield exp_id, f"{name}, {kind}, about {density} %", {**_PRUNED, **settings, **adapter, field: value}
                exp_id += 1


def catalogue() -> dict[str, list[tuple[RunSpecification, str]]]:
    """By sheet, each row's specification and where it comes from."""
    sheets: dict[str, list[tuple[RunSpecification, str]]] = {"Demo": [_own("Demo", _DEMO, *row) for row in DEMO]}
    for task, sheet in _TASKS.items():
        sheets[sheet] = _published(task, sheet)
    sheets["SQuAD"] += [_own("SQuAD", {}, *row) for row in _own_squad()]
    sheets[RECIPES] = list(recipes())
    return sheets


def _own(sheet: str, base: Mapping[str, Any], exp_id: int, shows: str, settings: Mapping[str, Any]) -> Any:
    return RunSpecification(exp_id=exp_id, sheet=sheet, model=shows, **{**base, **settings}), "this project"


def _published(task: str, sheet: str) -> list[tuple[RunSpecification, str]]:
    with PUBLISHED.open(encoding="utf-8", newline="") as file:
        lines = [line for line in csv.DictReader(file) if line["task"] == task]
    rows = []
    dense: dict[str, int] = {}
    for exp_id, line in enumerate(lines, start=FIRST[sheet]):
        values = {name: from_text(name, text) for name, text in line.items() if name in FIELDS and text}
        if line["block_side"]:
            sides = ("attention_block_rows", "attention_block_cols", "ffn_block_rows", "ffn_block_cols")
            values |= dict.fromkeys(sides, int(line["block_side"]))
        spec = replace(RunSpecification(), exp_id=exp_id, sheet=sheet, **values)
        if spec.pruning_method == "none":
            dense[spec.model] = exp_id
        if spec.teacher_name_or_path in dense:  # the published teachers are the sheets' own dense rows
            spec = replace(spec, teacher_name_or_path=f"{REFERENCE}{dense[spec.teacher_name_or_path]}")
        rows.append((replace(spec, model=_shows(spec), schedule_total_steps=steps(spec)), line["source"]))
    return rows


def _shows(spec: RunSpecification) -> str:
    scored = (spec.reported_exact_match, spec.reported_f1, spec.reported_accuracy)
    density = f", {spec.reported_density:.1f} %" if spec.reported_density is not None else ""
    return f"{spec.model}{density}{' (planned)' if scored == (None, None, None) else ''}"
