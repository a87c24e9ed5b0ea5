"""The rows of a sheet as a table of text."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

from splora.hparams.rows import Row
from splora.posttraining.core.method import commands
from splora.training.specification import RunSpecification

_HEADINGS = ("EXP ID", "row", "task", "method", "target density", "reported density", "reported scores", "model")
_SCORES = (
    ("EM", "reported_exact_match"),
    ("F1", "reported_f1"),
    ("acc", "reported_accuracy"),
    ("acc MM", "reported_accuracy_mismatched"),
)


def table(rows: Iterable[Row]) -> Iterator[str]:
    """Lines of text, a heading first, columns as wide as their widest cell."""
    lines: list[Sequence[str]] = [_HEADINGS, *(_line(row) for row in rows)]
    widths = [max(len(line[column]) for line in lines) for column in range(len(_HEADINGS))]
    for line in lines:
        yield "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip()


def method(spec: RunSpecification) -> str:
    """Pruning method and adapter, as in ``topK + splopa``; what is pruned before training comes first."""
    parts = [spec.prune_first] if spec.prune_first != "none" else []
    if spec.pruning_method != "none":
        units = "" if spec.pruning_units == "blocks" else f" {spec.pruning_units}"
        parts.append(f"{spec.pruning_method}{units}")
    name = ", ".join(parts) or "dense"
    return name if spec.adapter == "none" else f"{name} + {spec.adapter}"


def target(spec: RunSpecification) -> str:
    """The density that the row aims at in percent, or the penalty that decides it."""
    if spec.prune_first != "none" and spec.pruning_method == "none":
        of = "MACs" if spec.prune_first in commands() else "blocks"
        return f"{', '.join(f'{100 * budget:g}' for budget in spec.budgets) or '?'} % of {of}"
    if spec.target_density is not None:
        return f"{100 * spec.target_density:g} %"
    return f"λ = {spec.final_lambda:g}" if spec.regularization != "none" else f"v = {spec.final_threshold:g}"


def _line(row: Row) -> Sequence[str]:
    spec = row.spec
    scores = [f"{label} {getattr(spec, name):.1f}" for label, name in _SCORES if getattr(spec, name) is not None]
    density = "-" if spec.reported_density is None else f"{spec.reported_density:.1f} %"
    shown = "-" if not scores else ", ".join(scores)
    mark = f"{spec.exp_id}{' !' if row.problems else ''}"
    return mark, str(row.number), spec.task, method(spec), target(spec), density, shown, spec.model
