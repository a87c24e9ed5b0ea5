"""What can be known of a run before it starts: data that is there, blocks that divide, a schedule that fits.

Imports no torch: local files are read as they are, hub names are known or were downloaded before, or are left to the
run. One pass tells all problems.
"""

from __future__ import annotations

import dataclasses
import functools
import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Literal

from splora.adapter_files import ADAPTER, instead_of, is_adapter
from splora.anatomy import FAMILIES, check_trained
from splora.errors import InputError, cut
from splora.files import expanded
from splora.json_values import read_object
from splora.model_sizes import CONFIG, impossible, stored_bytes
from splora.posttraining.core.method import commands
from splora.run_files import MODEL, reference
from splora.tasks.model_inputs import positions
from splora.tasks.registry import REGISTRY, WINDOWED
from splora.tasks.source_names import EMBEDDED, exists, is_data_set, is_path, local_folder, mistyped
from splora.training.known_blocks import block_problems, weight_sizes
from splora.training.known_models import known_config
from splora.training.specification import Problem, RunSpecification, check

#: The section that `splora quantize` writes into a configuration (`export.quantized` has it, and brings torch along).
QUANTIZED = "splora_quantization"


def preflight(spec: RunSpecification, world_size: int = 1) -> list[Problem]:
    """All problems of a run that show in its settings, its data files and its models.

    A `run:ID` in place of a model is left alone: `splora.hparams.lineage` knows the rows.
    """
    problems = check_model(spec)
    if spec.teacher_name_or_path is not None:
        problems += _check_teacher(spec, spec.teacher_name_or_path)
    if spec.prune_first != "none" and not problems:
        problems += check_first(spec, spec.model_name_or_path)
    examples, found = _check_data(spec)
    problems += found
    if examples is not None and spec.task not in WINDOWED:  # windows of questions are counted when there are any
        problems += _check_part(spec, examples, world_size)
    return check(spec, _steps(spec, examples, world_size)) + problems


