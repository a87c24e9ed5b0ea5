"""Rows that build on other rows (``run:ID``): where a chain of them begins, and what cannot be built on what."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from splora.posttraining.core.method import commands
from splora.run_files import REFERENCE as REFERENCE
from splora.run_files import reference as reference
from splora.tasks.registry import REGISTRY, same_head
from splora.training.preflight import check_model, check_states, check_teacher_type, is_cut_model, macs_kept
from splora.training.specification import Problem, RunSpecification

#: Fields that may name another row.
SOURCES = ("model_name_or_path", "teacher_name_or_path")


def references(spec: RunSpecification) -> list[str]:
    """EXP IDs of the rows whose models a row starts from or learns from, each once."""
    named = (reference(getattr(spec, name)) for name in SOURCES)
    return list(dict.fromkeys(name for name in named if name is not None))


def leads_back(spec: RunSpecification, specs: Mapping[str, RunSpecification], field: str) -> bool:
    """Whether the row named in `field` builds on this row, directly or over others."""
    waiting = [name for name in [reference(getattr(spec, field))] if name is not None]
    seen: set[str] = set()
    while waiting:
        current = waiting.pop()
        if current == str(spec.exp_id):
            return True
        if current in specs and current not in seen:
            seen.add(current)
            waiting += references(specs[current])
    return False


def origin(source: str, specs: Mapping[str, RunSpecification]) -> str | None:
    """The model that a source begins with in the end; None where a chain of rows breaks or has no beginning."""
    for _ in range(len(specs) + 1):
        name = reference(source)
        if name is None:
            return source
        if name not in specs:
            return None
        source = specs[name].model_name_or_path
    return None


def check_lineage(spec: RunSpecification, specs: Mapping[str, RunSpecification]) -> list[Problem]:
    """What would fail when the rows before this one are done: other tasks, blocks of another shape.

    Args:
        specs: all rows that can be named, by EXP ID, with the settings that they would run with.
    """
    return list(_problems(spec, specs))


def _has_blocks(spec: RunSpecification) -> bool:
    """Whether masks of blocks lie over all of a row's weights."""
    return spec.pruning_method != "none" and spec.pruning_units == "blocks"


def _ends_smaller(spec: RunSpecification, specs: Mapping[str, RunSpecification]) -> bool:
    """Whether a row, or one that it starts from, leaves layers of other sizes than the dense model has."""
    for _ in range(len(specs) + 1):
        cuts = spec.pruning_method != "none" and spec.pruning_units != "blocks"
        if cuts or spec.prune_first in commands():
            return True
        name = reference(spec.model_name_or_path)
        if name is None or name not in specs:
            return is_cut_model(spec.model_name_or_path)
        spec = specs[name]
    return False


def _fewest_macs(spec: RunSpecification, specs: Mapping[str, RunSpecification]) -> float | None:
    """The fraction of the dense MACs that a row leaves, and those that it starts from, as far as they tell; or None."""
    kept = 1.0
    for _ in range(len(specs) + 1):
        kept *= spec.kept_by_masks
        if spec.prune_first in commands() and spec.budgets:
            kept *= spec.budgets[-1]
            break
        name = reference(spec.model_name_or_path)
        if name is None or name not in specs:
            kept *= 1.0 if name is not None else macs_kept(spec.model_name_or_path) or 1.0
            break
        spec = specs[name]
    return kept if kept < 1 else None


def _other_labels(spec: RunSpecification, other: RunSpecification, name: str) -> Problem | None:
    """What is wrong where a row starts from one that has learned another task."""
    if same_head(other.task, spec.task):
        return None
    if spec.prune_first != "none":
        told = f"is {spec.prune_first}, which prunes a model of {spec.task}, and {name!r} learns {other.task}"
        return Problem("prune_first", f"{told}; set it to none, or start from a row of {spec.task}")
    tasks = [REGISTRY[other.task], REGISTRY[spec.task]]
    classes = [task.names for task in tasks]
    if tasks[0].head != tasks[1].head or classes[0] == classes[1]:
        return None
    labels = [", ".join(names or ()) or "a score" for names in classes]
    told = f"is {name!r}, which learns {other.task} ({labels[0]}), and {spec.task} has {labels[1]}"
    return Problem("model_name_or_path", f"{told}; its head cannot be trained further")


def _prunes_more_than(spec: RunSpecification, kept: float) -> bool:
    """Whether a row's first budget is one that its start is within already."""
    return spec.prune_first in commands() and bool(spec.budgets) and spec.budgets[0] >= kept


def _problems(spec: RunSpecification, specs: Mapping[str, RunSpecification]) -> Iterator[Problem]:
    for field in SOURCES:
        name = reference(getattr(spec, field))
        other = None if name is None else specs.get(name)
        if other is None:
            continue
        if field == "model_name_or_path" and _has_blocks(spec) and _ends_smaller(other, specs):
            yield Problem(
                field,
                f"is 'run:{name}', which leaves a model with fewer heads and neurons, that blocks need not divide; set "
                f"pruning_units to heads_and_neurons here, not {spec.pruning_units}",
            )
        elif field == "teacher_name_or_path" and not same_head(other.task, spec.task):
            yield Problem(field, f"is 'run:{name}', which learns {other.task} and cannot teach {spec.task}")
        elif field == "model_name_or_path" and (told := _other_labels(spec, other, f"{REFERENCE}{name}")) is not None:
            yield told
        elif field == "model_name_or_path" and (kept := _fewest_macs(other, specs)) and _prunes_more_than(spec, kept):
            yield Problem(
                "prune_first_budget",
                f"is {spec.prune_first_budget}, and 'run:{name}' keeps no more than {kept:g} of the dense MACs; "
                f"give less than that",
            )
        elif field == "model_name_or_path" and (begin := origin(f"{REFERENCE}{name}", specs)) is not None:
            yield from check_model(spec, begin, fewer_heads=_ends_smaller(other, specs))
            if (teacher := spec.teacher_name_or_path) is not None and reference(teacher) is None:
                yield from check_states(spec, begin, teacher)
        elif field == "teacher_name_or_path" and (begin := origin(f"{REFERENCE}{name}", specs)) is not None:
            yield from check_teacher_type(spec, begin)
            student = origin(spec.model_name_or_path, specs)
            yield from check_states(spec, student, begin) if student is not None else ()
