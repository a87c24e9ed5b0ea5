"""Rows that build on other rows (``run:ID``): where a chain of them begins, and what cannot be built on what."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from splora.errors import cut
from splora.training.preflight import check_model, check_teacher_type
from splora.training.specification import QA_TASKS, Problem, RunSpecification

REFERENCE = "run:"
#: Fields that may name another row.
SOURCES = ("model_name_or_path", "teacher_name_or_path")


def reference(source: str | None) -> str | None:
    """The EXP ID that a source names, or None where it is no `run:ID`."""
    return source.removeprefix(REFERENCE) if source is not None and source.startswith(REFERENCE) else None


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
    """What would fail when the rows before this one are done: adapters, other tasks, blocks of another shape.

    Args:
        specs: all rows that can be named, by EXP ID, with the settings that they would run with.
    """
    return list(_problems(spec, specs))


def _problems(spec: RunSpecification, specs: Mapping[str, RunSpecification]) -> Iterator[Problem]:
    for field in SOURCES:
        name = reference(getattr(spec, field))
        other = None if name is None else specs.get(name)
        if other is None:
            continue
        if other.adapter != "none":
            before = other.model_name_or_path
            yield Problem(
                field,
                f"is 'run:{name}', a row with the adapter {other.adapter}, which leaves an adapter and no model; name "
                f"{cut(before)}, which that row starts from, or merge the adapter (merge_and_unload) and name the "
                "folder of the merged model",
            )
        elif field == "teacher_name_or_path" and other.task != spec.task and not {other.task, spec.task} <= {*QA_TASKS}:
            yield Problem(field, f"is 'run:{name}', which learns {other.task} and cannot teach {spec.task}")
        elif field == "model_name_or_path" and (begin := origin(f"{REFERENCE}{name}", specs)) is not None:
            yield from check_model(spec, begin)
        elif field == "teacher_name_or_path" and (begin := origin(f"{REFERENCE}{name}", specs)) is not None:
            yield from check_teacher_type(spec, begin)
