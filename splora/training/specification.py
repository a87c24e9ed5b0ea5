"""What a run's specification may be: every problem that shows without opening model or data, a sentence each.

The value itself, with its columns and their vocabulary, is that of `columns`; both are imported from here. Imports
neither torch nor lightning.
"""

from __future__ import annotations

import math
from typing import Any

from splora.errors import cut, nearest
from splora.masks import criteria
from splora.masks.criteria import UNITS
from splora.tasks.registry import REGISTRY, WINDOWED
from splora.tasks.registry import TRAINED as TASKS
from splora.training import logger_choice
from splora.training.columns import (
    ADAPTERS,
    DIVERGENCE,
    FIELDS,
    LARGEST,
    METHOD_ALIASES,
    METHODS,
    PRECISIONS,
    PRUNERS,
    Problem,
    RunSpecification,
    methods_named,
)
from splora.training.contradictions import contradictions, parsed_weights

__all__ = [
    "ADAPTERS",
    "DIVERGENCE",
    "FIELDS",
    "LARGEST",
    "METHODS",
    "METHOD_ALIASES",
    "PRECISIONS",
    "PRUNERS",
    "TASKS",
    "UNITS",
    "Problem",
    "RunSpecification",
    "check",
    "check_settings",
    "methods_named",
    "parsed_weights",
    "published_steps",
    "scale_steps",
]


#: Fields that the number of steps and the warm-ups are computed from.
_SCHEDULE = (
    *("warmup_steps", "initial_warmup", "final_warmup", "schedule_total_steps", "max_steps", "num_train_epochs"),
    *("per_gpu_train_batch_size", "gradient_accumulation_steps", "max_train_examples"),
)


def check(spec: RunSpecification, total_steps: int | None = None) -> list[Problem]:
    """All problems of one run that show without opening model or data.

    Args:
        total_steps: optimizer steps of the run where they are known; otherwise estimated from the
            published size of the task's training set when no `train_file` is named.
    """
    problems = check_settings(spec)
    if not any(problem.field in _SCHEDULE for problem in problems):
        problems += _check_schedule(spec, total_steps or spec.schedule_total_steps or published_steps(spec))
    return problems


def check_settings(spec: RunSpecification) -> list[Problem]:
    """Problems of the columns themselves and with each other, whatever the length of the run."""
    problems = [problem for name in FIELDS for problem in _check_limits(name, getattr(spec, name))]
    if spec.adapter == "splora" and spec.splora_rank > 1 and spec.splora_rank % 1:
        told = f"is {spec.splora_rank}; a whole number, or a fraction of out_features below 1"
        problems.append(Problem("splora_rank", told))
    if spec.adapter == "lora" and spec.pruning_method != "none":
        told = f"is lora, whose layers have no masks, but pruning_method is {spec.pruning_method}; splopa and splora do"
        problems.append(Problem("adapter", told))
    if spec.regularization != "none" and spec.final_threshold == 0:
        problems.append(Problem("final_threshold", "is 0, but λ is scheduled as final_lambda · v / final_threshold"))
    if spec.max_steps is None and spec.num_train_epochs > 1 and spec.num_train_epochs % 1:
        told = f"is {spec.num_train_epochs}; whole epochs or a fraction below 1 are possible, or set max_steps"
        problems.append(Problem("num_train_epochs", told))
    if spec.task in WINDOWED and spec.doc_stride >= spec.max_seq_length:
        problems.append(
            Problem("doc_stride", f"is {spec.doc_stride}; it must be less than max_seq_length {spec.max_seq_length}")
        )
    problems += contradictions(spec)
    if (unusable := logger_choice.problem(spec.logger)) is not None:
        problems.append(Problem("logger", unusable))
    return problems


def published_steps(spec: RunSpecification) -> int | None:
    """Steps on the task's published training set, or None where the row names other data."""
    if spec.max_steps is not None:
        return spec.max_steps
    examples = REGISTRY[spec.task].examples if spec.task in REGISTRY else None
    if spec.train_file is not None or examples is None:
        return None
    batch = spec.per_gpu_train_batch_size * spec.gradient_accumulation_steps
    return math.ceil(min(examples, spec.max_train_examples or examples) / batch * spec.num_train_epochs)


def scale_steps(steps: int, schedule_total_steps: int | None, total_steps: int) -> int:
    """Steps chosen for a run of `schedule_total_steps` (None: for this one), in a run of `total_steps` steps."""
    return steps if schedule_total_steps is None else round(steps * total_steps / schedule_total_steps)


def _check_schedule(spec: RunSpecification, total_steps: int | None) -> list[Problem]:
    warmup = spec.warmup_steps
    if total_steps is not None:
        warmup = scale_steps(spec.warmup_steps, spec.schedule_total_steps, total_steps)
    if spec.pruning_method != "none" and not spec.final_warmup * warmup:
        told = (
            f"but evaluations count from where the threshold is final, and it is so for final_warmup · warmup_steps = "
            f"{spec.final_warmup:g} · {warmup} steps"
        )
        judges = [name for name in ("early_stopping", "best_checkpoint") if getattr(spec, name)]
        if judges:
            return [Problem(name, f"is {getattr(spec, name)}, {told}") for name in judges]
        if spec.pruning_units == "hybrid_filled":
            told = (
                f"but heads are filled when the threshold is final, and it is so for final_warmup · warmup_steps = "
                f"{spec.final_warmup:g} · {warmup} steps: nothing would train what was filled"
            )
            return [Problem("pruning_units", f"is hybrid_filled, {told}")]
    if total_steps is None:
        return []
    asked = max(1.0, (spec.initial_warmup + spec.final_warmup) if spec.pruning_method != "none" else 1.0) * warmup
    if asked <= total_steps:
        return []
    return [
        Problem(
            "warmup_steps",
            f"is {spec.warmup_steps}: the warm-ups take {asked:,.0f} steps, longer than the run's {total_steps:,} "
            f"steps; lower warmup_steps, train longer, or set schedule_total_steps to scale it",
        )
    ]


def _check_limits(name: str, value: Any) -> list[Problem]:
    limits = FIELDS[name].metadata
    if value is None:
        return []
    choices = limits.get("choices")
    if choices and value not in choices:
        hint = nearest(value, choices, criteria.aliases() if choices is METHODS else {})
        return [Problem(name, f"is {cut(value)}; allowed are {', '.join(choices)}{hint}")]
    if isinstance(value, float) and not math.isfinite(value):
        return [Problem(name, f"is {value}; a finite number is needed")]
    if isinstance(value, int) and "maximum" not in limits and value > LARGEST:
        return [Problem(name, f"is {cut(value)}; at most {LARGEST:,} is allowed")]
    if "minimum" in limits and value < limits["minimum"]:
        return [Problem(name, f"is {value}; at least {limits['minimum']} is needed")]
    if "maximum" in limits and value > limits["maximum"]:
        return [Problem(name, f"is {value}; at most {limits['maximum']} is allowed")]
    if "above" in limits and value <= limits["above"]:
        return [Problem(name, f"is {value}; more than {limits['above']} is needed")]
    return []
