"""The parts of a run's settings, as the Lightning configuration groups them; imports no torch.

Defaults, meanings and choices are those of the sheet's columns, said once in `specification`.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from dataclasses import MISSING, asdict, dataclass, field, fields
from typing import Any, TypeVar

from splora.errors import InputError
from splora.masks.criteria import Criterion, named
from splora.training.specification import FIELDS, RunSpecification, check_settings, parsed_weights

T = TypeVar("T")


def option(
    *columns: str,
    help: str | None = None,
    required: bool = False,
    read: Callable[[RunSpecification], Any] | None = None,
    write: Callable[[Any], dict[str, Any]] | None = None,
    **default: Any,
) -> Any:
    """A field that one column of the sheet stands for, or a pair of them.

    Args:
        columns: the column; of a pair such as (rows, cols), both.
        help: what the option means, where the column's own text says something else.
        required: the field has no default.
        read: what the columns of a row make of the field, where that is not their values.
        write: what the section's options make of the columns.
        default: `default=` where that is not the columns' own.
    """
    known = [FIELDS[name] for name in columns]
    usual = known[0].default if len(known) == 1 else tuple(each.default for each in known)
    metadata = {**known[0].metadata, **({"help": help} if help else {})}
    metadata |= {"columns": columns, "read": read, "write": write}
    return field(default=MISSING if required else default.get("default", usual), metadata=metadata)


def from_columns(section: type[T], spec: RunSpecification) -> T:
    """The options of a section that a row's columns make."""
    values = {}
    for each in fields(section):  # type: ignore[arg-type]
        cells = tuple(getattr(spec, name) for name in each.metadata["columns"])
        read = each.metadata["read"]
        values[each.name] = read(spec) if read else cells if len(cells) > 1 else cells[0]
    return section(**values)


def to_columns(options: Any) -> dict[str, Any]:
    """The columns that make a section's options; the inverse of `from_columns`."""
    columns: dict[str, Any] = {}
    for each in fields(options):
        names, value, write = each.metadata["columns"], getattr(options, each.name), each.metadata["write"]
        cells = value if len(names) > 1 else [value]
        columns |= write(options) if write else dict(zip(names, cells, strict=True))
    return columns


def meaning(metadata: Mapping[str, Any]) -> str:
    """What an option means and what it may be, in one line."""
    choices = metadata.get("choices")
    return str(metadata["help"]) + (f" Allowed: {', '.join(choices)}." if choices else "")


def layer_weights(text: str | None, layers: int) -> list[float]:
    """Weights of so many layers, as `hidden_weights` says them; all the same where it is empty.

    Raises:
        InputError: they are no numbers from 0 on with one above 0, or not as many as layers.
    """
    if text is None:
        return [1.0] * layers
    weights = parsed_weights(text)
    if len(weights) != layers:
        raise InputError(f"hidden_weights is {text!r}, of {len(weights)} layers; the model has {layers}.")
    return weights


def described(**columns: str) -> Callable[[type[T]], type[T]]:
    """Adds options to a class's docstring, where `help` and jsonargparse's ``--help`` read what they mean.

    Args:
        columns: parameters of the class by the sheet's column that says what they mean. The fields of a dataclass bring
            their own meaning.
    """

    def describe(cls: type[T]) -> type[T]:
        entries = {name: FIELDS[column].metadata for name, column in columns.items()}
        if not entries:
            entries = {each.name: each.metadata for each in fields(cls)}  # type: ignore[arg-type]
        lines = "".join(f"    {name}: {meaning(metadata)}\n" for name, metadata in entries.items())
        begin, _, others = inspect.cleandoc(cls.__doc__ or "").partition("\nArgs:\n")
        cls.__doc__ = f"{begin.rstrip()}\n\nArgs:\n{lines}{others}"
        return cls

    return describe


@described()
@dataclass(frozen=True)
class AdapterOptions:
    """ΔW: `kind` is none (the weights themselves are trained), splopa, splora or lora."""

    kind: str = option("adapter")
    num_prototypes: int = option("num_splopa_prototypes")
    prototype_rank: int = option("splopa_prototype_rank")
    init_range: float = option(
        *("splopa_init_range", "splora_init_range"),
        help="Initial range of SPLoPA's prototypes or of SPLoRA's A.",
        read=lambda spec: spec.splopa_init_range if spec.adapter == "splopa" else spec.splora_init_range,
        write=lambda own: {"splopa_init_range" if own.kind == "splopa" else "splora_init_range": own.init_range},
        default=FIELDS["splopa_init_range"].default,
    )
    shared_prototypes: bool = option("splopa_shared_prototypes")
    shared_position_weights: bool = option("splopa_shared_pos_weights")
    rank: float = option("splora_rank", help="SPLoRA's rank; below 1 it is a fraction of out_features.")
    lora_rank: int = option("lora_rank")
    lora_alpha: float = option("lora_alpha")


