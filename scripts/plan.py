"""The order of runs: rows that others build on (`run:ID`) come first, and each row gets its folder."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from splora.hparams.overrides import Overrides, apply
from splora.hparams.rows import Row
from splora.hparams.select import folder_name
from splora.hparams.workbook import Workbook

from splora.training.preflight import with_resolved
from splora.training.specification import FIELDS, RunSpecification

REFERENCE = "run:"
#: Overrides that also hold for a row that was not asked for but is needed: the same data, on the same machine.
_SHARED_GROUPS = ("Task", "Machine")


@dataclass(frozen=True)
class Job:
    """A row to run: its specification with `run:ID` replaced by folders, where it goes, and who needs it."""

    row: Row
    spec: RunSpecification
    folder: Path
    needed_by: str = ""


def plan(rows: Sequence[Row], book: Workbook, overrides: Overrides, output_dir: str | None) -> list[Job]:
    """Jobs of `rows` and of the rows they need, each once, needed ones first.

    Args:
        rows: chosen rows, overrides applied, without problems.
        output_dir: folder of a single row, or of a folder per row; default ``runs/<sheet>/<EXP ID>``.
    """
    known = {str(row.spec.exp_id): row for row in book.rows}
    chosen = {str(row.spec.exp_id): row for row in rows}
    shared = Overrides(
        {name: value for name, value in overrides.values.items() if FIELDS[name].metadata["group"] in _SHARED_GROUPS},
        overrides.options,
    )
    jobs: dict[str, Job] = {}

    def add(name: str, needed_by: str) -> None:
        if name in jobs:
            return
        row = chosen[name] if name in chosen else apply(known[name], shared)
        needs = references(row.spec)
        for other in needs:
            add(other, name)
        folders = {other: str(jobs[other].folder / "model") for other in needs}
        folder = _folder(row, len(rows), output_dir, name in chosen)
        jobs[name] = Job(row, with_resolved(row.spec, folders), folder, "" if name in chosen else needed_by)

    for name in chosen:
        add(name, "")
    return list(jobs.values())


def references(spec: RunSpecification) -> list[str]:
    """EXP IDs of the rows whose models a row starts from or learns from."""
    sources = (spec.model_name_or_path, spec.teacher_name_or_path)
    return [source.removeprefix(REFERENCE) for source in sources if source and source.startswith(REFERENCE)]


def _folder(row: Row, count: int, output_dir: str | None, is_chosen: bool) -> Path:
    name = folder_name(row.spec.exp_id)
    if output_dir is None:
        return Path("runs") / folder_name(row.sheet) / name
    if count > 1:
        return Path(output_dir) / name
    beside = Path(output_dir)
    return beside if is_chosen else beside.with_name(f"{beside.name}-needs-{name}")
