"""What can be known of a run before it starts: data that is there, blocks that divide, a schedule that fits.

Imports no torch: local files are read as they are, hub names are left to the run. One pass tells all problems.
"""

from __future__ import annotations

import dataclasses
import functools
import json
from pathlib import Path
from typing import Any

from splora.errors import InputError
from splora.training.specification import QA_TASKS, Problem, RunSpecification, check

#: Names of a configuration's hidden size and number of neurons, by model type.
_SIZES = {
    "bert": ("hidden_size", "intermediate_size"),
    "roberta": ("hidden_size", "intermediate_size"),
    "distilbert": ("dim", "hidden_dim"),
    "opt": ("hidden_size", "ffn_dim"),
}


def preflight(spec: RunSpecification, world_size: int = 1) -> list[Problem]:
    """All problems of a run that show in its settings, its local data files and its local model folders.

    `run:ID` and `embedded` in place of a folder are left alone.
    """
    problems = _check_model(spec)
    if spec.teacher_name_or_path is not None:
        problems += _check_teacher(spec, spec.teacher_name_or_path)
    examples, found = _check_data(spec)
    problems += found
    return check(spec, _steps(spec, examples, world_size)) + problems


def _steps(spec: RunSpecification, examples: int | None, world_size: int) -> int | None:
    """Optimizer steps at least (a question may give several windows), or None where the data are not at hand."""
    if spec.max_steps is not None:
        return spec.max_steps
    if examples is None:
        return None
    examples = min(examples, spec.max_train_examples or examples)
    batches = max(1, examples // (spec.per_gpu_train_batch_size * world_size))
    return max(1, int(batches * spec.num_train_epochs / spec.gradient_accumulation_steps))


def _check_data(spec: RunSpecification) -> tuple[int | None, list[Problem]]:
    examples, problems = None, []
    for name in ("train_file", "predict_file"):
        source = getattr(spec, name)
        if source is None or source == "embedded" or not Path(source).exists():
            if source is not None and _is_path(source):
                problems.append(Problem(name, f"is {source!r}; there is no such file or folder"))
            continue
        try:
            if spec.task in QA_TASKS:
                count = _questions(source, Path(source).stat().st_mtime_ns)
                examples = count if name == "train_file" else examples
        except InputError as error:
            problems += [Problem(name, f"cannot be used: {problem}") for problem in error.problems]
    return examples, problems


@functools.lru_cache(maxsize=8)
def _questions(source: str, changed: int) -> int:
    """Questions of a file; sheets name the same file in many rows, `changed` (ns) tells a new version of it."""
    from splora.tasks.squad_json import count_questions

    return count_questions(source)


def _check_model(spec: RunSpecification) -> list[Problem]:
    config, problems = _local_config(spec.model_name_or_path, "model_name_or_path")
    if config is None or problems:
        return problems
    model_type = config.get("model_type")
    if model_type not in _SIZES:
        return [Problem("model_name_or_path", f"is a {model_type!r} model; supported are {', '.join(_SIZES)}")]
    hidden, neurons = (int(config[name]) for name in _SIZES[model_type])
    attention, ffn = (hidden, hidden), (neurons, hidden)
    return [
        Problem(
            name, f"is {getattr(spec, name)}; blocks of that size do not divide {size} of {spec.model_name_or_path}"
        )
        for name, sizes in (
            ("attention_block_rows", attention[:1]),
            ("attention_block_cols", attention[1:]),
            ("ffn_block_rows", ffn),
            ("ffn_block_cols", ffn),
        )
        for size in dict.fromkeys(sizes)
        if (spec.pruning_method != "none" or spec.adapter == "splopa") and size % getattr(spec, name)
    ]


def _check_teacher(spec: RunSpecification, teacher: str) -> list[Problem]:
    config, problems = _local_config(teacher, "teacher_name_or_path")
    if config is None or problems:
        return problems
    if spec.teacher_type is not None and config.get("model_type") != spec.teacher_type:
        told = f"is {spec.teacher_type!r}, but {teacher} is a {config.get('model_type')!r} model"
        problems.append(Problem("teacher_type", told))
    words, own = _vocabulary(teacher), _vocabulary(spec.model_name_or_path)
    if words is not None and own is not None and words != own:
        told = f"is {teacher}, which has another vocabulary than {spec.model_name_or_path}"
        problems.append(Problem("teacher_name_or_path", told))
    return problems


def _local_config(source: str, name: str) -> tuple[dict[str, Any] | None, list[Problem]]:
    """`config.json` of a folder; None where `source` is a hub name, `embedded` or `run:ID`."""
    folder = Path(source)
    if not folder.is_dir():
        if _is_path(source):
            return None, [Problem(name, f"is {source!r}; there is no such folder")]
        return None, []
    path = folder / "config.json"
    try:
        return dict(json.loads(path.read_text(encoding="utf-8"))), []
    except FileNotFoundError:
        return None, [Problem(name, f"is {source!r}; this folder is no model, it has no config.json")]
    except (OSError, ValueError) as error:
        return None, [Problem(name, f"is {source!r}; its config.json cannot be read ({error})")]


def _vocabulary(source: str) -> dict[str, int] | None:
    """Token → number of a local tokenizer, or None where it is not at hand."""
    path = Path(source) / "tokenizer.json"
    if not path.is_file():
        return None
    try:
        words = json.loads(path.read_text(encoding="utf-8"))["model"]["vocab"]
        return dict(words)
    except (ValueError, KeyError, TypeError):
        return None


def _is_path(source: str) -> bool:
    """Whether a source can only be meant as a path: hub names are one word or owner/name."""
    if source == "embedded" or source.startswith("run:"):
        return False
    return source.startswith((".", "/", "~")) or source.count("/") > 1 or bool(Path(source).suffix in (".json", ".tsv"))


def refuse(spec: RunSpecification, world_size: int = 1) -> None:
    """Raise all of `preflight`'s problems at once.

    Raises:
        InputError: there is one.
    """
    problems = preflight(spec, world_size)
    if problems:
        told = f"EXP ID {spec.exp_id}" if spec.exp_id != "" else "the run"
        raise InputError(dict.fromkeys(f"{told}: {problem.field} {problem.message}." for problem in problems))


def with_resolved(spec: RunSpecification, folders: dict[str, str]) -> RunSpecification:
    """The specification with each `run:ID` replaced by the model folder of that run (ID → folder)."""
    changes: dict[str, Any] = {
        name: folders[value.removeprefix("run:")]
        for name in ("model_name_or_path", "teacher_name_or_path")
        if isinstance(value := getattr(spec, name), str) and value.startswith("run:")
    }
    return dataclasses.replace(spec, **changes)