@described()
@dataclass(frozen=True)
class PruningOptions:
    """Masks: method, first scores and the block grids (rows, cols)."""

    method: str = option("pruning_method")
    mask_init: str = option("mask_init")
    mask_scale: float = option("mask_scale")
    attention_block: tuple[int, int] = option(
        "attention_block_rows", "attention_block_cols", help="Rows and columns of a block in attention weights."
    )
    ffn_block: tuple[int, int] = option(
        "ffn_block_rows", "ffn_block_cols", help="Rows and columns of a block in feed-forward weights."
    )
    regularization: str = option("regularization")
    units: str = option("pruning_units")
    threshold_of: str = option("threshold_of")

    @property
    def criterion(self) -> Criterion:
        """What decides which blocks or units stay."""
        return named(self.method)


@described()
@dataclass(frozen=True)
class PruneFirstOptions:
    """Pruning without training before the run: `method` is none, stat or fisher."""

    method: str = option("prune_first")
    budget: float = option(
        "prune_first_budget",
        help="Fraction of the dense model's MACs that stays, above 0 and below 1.",
        read=lambda spec: spec.budgets[-1] if spec.budgets else 0.5,
        write=lambda own: {"prune_first_budget": None if own.method == "none" else str(own.budget)},
        default=0.5,
    )
    samples: int = option("prune_first_samples")


@described()
@dataclass(frozen=True)
class OptimizerOptions:
    """AdamW with linear warm-up and linear decay; an empty rate means `learning_rate`."""

    learning_rate: float = option("learning_rate")
    mask_scores_learning_rate: float | None = option("mask_scores_learning_rate")
    position_weights_learning_rate: float | None = option("position_weights_learning_rate")
    adapter_learning_rate: float | None = option("adapter_learning_rate")
    weight_decay: float = option("weight_decay")
    warmup_steps: int = option("warmup_steps")
    schedule_total_steps: int | None = option("schedule_total_steps")


@described()
@dataclass(frozen=True)
class DistillationOptions:
    """A fine-tuned teacher, and how its loss is mixed in."""

    teacher_name_or_path: str = option(
        "teacher_name_or_path", help="Fine-tuned teacher: hub name or folder.", required=True
    )
    alpha_ce: float = option("alpha_ce")
    alpha_distil: float = option("alpha_distil")
    temperature: float = option("temperature")
    alpha_hidden: float = option("alpha_hidden")
    alpha_attention: float = option("alpha_attention")
    hidden_weights: str | None = option("hidden_weights")
    teacher_type: str | None = option(
        "teacher_type", help="Family the teacher is said to be of; checked against its configuration."
    )


#: The sections of `model` in a configuration, in its order.
SECTIONS: dict[str, type[Any]] = {
    "adapter": AdapterOptions,
    "pruning": PruningOptions,
    "prune_first": PruneFirstOptions,
    "optimizer": OptimizerOptions,
    "distillation": DistillationOptions,
}
#: What stands in `model` itself, as the columns are called.
PLAIN = ("task", "model_name_or_path", "seed", "dropout")


def model_section(spec: RunSpecification) -> dict[str, Any]:
    """The section `model` of a row's configuration, as plain values; without a teacher, `distillation` is None."""
    section: dict[str, Any] = {name: getattr(spec, name) for name in PLAIN}
    for name, cls in SECTIONS.items():
        is_absent = cls is DistillationOptions and spec.teacher_name_or_path is None
        options = {} if is_absent else asdict(from_columns(cls, spec))
        plain = {key: list(value) if isinstance(value, tuple) else value for key, value in options.items()}
        section[name] = None if is_absent else plain
    return section


def model_arguments(section: Mapping[str, Any]) -> dict[str, Any]:
    """The arguments of a `PruningModule` that a section `model` holds as plain values."""
    made = dict(section)
    for name, cls in SECTIONS.items():
        if section.get(name) is not None:
            pairs = {key: tuple(value) if isinstance(value, list) else value for key, value in section[name].items()}
            made[name] = cls(**pairs)
    return made


def model_columns(section: Mapping[str, Any]) -> dict[str, Any]:
    """The columns that make a section `model`; the inverse of `model_section`."""
    made = model_arguments(section)
    columns = {name: made[name] for name in PLAIN if name in made}
    for name in SECTIONS:
        columns |= {} if made.get(name) is None else to_columns(made[name])
    return columns


def place_of(column: str) -> str | None:
    """Where YAML and command line have a column of the model, as in ``model.pruning.mask_scale``."""
    places = {name: f"model.{name}" for name in PLAIN}
    for section, cls in SECTIONS.items():
        places |= {name: f"model.{section}.{each.name}" for each in fields(cls) for name in each.metadata["columns"]}
    return places.get(column)


def check_model_section(section: Mapping[str, Any]) -> None:
    """Refuse what the sheet's columns could not be either, wherever the section comes from.

    Raises:
        InputError: all such settings at once, each by its place.
    """
    problems = check_settings(RunSpecification(**model_columns(section)))
    placed = [(place_of(problem.field), problem.message) for problem in problems]
    if told := [f"{place} {message}{'.' * (message[-1] != '?')}" for place, message in placed if place is not None]:
        raise InputError(told)
