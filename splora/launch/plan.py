"""The order of runs: rows that others build on (`run:ID`) come first, each in its folder, and bad rows stay out."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from splora.errors import InputError, cut, nearest
from splora.hparams.folders import folder_name
from splora.hparams.lineage import SOURCES, check_lineage, leads_back, reference, references
from splora.hparams.overrides import Overrides, apply
from splora.hparams.rows import Row, sentence
from splora.hparams.workbook import Workbook
from splora.run_files import ADAPTER, MODEL, REFERENCE, RESULT
from splora.tasks.source_names import has_weights
from splora.training.preflight import with_resolved
from splora.training.seeds import seed_folder
from splora.training.specification import FIELDS, RunSpecification
from splora.training.state import label

#: Overrides that also hold for a row that was not asked for but is needed: the same data, on the same machine.
_SHARED_GROUPS = ("Task", "Machine")


def is_shared(name: str, option: str) -> bool:
    """Whether an override of a field also holds for rows that were not asked for but are needed.

    What a row starts from is its own, unless ``--model`` names the pretrained model of all.
    """
    return FIELDS[name].metadata["group"] in _SHARED_GROUPS and (name != "model_name_or_path" or option == "--model")


@dataclass(frozen=True)
class Job:
    """A row to run: its specification with `run:ID` replaced by folders, where it goes, and who needs it."""

    row: Row
    spec: RunSpecification
    folder: Path
    needed_by: str = ""
    #: Names of the jobs that must be finished first.
    needs: tuple[str, ...] = ()
    #: Where the row runs with several seeds, this one's.
    seed: int | None = None


def plan_seeds(
    rows: Sequence[Row], book: Workbook, overrides: Overrides, output_dir: str | None, seeds: Sequence[int]
) -> tuple[list[Job], list[str]]:
    """Jobs of `rows` with each of the seeds, in a folder per seed; rows that are only needed run once, with their own.

    Args:
        seeds: empty: each row with its own seed, into its own folder (see `plan`).
    """
    if not seeds:
        return plan(rows, book, overrides, output_dir)
    jobs: dict[Path, Job] = {}
    sentences: dict[str, None] = {}
    for seed in seeds:
        seeded = [replace(row, spec=replace(row.spec, seed=seed)) for row in rows]
        planned, problems = plan(seeded, book, overrides, output_dir, seed)
        sentences |= dict.fromkeys(problems)
        for job in planned:
            jobs.setdefault(job.folder, job)
    return list(jobs.values()), list(sentences)


def plan(
    rows: Sequence[Row], book: Workbook, overrides: Overrides, output_dir: str | None, seed: int | None = None
) -> tuple[list[Job], list[str]]:
    """Jobs of `rows` and of the rows they need, each once, needed ones first; and why rows are not among them.

    A row is left out where it, a row that it builds on, or the headings of their sheets have a problem.

    Args:
        rows: chosen rows, overrides applied.
        output_dir: folder of a single row, or of a folder per row; default ``runs/<sheet>/<EXP ID>``.
        seed: the rows' seed, where they run with several: then each has a folder per seed.

    Raises:
        InputError: two rows would share a folder, or no folder can be called as one of them is.
    """
    chosen = {str(row.spec.exp_id): row for row in reversed(rows)}
    line = _lineage(chosen, book, overrides)
    specs = {name: row.spec for name, row in line.items()}
    problems = {name: list(dict.fromkeys(_problems(row, specs, book))) for name, row in line.items()}
    jobs: dict[str, Job] = {}
    unfinished: dict[str, str] = {}

    def is_ready(name: str) -> bool:
        # Rows that lead back to themselves have a problem, so that this ends.
        return not problems[name] and all(is_ready(other) for other in references(specs[name]))

    def is_lost(name: str) -> bool:
        """Whether a row builds on one that was left out, or was needed by such rows alone."""
        needed = name in chosen or any(name in references(specs[other]) for other in jobs)
        return not needed or any(other not in jobs for other in references(specs[name]))

    def add(name: str, needed_by: str) -> None:
        if name in jobs:
            return
        row = line[name]
        needs = references(row.spec)
        for other in needs:
            add(other, name)
        folders = {other: str(jobs[other].folder / MODEL) for other in needs}
        folder = _folder(row, len(rows), output_dir, name in chosen, seed)
        for other in needs:
            if other not in chosen and finished_without_model(jobs[other].folder):
                unfinished[name] = other
        waits_for = tuple(str(label(jobs[other].spec, jobs[other].folder)) for other in needs)
        by, own_seed = ("", seed) if name in chosen else (needed_by, None)
        jobs[name] = Job(row, with_resolved(row.spec, folders), folder, by, waits_for, own_seed)

    sentences: list[str] = []
    for row in rows:
        name = str(row.spec.exp_id)
        if row is not chosen[name]:
            sentences += row.problems  # a second row of that EXP ID
        elif is_ready(name):
            add(name, "")
        else:
            sentences += _reasons(name, problems, line)
    for name, source in unfinished.items():
        field = next(field for field in SOURCES if reference(getattr(specs[name], field)) == source)
        sentences.append(
            sentence(
                line[name],
                field,
                f"is 'run:{source}', which an earlier version finished in {jobs[source].folder} without a model that "
                f"is served; repeat it by --exp-id {source} --force",
            )
        )
        del jobs[name]
    while lost := [name for name in jobs if unfinished and is_lost(name)]:
        for name in lost:
            del jobs[name]
    folders: dict[Path, Job] = {}
    for job in jobs.values():
        if (other := folders.setdefault(job.folder, job)) is not job:
            raise InputError(
                f"{job.row.place('exp_id')}: its results would go to {job.folder}, as those of EXP ID "
                f"{other.spec.exp_id} (sheet '{other.row.sheet}'); run one of them, or choose their sheet by --sheet."
            )
    return list(jobs.values()), list(dict.fromkeys(sentences))


def finished_without_model(folder: Path) -> bool:
    """Whether a finished run left an adapter alone, as those of earlier versions did."""
    return (folder / RESULT).is_file() and (folder / ADAPTER).is_dir() and not has_weights(folder / MODEL)


def _lineage(chosen: dict[str, Row], book: Workbook, overrides: Overrides) -> dict[str, Row]:
    """The chosen rows and all that they build on, directly or over others, as they would run."""
    shared = Overrides(
        {name: value for name, value in overrides.values.items() if is_shared(name, overrides.options[name])},
        overrides.options,
    )
    known = {str(row.spec.exp_id): row for row in reversed(book.rows)}
    line: dict[str, Row] = {}
    waiting = list(chosen)
    while waiting:
        name = waiting.pop()
        if name not in line and (name in chosen or name in known):
            line[name] = chosen[name] if name in chosen else apply(known[name], shared)
            waiting += references(line[name].spec)
    return line


def _problems(row: Row, specs: dict[str, RunSpecification], book: Workbook) -> Iterator[str]:
    yield from row.problems
    yield from next(sheet.problems for sheet in book.sheets if sheet.name == row.sheet)
    for field in SOURCES:
        name = reference(getattr(row.spec, field))
        if name is not None and name not in specs:
            hint = nearest(name, [str(other.spec.exp_id) for other in book.rows])
            yield sentence(
                row, field, f"is {cut(f'{REFERENCE}{name}')}; the workbook has no row with EXP ID {name[:80]}{hint}"
            )
        elif name is not None and leads_back(row.spec, specs, field):
            yield sentence(row, field, f"is 'run:{name}', which leads back to this row itself")
    for problem in check_lineage(row.spec, specs):
        yield sentence(row, problem.field, problem.message)


def _reasons(name: str, problems: dict[str, list[str]], line: dict[str, Row]) -> Iterator[str]:
    """Why a row cannot run: what is wrong with it, or with the rows that it builds on."""
    yield from problems[name]
    if not problems[name]:
        for other in references(line[name].spec):
            reasons = list(_reasons(other, problems, line))
            if reasons:
                row = line[name]
                field = next(field for field in SOURCES if reference(getattr(row.spec, field)) == other)
                yield sentence(row, field, f"is 'run:{other}', a row that cannot run")
                yield from reasons


def _folder(row: Row, count: int, output_dir: str | None, is_chosen: bool, seed: int | None) -> Path:
    name = folder_name(row.spec.exp_id)
    if seed is not None and is_chosen:
        name = seed_folder(name, seed)
    if output_dir is None:
        return Path("runs") / folder_name(row.sheet) / name
    if count > 1 or seed is not None:
        return Path(output_dir) / name
    beside = Path(output_dir)
    return beside if is_chosen else beside.with_name(f"{beside.name}-needs-{name}")


def lines(jobs: Sequence[Job], overrides: Overrides, force: bool = False) -> Iterator[str]:
    """The plan as lines of text: what runs, in which order, from what, into which folder."""
    yield f"plan: {len(jobs)} {'run' if len(jobs) == 1 else 'runs'}"
    for number, job in enumerate(jobs[:_SHOWN], start=1):
        spec = job.spec
        teacher = f", taught by {spec.teacher_name_or_path}" if spec.teacher_name_or_path else ""
        why = f", needed by {job.needed_by}" if job.needed_by else ""
        done = ", finished before" if (job.folder / RESULT).is_file() and (job.needed_by or not force) else ""
        if done and (source := _newer_source(job)) is not None:
            again = f"--exp-id {spec.exp_id} --force" if job.needed_by else "--force"
            done += f" from an earlier result of {source} ({again} repeats it)"
        yield (
            f"  {number}. {job.row.sheet}, EXP ID {spec.exp_id}: from {spec.model_name_or_path}{teacher}, into "
            f"{job.folder}{why}{done}"
        )
    if len(jobs) > _SHOWN:
        yield f"  … and {len(jobs) - _SHOWN} more"
    yield from advice(jobs, overrides)


def _newer_source(job: Job) -> Path | None:
    """A run that a finished run started from or learned from, and that has been repeated since."""
    finished = (job.folder / RESULT).stat().st_mtime_ns
    for field in SOURCES:
        model = Path(getattr(job.spec, field) or "")
        source, again = model.parent, model.parent / RESULT
        if model.name == MODEL and again.is_file() and again.stat().st_mtime_ns > finished:
            return source
    return None


def advice(jobs: Sequence[Job], overrides: Overrides) -> Iterator[str]:
    """What a person should know who gave ``--model`` to a row that starts from another row."""
    model = overrides.values.get("model_name_or_path")
    if overrides.options.get("model_name_or_path") != "--model":
        return
    for job in jobs:
        if job.needed_by and job.spec.model_name_or_path == model:
            yield (
                f"EXP ID {job.spec.exp_id} is trained from {model} first, since EXP ID {job.needed_by} starts from its "
                f"result; --start {model} instead of --model starts EXP ID {job.needed_by} from {model} itself"
            )


_SHOWN = 30