def _steps(spec: RunSpecification, examples: int | None, world_size: int) -> int | None:
    """Optimizer steps at least (a question may give several windows), or None where the data are not at hand."""
    if spec.max_steps is not None:
        return spec.max_steps
    if examples is None:
        return None
    examples = min(examples, spec.max_train_examples or examples)
    # A fifth at most is held back, of sentences that belong to no text.
    examples -= min(spec.held_out, max(1, examples // 5)) if spec.held_out else 0
    batches = max(1, examples // (spec.per_gpu_train_batch_size * world_size))
    return max(1, int(batches * spec.num_train_epochs / spec.gradient_accumulation_steps))


def _check_part(spec: RunSpecification, examples: int, world_size: int) -> list[Problem]:
    """Whether a part of an epoch holds a batch."""
    examples = min(examples, spec.max_train_examples or examples)
    batches = max(1, examples // (max(1, spec.per_gpu_train_batch_size) * world_size))
    if spec.max_steps is not None or not 0 < spec.num_train_epochs < 1 or batches * spec.num_train_epochs >= 1:
        return []
    told = f"is {spec.num_train_epochs:g} of {batches} batches, which is not one batch; raise it, or set max_steps"
    return [Problem("num_train_epochs", told)]


def _check_data(spec: RunSpecification) -> tuple[int | None, list[Problem]]:
    examples, problems = None, []
    for name in ("train_file", "predict_file"):
        source = getattr(spec, name)
        if source is None or source == EMBEDDED:
            continue
        if not exists(source):
            if not is_data_set(source) or mistyped(source):
                problems.append(Problem(name, f"is {source!r}; there is no such file or folder{mistyped(source)}"))
            continue
        try:
            split: Literal["train", "eval"] = "train" if name == "train_file" else "eval"
            labelled = spec.labelled or split == "eval"
            count = _examples(source, spec.task, split, expanded(source).stat().st_mtime_ns, labelled)
            examples = count if name == "train_file" else examples
        except InputError as error:
            problems += [Problem(name, f"cannot be used: {problem.rstrip('.')}") for problem in error.problems]
    return examples, problems


@functools.lru_cache(maxsize=8)
def _examples(source: str, task: str, split: Literal["train", "eval"], changed: int, labelled: bool) -> int:
    """Examples of a file or folder; sheets name the same in many rows, `changed` (ns) tells a new version of it."""
    return REGISTRY[task].count(source, split, labelled)


def check_model(spec: RunSpecification, origin: str | None = None, *, fewer_heads: bool = False) -> list[Problem]:
    """Whether the run's blocks divide its model, and whether the model has as many positions as the run needs.

    Args:
        origin: where the run starts from another run, the model that this one begins with in the end.
        fewer_heads: whether that run leaves layers with fewer heads.
    """
    source = origin or spec.model_name_or_path
    config, problems = _config(source, "model_name_or_path")
    if config is None or problems:
        return [] if origin else problems  # what is wrong with it is told where it is named
    model_type = config.get("model_type")
    if not isinstance(model_type, str) or model_type not in FAMILIES:
        told = f"is a {cut(model_type)} model; supported are {', '.join(FAMILIES)}"
        return [] if origin else [Problem("model_name_or_path", told)]
    try:
        check_trained(SimpleNamespace(**config))
    except InputError as error:
        return [] if origin else [Problem("model_name_or_path", f"is {source}; {error.problems[0].rstrip('.')}")]
    try:
        weight_sizes(config)
        most = positions(SimpleNamespace(**config)) or spec.max_seq_length
    except (KeyError, TypeError, ValueError, OverflowError, AttributeError, ZeroDivisionError) as error:
        told = f"is {cut(source)}; its config.json lacks a size or holds no number there ({cut(error)})"
        return [] if origin else [Problem("model_name_or_path", told)]
    name = f"{source}, which {spec.model_name_or_path} begins with" if origin else source
    problems += block_problems(spec, config, name, fewer_heads=fewer_heads or spec.prune_first in commands())
    if spec.max_seq_length > most:
        problems.append(Problem("max_seq_length", f"is {spec.max_seq_length}; {name} has {most} positions"))
    return problems


def macs_kept(source: str) -> float | None:
    """The share of its dense self's MACs that a folder's model keeps; None where it is dense, or nothing is known."""
    config, _ = _config(source, "model_name_or_path")
    return None if config is None else _kept(config)


def is_cut_model(source: str) -> bool:
    """Whether a name means a folder of a model whose layers differ in size."""
    config, _ = _config(source, "model_name_or_path")
    return isinstance((config or {}).get("per_layer_config"), dict)


def check_first(spec: RunSpecification, source: str) -> list[Problem]:
    """Whether what `prune_first` prunes is fine-tuned, and keeps more than its first budget.

    Args:
        source: the model that the run starts from; of a row that starts from another one nothing is known yet.
    """
    if reference(source) is not None:
        return []
    config, _ = _config(source, "model_name_or_path")
    head = REGISTRY[spec.task].head
    made_for = (config or {}).get("architectures")
    known = local_folder(source) is not None or source == EMBEDDED or config is not None
    tuned = isinstance(made_for, list) and any(head in str(name) for name in made_for)
    if known and not tuned and not (config is not None and local_folder(source) and _brings(source, config, spec)):
        told = (
            f"is {source!r}, which has no head for {spec.task} yet, and prune_first {spec.prune_first} prunes models "
            f"that are fine-tuned; train a dense row first (pruning_method none) and name it here as run:ID"
        )
        return [Problem("model_name_or_path", told)]
    kept = None if config is None or spec.prune_first not in commands() else _kept(config)
    if kept is not None and spec.budgets and spec.budgets[0] >= kept:
        told = f"is {spec.prune_first_budget}, and {source} keeps {kept:.2f} of its dense model's weights already"
        return [Problem("prune_first_budget", told)]
    return []


def _kept(config: dict[str, Any]) -> float | None:
    """The share of the weights of its layers that a pruned model keeps, about that of its MACs; None of a dense one."""
    kind, layers = config.get("model_type"), config.get("per_layer_config")
    if kind not in FAMILIES or not isinstance(layers, dict):
        return None
    family = FAMILIES[kind]
    try:
        heads, neurons = (int(config[name]) for name in family.sizes)
        hidden, number = int(config[family.width]), int(config[family.depth])
        kept = [(int(of.get(family.sizes[0], heads)), int(of.get(family.sizes[1], neurons))) for of in layers.values()]
        kept += [(heads, neurons)] * (number - len(kept))
        costs = [4 * own_heads * (hidden // heads) + 2 * own_neurons for own_heads, own_neurons in kept]
        return sum(costs) / (number * (4 * hidden + 2 * neurons))
    except (KeyError, TypeError, ValueError, AttributeError, ZeroDivisionError):
        return None


def _check_teacher(spec: RunSpecification, teacher: str) -> list[Problem]:
    config, problems = _config(teacher, "teacher_name_or_path")
    if config is None or problems:
        return problems
    problems += check_teacher_type(spec, teacher)
    head = REGISTRY[spec.task].head
    made_for = config.get("architectures")
    if (
        isinstance(made_for, list)
        and not any(head in str(name) for name in made_for)
        and not _brings(teacher, config, spec)
    ):
        made = cut(", ".join(map(str, made_for)))
        told = f"is {teacher}, which is no fine-tuned {head} model; its config.json says {made}"
        problems.append(Problem("teacher_name_or_path", told))
    problems += _check_states(spec, spec.model_name_or_path, teacher, config)
    words, own = _vocabulary(teacher), _vocabulary(spec.model_name_or_path)
    if words is not None and own is not None and words != own:
        told = f"is {teacher}, which has another vocabulary than {spec.model_name_or_path}"
        problems.append(Problem("teacher_name_or_path", told))
    return problems


def check_states(spec: RunSpecification, student: str, teacher: str) -> list[Problem]:
    """Whether a teacher whose states are learned has as many layers, as wide, as the model that learns.

    Args:
        student, teacher: the models, or those that the rows which are named begin with.
    """
    config, problems = _config(teacher, "teacher_name_or_path")
    return [] if config is None or problems else _check_states(spec, student, teacher, config)


def _check_states(spec: RunSpecification, student: str, teacher: str, config: dict[str, Any]) -> list[Problem]:
    weights = [name for name in ("alpha_hidden", "alpha_attention") if getattr(spec, name) > 0]
    own, _ = _config(student, "model_name_or_path")
    shapes = [_shape(each) for each in (config, own)]
    if weights and shapes[0] is not None and spec.hidden_weights is not None:
        layers, given = shapes[0][0], spec.hidden_weights.count(",") + 1
        if layers != given:
            told = f"is {cut(spec.hidden_weights)}, {given} numbers, and {teacher} has {layers} layers; give {layers}"
            return [Problem("hidden_weights", told)]
    if not weights or None in shapes or shapes[0] == shapes[1]:
        return []
    (layers, width), (own_layers, own_width) = shapes  # type: ignore[misc]
    told = (
        f"is {teacher}, of {layers} layers {width} wide, and {weights[0]} compares its states with those of "
        f"{student}, of {own_layers} layers {own_width} wide; name a teacher of the same depth and "
        f"width, or set {weights[0]} to 0"
    )
    return [Problem("teacher_name_or_path", told)]


def _shape(config: dict[str, Any] | None) -> tuple[int, int] | None:
    """Layers and width of a model, where its configuration tells."""
    kind = (config or {}).get("model_type")
    if config is None or kind not in FAMILIES:
        return None
    layers, width = config.get(FAMILIES[kind].depth), config.get(FAMILIES[kind].width)
    return (layers, width) if isinstance(layers, int) and isinstance(width, int) else None


def _brings(teacher: str, config: dict[str, Any], spec: RunSpecification) -> bool:
    """Whether a model of which `config.json` says otherwise has the task's trained head among its weights."""
    from splora.checkpoints.heads import has_head  # it brings torch along, so only for who would be refused

    try:
        return has_head(teacher, SimpleNamespace(**config), spec.task)
    except InputError:
        return False


def check_teacher_type(spec: RunSpecification, source: str) -> list[Problem]:
    """Whether the teacher, or the model that it begins with, is of the family that the run names."""
    config, _ = _config(source, "teacher_name_or_path")
    if config is None or spec.teacher_type in (None, config.get("model_type")):
        return []
    told = f"is {spec.teacher_type!r}, but {source} is a {cut(config.get('model_type'))} model"
    return [Problem("teacher_type", told)]


def _config(source: str, name: str) -> tuple[dict[str, Any] | None, list[Problem]]:
    """What is known of a model's `config.json`: from its folder, or by its name; None where it is not at hand."""
    config, problems = _local_config(source, name)
    if config is None and not problems and reference(source) is None:
        config = known_config(source)
    return config, problems


def _local_config(source: str, name: str) -> tuple[dict[str, Any] | None, list[Problem]]:
    """`config.json` of a folder; None where `source` is a hub name, `embedded` or `run:ID`."""
    folder = local_folder(source)
    if folder is None:
        if reference(source) is None and not exists(source) and (is_path(source) or _is_neighbour(source)):
            return None, [Problem(name, f"is {source!r}; there is no such folder{mistyped(source)}")]
        if reference(source) is None and exists(source) and (inside := _inside(Path(source))):
            # A run's or an adapter's folder was meant, although a hub's model may go by that name.
            return None, [Problem(name, f"is {source!r}; this folder is no model, it has no weights{inside}")]
        return None, []
    if is_adapter(folder):  # beside it lies the configuration of its base
        return None, [Problem(name, f"is {source!r}, which {instead_of(folder)}")]
    try:
        config = read_object(folder / CONFIG)
    except ValueError as error:
        return None, [Problem(name, f"is {source!r}; its {CONFIG} cannot be read ({error})")]
    if config is None:
        return None, [Problem(name, f"is {source!r}; this folder is no model, it has no {CONFIG}{_inside(folder)}")]
    if QUANTIZED in config:
        told = "which is quantized, and trains and teaches no more; name the model that it was made from"
        return None, [Problem(name, f"is {source!r}, {told}")]
    if (found := impossible(config, stored_bytes(folder))) is not None:
        return None, [Problem(name, f"is {source!r}; its {CONFIG}: {found}")]
    return config, []


def _is_neighbour(source: str) -> bool:
    """Whether `owner/name`, of which nothing is known as a name of the hub, is nearly a folder's path here."""
    return "/" in source and known_config(source) is None and bool(mistyped(source))


def _inside(folder: Path) -> str:
    """What to name instead of a folder that is no model: a run's model, or what its adapter starts from."""
    if (folder / MODEL / CONFIG).is_file():
        return f"; did you mean {str(folder / MODEL)!r}?"
    if is_adapter(folder / ADAPTER):
        return f"; {folder / ADAPTER} {instead_of(folder / ADAPTER)}"
    return ""


def _vocabulary(source: str) -> dict[str, int] | None:
    """Token → number of a local tokenizer, or None where it is not at hand."""
    folder = local_folder(source)
    path = (folder or Path(source)) / "tokenizer.json"
    if folder is None or not path.is_file():
        return None
    try:
        words = json.loads(path.read_text(encoding="utf-8"))["model"]["vocab"]
        return dict(words)
    except (OSError, ValueError, KeyError, TypeError, RecursionError):  # said where the tokenizer is loaded
        return None


def with_resolved(spec: RunSpecification, folders: dict[str, str]) -> RunSpecification:
    """The specification with each `run:ID` replaced by the model folder of that run (ID → folder)."""
    named = {name: reference(getattr(spec, name)) for name in ("model_name_or_path", "teacher_name_or_path")}
    changes: dict[str, Any] = {name: folders[exp_id] for name, exp_id in named.items() if exp_id is not None}
    return dataclasses.replace(spec, **changes)
